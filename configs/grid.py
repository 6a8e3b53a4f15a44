"""Attacks times radii: what `evaluate --attacks pgd20,apgd-ce,aa --eps 1,2,4` measures under.

A name is `pgdN` (N steps), a part of AutoAttack (`apgd-ce`, ...), `aa`, `aa-plus`, `aa-rand`, or a file below
configs/attack. What is named takes the place of the experiment's own `evaluation.attacks` and of its sweep.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from configs.compose import Composed, compose, to_yaml
from configs.errors import ConfigError, FieldError, did_you_mean
from configs.layers import COMMAND_LINE, fragment_names
from configs.schema.attack import CW, MEMBERS, PGD, AnyNorm, Attack, AutoAttack, NoAttack, Version

VERSIONS: dict[str, Version] = {"aa": "standard", "aa-plus": "plus", "aa-rand": "rand"}
SHORT_NAMES = ("pgd20", *MEMBERS, *VERSIONS)
CROSSINGS = 2.5  # times PGD's steps together cross its radius (Madry et al. 2018)

_ATTACKS, _SWEEP = "evaluation.attacks", "evaluation.eps_sweep_255"


def compose_measurement(
    experiment: str | Path,
    overrides: Sequence[str],
    attacks: str | None = None,
    eps: str | None = None,
    norm: AnyNorm = "linf",
) -> Composed:
    """An experiment, measured under the attacks that the command line names, or else under its own.

    `attack=FILE` among the overrides names one as well, and the `attack.KEY=VALUE` behind it are its settings; in front
    of it they are the training attack's, as everywhere.

    Args:
        attacks: names, separated by commas.
        eps: radii in 1/255, separated by commas, within which every attack is run. None: the settings' own; for short
            names those that the experiment is measured within.
        norm: of short names.

    Raises:
        ConfigError: as `compose`; an unknown name; what is not a radius, or no radius at all.
    """
    names, radii = _words("--attacks", attacks), _radii(eps)
    short = {name: _short(name, norm) for name in names if not _is_file(name)}
    rest, files = _redirected([*overrides, *(f"attack={name}" for name in names if name not in short)])
    composed = compose(experiment, rest)
    own = composed.config.evaluation.attacks
    settings = {**own, **short}
    chosen = [_entry(name) if _is_file(name) else name for name in names] + files
    if chosen:
        chosen += [name for name in own if _given(composed, f"{_ATTACKS}.{name}.")]
    elif not radii:
        return composed
    within = {name: radii or _own_radii(composed, files, norm) for name in short}
    grid = dict(
        cell for name in dict.fromkeys(chosen or own) for cell in _cells(name, settings[name], within.get(name, radii))
    )
    options = {"--attacks": attacks, "--eps": eps, "--norm": norm if norm != "linf" else None}
    typed = [*overrides, *(f"{option}={value}" for option, value in options.items() if value is not None)]
    return _measured(composed, grid, typed)


def _measured(composed: Composed, attacks: Mapping[str, Attack], typed: Sequence[str]) -> Composed:
    """The same run under other attacks; the hash stays, since it leaves out what is measured."""
    keep = _given(composed, _SWEEP)
    evaluation = composed.config.evaluation
    evaluation = replace(evaluation, attacks=dict(attacks), eps_sweep_255=evaluation.eps_sweep_255 if keep else [])
    config = replace(composed.config, evaluation=evaluation)
    origins = {key: origin for key, origin in composed.origins.items() if not key.startswith(f"{_ATTACKS}.")}
    origins |= dict.fromkeys([_SWEEP, *_keys({name: asdict(each) for name, each in attacks.items()})], COMMAND_LINE)
    inputs = replace(composed.inputs, overrides=tuple(typed))
    return replace(composed, config=config, origins=origins, resolved=to_yaml(config), inputs=inputs)


def _keys(values: Mapping[str, object], path: str = _ATTACKS) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}"


def _redirected(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides with `attack=FILE` and what follows it moved to evaluation.attacks, and the entries' names."""
    rest: list[str] = []
    files: list[str] = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if key == "attack" and equals and not value.startswith(("{", "null", "$")):
            files.append(_entry(value))
            rest.append(f"{_ATTACKS}.{files[-1]}={value}")
        elif key.startswith("attack.") and files:
            rest.append(f"{_ATTACKS}.{files[-1]}.{override.removeprefix('attack.')}")
        else:
            rest.append(override)
    return rest, files


def _cells(name: str, setting: Attack, radii: Sequence[float]) -> Iterator[tuple[str, Attack]]:
    """`NAME@RADIUS`, ascending; the setting as it is where there are no radii. Steps keep their ratio to the radius."""
    if not radii:
        yield name, setting
    for eps in radii:
        yield f"{name}@{eps:g}", _at(name, setting, eps)


def _at(name: str, setting: Attack, eps: float) -> Attack:
    if isinstance(setting, NoAttack):
        raise ConfigError(f"{_ATTACKS}.{name} has kind none, which has no radius; leave it out")
    try:
        if isinstance(setting, (PGD, CW)) and setting.step_255 is not None:
            return replace(setting, eps_255=eps, step_255=setting.step_255 * (eps / setting.eps_255))
        return replace(setting, eps_255=eps)
    except FieldError as error:
        raise ConfigError(f"--eps of {name} {error.problem}") from error


def _short(name: str, norm: AnyNorm) -> Attack:
    """The attack of a short name, at any radius."""
    try:
        if name in VERSIONS:
            return AutoAttack(version=VERSIONS[name], norm=norm)
        if name in MEMBERS:
            return AutoAttack(version="custom", attacks=[name], norm=norm).members[0]
    except FieldError as error:
        raise ConfigError(f"--attacks with --norm {norm}: {error}") from error
    steps = re.fullmatch(r"pgd([1-9]\d*)", name)
    if steps is None:
        known = did_you_mean(name, [*SHORT_NAMES, *fragment_names("attack")])
        raise ConfigError(f"there is no attack '{name}' for --attacks; {known}")
    if norm == "l1":
        raise ConfigError(f"{name} has the norms linf and l2; leave it out of --attacks, or use another --norm")
    count = int(steps[1])
    return PGD(norm=norm, eps_255=1, step_255=CROSSINGS / count, steps=count, loss="ce")


def _own_radii(composed: Composed, files: Sequence[str], norm: AnyNorm) -> list[float]:
    """Those that the experiment is measured within, or else trained within."""
    config = composed.config
    own = [setting for name, setting in config.evaluation.attacks.items() if name not in files]
    for settings in (own, [config.attack]):
        radii = {each.eps_255 for each in settings if not isinstance(each, NoAttack) and each.norm == norm}
        if radii:
            return sorted(radii)
    raise ConfigError(
        f"{config.name} has no {norm} attack whose radius --attacks could take; add --eps, such as --eps 4"
    )


def _given(composed: Composed, prefix: str) -> bool:
    return any(key.startswith(prefix) and origin == COMMAND_LINE for key, origin in composed.origins.items())


def _is_file(name: str) -> bool:
    """Short names come first: `square` is at the radii asked for, not at that of configs/attack/square.yaml."""
    return name.endswith((".yaml", ".yml")) or (name not in SHORT_NAMES and name in fragment_names("attack"))


def _entry(name: str) -> str:
    """auto_attack/standard -> auto_attack-standard; a path gives the file's name alone."""
    return Path(name).stem if name.endswith((".yaml", ".yml")) else name.replace("/", "-")


def _words(option: str, given: str | None) -> list[str]:
    """The entries of a list with commas, each once."""
    words = [] if given is None else [word.strip() for word in given.split(",")]
    if "" in words or len(set(words)) < len(words):
        raise ConfigError(f"{option} takes a list with commas and no entry twice, got '{given}'")
    return words


def _radii(eps: str | None) -> list[float]:
    try:
        radii = [float(word) for word in _words("--eps", eps)]
    except ValueError:
        raise ConfigError(f"--eps takes numbers in 1/255, such as 1,2,4; got '{eps}'") from None
    return sorted(set(radii))
