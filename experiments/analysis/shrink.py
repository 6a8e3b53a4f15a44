"""Small copies of runs and sweeps, for notebooks and tests to read.

    python -m experiments.analysis.shrink outputs/NAME/HASH-s0 outputs/sweeps/NAME --to FOLDER

The copy is laid out as `outputs/` is. Rows and curves are the runs' own; left out are models, checkpoints and pictures
beyond a few, versions of packages but where they change from one row to the next, and what tells of the machine: host,
process and where the outputs were.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from experiments.analysis.finding import name_of
from experiments.analysis.row import Row
from experiments.atomic import replacing, write_text
from experiments.sweep.ledger import Ledger
from experiments.sweep.plan import Plan

OUTPUTS = "outputs"  # where the copies say that their runs were
TEXTS = ("config.yaml", "config.inputs.json", "status.json", "metrics.csv")
OF_ONE_RUN = ("vaccination.json", "model/hyperbolic_head.json")  # also evidence
PICTURES = 24  # pairs that are kept
NOWHERE = {"host": "", "pid": 0}


def shrink(source: Path, to: Path, figures: Sequence[str] = ("*",), whole: bool = True) -> Path:
    """Copies a run's folder to `to`/EXPERIMENT/RUN, and returns it.

    Args:
        figures: patterns of the names of figures that are kept (`accuracy/*`), see `experiments.analysis.finding`.
        whole: whether scores (as float32), up to 24 pairs of pictures, depths and the constants of a vaccination are
            copied as well.

    Raises:
        UserError: there is no run with results.
    """
    if not (source / "results.jsonl").is_file() or not (source / "config.yaml").is_file():
        raise UserError(f"{source} holds no measured run; name a run's folder, such as outputs/NAME/HASH-s0")
    place = _place(source)
    copy = to / source.parent.name / source.name
    for name in (*TEXTS, *(OF_ONE_RUN if whole else ())):
        if (source / name).is_file():
            write_text(copy / name, _unplaced((source / name).read_text(), place))
    write_text(copy / "results.jsonl", _rows((source / "results.jsonl").read_text(), figures))
    for path in sorted(source.glob("evidence-*.npz")) if whole else []:
        _evidence(path, copy / path.name)
    return copy


def shrink_sweep(source: Path, to: Path, figures: Sequence[str] = ("*",)) -> Path:
    """Copies a sweep's folder to `to`/sweeps/NAME and the text files of its finished trials; returns the former.

    Raises UserError where there is no sweep.
    """
    plan, copy = Plan.read(source), to / "sweeps" / source.name
    ledger = Ledger(source)
    last = ledger.last()
    for trial in plan.trials:
        if ledger.finished(trial, last):
            shrink(trial.folder, to, figures, whole=False)
    for name in ("plan.json", "trials.jsonl"):
        write_text(copy / name, _unplaced((source / name).read_text(), str(source.resolve().parent.parent)))
    return copy


def _place(source: Path) -> str:
    """The folder of outputs, as the run was told it."""
    found = re.search(r"^output: (.*)$", (source / "config.yaml").read_text(), re.MULTILINE)
    return found[1] if found else OUTPUTS


def _unplaced(text: str, place: str) -> str:
    """Without the folder of outputs, the host and the process."""
    for key, value in NOWHERE.items():
        text = re.sub(rf'("{key}": )("[^"]*"|\d+)', rf"\g<1>{json.dumps(value)}", text)
    return text.replace(place, OUTPUTS) if Path(place).is_absolute() else text


def _rows(text: str, figures: Sequence[str]) -> str:
    kept, versions = [], None
    for fields in map(json.loads, text.splitlines()):
        name = name_of(Row.parse(fields))
        if any(fnmatchcase(name, pattern) for pattern in figures):
            own = fields.pop("versions", None)
            kept.append(json.dumps(fields if own == versions else {**fields, "versions": own}) + "\n")
            versions = own
    return "".join(kept)


def _evidence(source: Path, to: Path) -> None:
    with np.load(source, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != "settings"}
    arrays = {name: _smaller(name, array) for name, array in arrays.items()}
    with replacing(to) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _smaller(name: str, array: Any) -> Any:
    if name.startswith("pictures/"):
        return array[:PICTURES]
    return array.astype(np.float32) if array.dtype == np.float64 else array


def main(arguments: Sequence[str] | None = None) -> int:
    """Copies what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.analysis.shrink", description=__doc__)
    parser.add_argument("sources", nargs="+", type=Path, metavar="RUN", help="folder of a run or of a sweep")
    parser.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="where the copies go")
    parser.add_argument("--figures", nargs="+", default=["*"], metavar="PATTERN", help="which rows; all if left out")
    given = parser.parse_args(arguments)
    try:
        for source in given.sources:
            copy = shrink_sweep if (source / "plan.json").is_file() else shrink
            print(copy(source, given.to, given.figures))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
