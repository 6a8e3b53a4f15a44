"""`show`: what a run would be, and who says so."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from configs.compose import Composed
from configs.layers import EXPERIMENTS, experiment_names


def show(composed: Composed, origin: bool = False) -> int:
    """Prints the resolved configuration as YAML that can be run as it is; with `origin`, each key's as a comment."""
    print(f"# run folder: {composed.run_folder}")
    print(with_origins(composed) if origin else composed.resolved, end="")
    return 0


def show_list() -> int:
    """Prints the shipped experiments, each with its claim."""
    names = experiment_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:<{width}}  {claim(name)}")
    return 0


def claim(name: str) -> str:
    """The first line of a shipped experiment's header, without its label."""
    first = (EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip().removeprefix("Claim:").strip()


def with_origins(composed: Composed) -> str:
    """The resolved YAML, with an aligned comment after each key: the file that set it, or the command line."""
    lines = list(_lines(asdict(composed.config), "", composed.origins))
    width = max(len(text) for text, origin in lines if origin)
    return "".join(f"{text:<{width}}  # {origin}\n" if origin else f"{text}\n" for text, origin in lines)


def _lines(values: dict[str, Any], path: str, origins: dict[str, str]) -> Iterator[tuple[str, str | None]]:
    """Lines of YAML, each with the origin of the key that starts on it."""
    indent = "  " * path.count(".")
    for key, value in values.items():
        dotted = f"{path}{key}"
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:", None
            yield from _lines(value, f"{dotted}.", origins)
            continue
        first, *rest = OmegaConf.to_yaml(OmegaConf.create({key: value})).splitlines()
        yield f"{indent}{first}", origins.get(dotted)
        yield from ((f"{indent}{line}", None) for line in rest)
