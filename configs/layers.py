"""What was asked for, layer by layer: base files, the experiment file, the command line. Nothing is checked against the
schema here; a layer is the plain content of one file, and where it came from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf

from configs.errors import ConfigError, did_you_mean

CONFIGS = Path(__file__).resolve().parent
EXPERIMENTS = CONFIGS / "experiment"
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Layer:
    """`values` set by `origin`: a file, as a person would write it, or the command line."""

    origin: str
    values: dict[str, Any]


def experiment_names() -> list[str]:
    """The shipped experiments, by the name that the command line takes."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def experiment_file(experiment: str | Path) -> Path:
    """NAME -> configs/experiment/NAME.yaml; whatever holds a slash or ends in .yaml is a path.

    Raises:
        ConfigError: there is no such experiment or file.
    """
    text = str(experiment)
    if isinstance(experiment, str) and "/" not in text and not text.endswith((".yaml", ".yml")):
        path = EXPERIMENTS / f"{text}.yaml"
        if not path.is_file():
            raise ConfigError(f"there is no experiment '{text}'; {did_you_mean(text, experiment_names())}")
        return path
    if not Path(text).is_file():
        raise ConfigError(f"there is no experiment file {text}; give a path to a YAML file, or a shipped name alone")
    return Path(text)


def file_layers(path: Path, _above: tuple[Path, ...] = ()) -> list[Layer]:
    """The layers of `path`, lowest first: its `base` files in order, each with its own bases, then the file itself.

    A base is looked for beside the file that names it, then in configs/. A base's `name` does not reach its children.

    Raises:
        ConfigError: a file is missing, is not YAML, or is its own base.
    """
    path = path.resolve()
    if path in _above:
        raise ConfigError(f"{shown(path)} is its own base, by way of {' -> '.join(map(shown, (*_above, path)))}")
    values = _read(path)
    layers: list[Layer] = []
    for base in _bases(values.pop("base", []), path):
        layers += file_layers(base, (*_above, path))
    if _above:
        values.pop("name", None)
    return [*layers, Layer(shown(path), values)]


def override_layer(overrides: Sequence[str]) -> Layer:
    """`key=value` arguments as one layer; the value is read as YAML (1e-3, null, [1, 2], "text"). The last one wins.

    Raises:
        ConfigError: an argument is not key=value, or its value is not YAML.
    """
    merged: dict[str, Any] = {}
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not re.fullmatch(r"\w[\w-]*(\.\w[\w-]*)*", key):
            raise ConfigError(f"'{override}' on the {COMMAND_LINE} is not key=value, such as trainer.steps=100")
        try:
            parsed = OmegaConf.from_dotlist([override])
        except Exception as error:  # PyYAML's and OmegaConf's own parse errors have no common class
            raise ConfigError(f"the value in '{override}' on the {COMMAND_LINE} is not YAML; quote it") from error
        _overlay(merged, _plain(parsed, COMMAND_LINE))
    return Layer(COMMAND_LINE, merged)


def fragment_names(folder: str) -> list[str]:
    """The shipped files of configs/FOLDER, as a section of that name may be set to: `auto_attack/standard`."""
    root = CONFIGS / folder
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.glob("**/*.yaml"))


def fragment(folder: str, name: str) -> Layer:
    """The one section of configs/FOLDER/NAME.yaml, or of the YAML file at the path NAME.

    Raises:
        ConfigError: there is no such file, or it holds anything but that section.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"there is no file {shown(path)}; {did_you_mean(name, fragment_names(folder))}")
    values = _read(path)
    if list(values) != [folder] or not isinstance(values[folder], dict):
        raise ConfigError(f"{shown(path)} must hold one section, '{folder}:', to be named in the place of one")
    return Layer(shown(path.resolve()), values[folder])


def shown(path: Path) -> str:
    """A path as a person would write it: from the project's root, or from the working directory."""
    for root in (CONFIGS.parent, Path.cwd()):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return path.as_posix()


def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = OmegaConf.load(path)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{shown(path)}, line {line}: {error.problem or error.context}; correct the YAML") from error
    except Exception as error:  # undecodable bytes, a broken ${...}, an unreadable file
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{shown(path)} can't be read: {reason}; correct the file") from error
    return _plain(loaded, shown(path))


def _plain(loaded: Any, origin: str) -> dict[str, Any]:
    values = OmegaConf.to_container(loaded, resolve=False)
    if not isinstance(values, dict):
        raise ConfigError(f"{origin} holds a list; it must hold sections, such as 'trainer:' with keys below")
    return _text_keys(values, origin)


def _text_keys(values: dict[Any, Any], origin: str) -> dict[str, Any]:
    for key, value in values.items():
        if not isinstance(key, str):
            raise ConfigError(f"the key {key!r} in {origin} is not text; quote it or spell it out")
        if isinstance(value, dict):
            _text_keys(value, origin)
    return values


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _overlay(below[key], value)
        elif isinstance(value, dict) and isinstance(below.get(key), str):  # attack=FILE attack.steps=3
            below[key] = {"base": below[key], **value}
        else:
            below[key] = value


def _bases(given: Any, path: Path) -> list[Path]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"base in {shown(path)} must be a list of YAML files, got {given!r}")
    return [_base(name, path) for name in names]


def _base(name: str, path: Path) -> Path:
    for folder in (path.parent, CONFIGS):
        if (folder / name).is_file():
            return folder / name
    shipped = [file.relative_to(CONFIGS).as_posix() for file in sorted(CONFIGS.glob("*/**/*.yaml"))]
    raise ConfigError(f"the base '{name}' of {shown(path)} does not exist; {did_you_mean(name, shipped)}")
