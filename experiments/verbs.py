"""What each verb does with its arguments. Its module is imported when it is called, so that help and errors in a
configuration answer before torch is loaded."""

import argparse
from importlib import import_module
from typing import Any

from configs.errors import ConfigError
from experiments.costs.accelerators import Machine


def train(arguments: argparse.Namespace) -> int:
    """Trains, or says what that would take."""
    composed, machine = _composed(arguments), _machine(arguments)
    return _call("plan", "plan", composed, machine) if arguments.dry_run else _call("train", "train", composed)


def evaluate(arguments: argparse.Namespace) -> int:
    """Measures, or says what that would take."""
    from configs.grid import compose_measurement

    given = (arguments.experiment, arguments.overrides, arguments.attacks, arguments.eps, arguments.norm)
    composed, machine = compose_measurement(*given), _machine(arguments)
    if arguments.dry_run:
        return _call("plan", "plan", composed, machine)
    return _call("evaluate", "evaluate", composed, arguments.stage)


def quickstart(arguments: argparse.Namespace) -> int:
    """The whole job."""
    return _call("quickstart", "quickstart", _composed(arguments, "quickstart"), arguments.dry_run)


def sweep(arguments: argparse.Namespace) -> int:
    """A sweep, or one trial of it."""
    if arguments.trial:
        if (arguments.engine, arguments.jobs, arguments.dry_run) != ("local", 1, False):
            raise ConfigError("--trial runs one trial, here and at once; leave --engine, --jobs and --dry-run out")
        return _call("sweep", "sweep_trial", arguments.file, arguments.overrides)
    given = (arguments.file, arguments.engine, arguments.jobs, arguments.dry_run, arguments.overrides)
    return _call("sweep", "sweep", *given)


def pack(arguments: argparse.Namespace) -> int:
    """Packs a data set, or verifies it."""
    return _call("pack", "pack", _composed(arguments), arguments.verify)


def write_hierarchy(arguments: argparse.Namespace) -> int:
    """Has a language model write class trees."""
    return _call("write_hierarchy", "write_hierarchy", _composed(arguments), arguments.dry_run, arguments.tree)


def bank(arguments: argparse.Namespace) -> int:
    """Shows banks, and has them written."""
    return _call("bank", "bank", _composed(arguments), arguments.bank, arguments.dry_run, arguments.diff)


def show(arguments: argparse.Namespace) -> int:
    """Prints a configuration, or the list of experiments."""
    if arguments.listing:
        return _call("show", "show_list")
    if arguments.experiment is None:
        raise ConfigError("show needs an EXPERIMENT, or --list")
    return _call("show", "show", _composed(arguments), arguments.origin)


def show_hierarchy(arguments: argparse.Namespace) -> int:
    """Prints and draws class trees."""
    return _call("show_hierarchy", "show_hierarchy", _composed(arguments), arguments.draw, arguments.matching)


def export(arguments: argparse.Namespace) -> int:
    """Writes a model for others."""
    return _call("export", "export", arguments.source, arguments.to)


def predict(arguments: argparse.Namespace) -> int:
    """Classifies pictures."""
    return _call("predict", "predict", arguments.model, arguments.images, arguments.classes, arguments.as_json)


def report(arguments: argparse.Namespace) -> int:
    """Writes a page, and says where it is."""
    print(_call("report", "report", arguments.sources, arguments.to))
    return 0


def bench(arguments: argparse.Namespace) -> int:
    """Measures speed."""
    return _call("bench", "run", arguments.name, arguments.json, arguments.check)


def _call(verb: str, function: str, *arguments: Any) -> Any:
    return getattr(import_module(f"experiments.{verb}"), function)(*arguments)


def _composed(arguments: argparse.Namespace, experiment: str | None = None) -> Any:
    from configs.compose import compose

    return compose(experiment or arguments.experiment, arguments.overrides)


def _machine(arguments: argparse.Namespace) -> Machine:
    given = {name: getattr(arguments, name) for name in ("gpu", "mfu") if getattr(arguments, name) is not None}
    if given and not arguments.dry_run:
        raise ConfigError(
            f"--{next(iter(given))} is for the times that --dry-run prints; add --dry-run, or leave it out"
        )
    return Machine(**given)
