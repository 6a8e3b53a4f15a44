"""Benches: ratios measured in one run, against their targets (`targets.py`). `python -m experiments bench NAME`."""

import json as json_module
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from configs.errors import ConfigError, did_you_mean
from experiments.atomic import write_text
from experiments.bench.table import Row

BENCHES = {
    "train-step": "train_step",
    "data": "data",
    "startup": "startup",
    "attacks": "attacks",
    "antibodies": "antibodies",
}


def run(name: str, json: Path | None = None, check: bool = False) -> int:
    """Measures, prints a line a row, writes JSON where asked. Returns 1 where `check` is set and a target is missed.

    Raises:
        ConfigError: no such bench.
    """
    if name not in BENCHES:
        raise ConfigError(f"there is no bench '{name}'; {did_you_mean(name, BENCHES)}")
    measure: Callable[[], list[Row]] = import_module(f"experiments.bench.{BENCHES[name]}").measure
    rows = measure()
    for row in rows:
        print(row)
    if json is not None:
        write_text(json, json_module.dumps([asdict(row) | {"met": row.met} for row in rows], indent=2) + "\n")
    return int(check and not all(row.met for row in rows))
