"""Reads what a run has left in its folder."""

import csv
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import UserError
from experiments.analysis.row import Row
from lightning_modules.hierarchy import Tree

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Texts = NDArray[np.str_]
PICTURES = ("clean", "adversarial", "label", "clean_prediction", "adversarial_prediction")
SOURCE = b', "config_hash":'  # where a line begins to tell where its figure is from
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """P pairs: `clean` and `adversarial` uint8 (P, 3, H, W); class indices int (P,) into `class_names`."""

    clean: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    label: NDArray[np.int64]
    clean_prediction: NDArray[np.int64]
    adversarial_prediction: NDArray[np.int64]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Nearest:
    """Of A antibodies the one that each picture is nearest to.

    captions, owners  (A,): what an antibody says, and the class that it is taken for; "" for none.
    clean             split -> places among the antibodies (N,).
    attacked          split -> places (n, 2): of the clean picture, and of what an attack made of it.
    shown             split -> what is on the pictures, (N,); splits of which that is not known are left out.
    attacked_shown    the same of those under attack, (n,).
    """

    captions: Texts
    owners: Texts
    clean: Mapping[str, Places]
    attacked: Mapping[str, Places]
    shown: Mapping[str, Texts]
    attacked_shown: Mapping[str, Texts]


@dataclass(frozen=True)
class Evidence:
    """What a stage kept beside its figures: score name -> split -> scores (N,), pictures, and of a hyperbolic model how
    deep it has the classes of its trees: tree -> level -> share of the ball's radius (classes,).

    attacked  score name -> split -> scores (n, 2): of the clean picture, and the worst that an attack found.
    nearest   what a vaccinated model takes pictures for; None of others.
    """

    scores: dict[str, dict[str, Floats]]
    pictures: Pictures | None
    trees: tuple[Tree, ...] = ()
    depths: Mapping[str, Sequence[Floats]] = field(default_factory=dict)
    attacked: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    nearest: Nearest | None = None


def load_rows(folder: Path) -> list[Row]:
    """The rows of results.jsonl, of each repeated measurement the newest.

    A last line that was cut off (the run was killed while writing) is skipped with a warning.
    Raises UserError: no results, or a line that is not a result row.
    """
    path = folder / "results.jsonl"
    if not path.is_file():
        raise UserError(f"{folder} holds no results.jsonl; name the folder of a run that has measured something")
    lines = path.read_bytes().splitlines()
    newest: dict[tuple[Any, ...], Row] = {}
    for number, line in enumerate(lines, start=1):
        row = _parse(path, number, line, last=number == len(lines))
        if row is not None:
            newest[(*row.question, row.stage)] = row
    if not newest:
        raise UserError(f"{path} holds no result row; start the run again to measure")
    return list(newest.values())


def _parse(path: Path, number: int, line: bytes, last: bool) -> Row | None:
    if not line.strip():
        return None
    try:
        fields = _fields(line)
    except ValueError as error:
        if not last:
            raise UserError(f"{path}, line {number} is not JSON; remove the line, or measure again") from error
        log.warning("%s: the last line is cut off and was skipped; start the run again to measure what it held", path)
        return None
    try:
        return Row.parse(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}, line {number} is no result row ({why}); remove the line, or measure again") from error


def _fields(line: bytes) -> Any:
    """A line's JSON. Its second half, where the figure is from, is the same for all figures of a measurement, and is
    parsed once: of a thousand runs that halves the time and the memory."""
    head, comma, tail = line.rpartition(SOURCE)
    try:
        return json.loads(head + b"}") | _source(SOURCE[1:] + tail) if comma else json.loads(line)
    except (TypeError, ValueError):  # another layout
        return json.loads(line)


@lru_cache(maxsize=128)
def _source(fields: bytes) -> Mapping[str, Any]:
    return dict(json.loads(b"{" + fields))


def load_curves(folder: Path) -> dict[str, tuple[Floats, Floats]]:
    """Column of metrics.csv -> (steps, values), empty cells left out; empty where nothing was trained.

    A last line without its end is skipped. Raises UserError for a file that is not a table of numbers by `step`.
    """
    path = folder / "metrics.csv"
    if not path.is_file():
        return {}
    try:
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        table = list(csv.DictReader(lines, strict=True))
        names = [name for name in (table[0] if table else {}) if name != "step"]
        return {name: _curve(table, name) for name in names}
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        problem = f"{path} is not a table of numbers by step ({error!r})"
        raise UserError(f"{problem}; remove it to go on without curves") from error


def _curve(table: list[dict[str, str]], name: str) -> tuple[Floats, Floats]:
    filled = [row for row in table if row[name]]
    return np.array([float(row["step"]) for row in filled]), np.array([float(row[name]) for row in filled])


def load_evidence(folder: Path) -> dict[str, Evidence]:
    """Stage -> what evidence-{stage}.npz holds; stages without the file are left out.

    Raises UserError for a file that can't be read, or whose pictures do not fit together.
    """
    paths = sorted(folder.glob("evidence-*.npz"))
    return {path.stem.removeprefix("evidence-"): _read_evidence(path) for path in paths}


def _read_evidence(path: Path) -> Evidence:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); remove it to go on without its plots") from error
    trees = tuple(Tree.from_dict(*tree) for tree in json.loads(str(arrays.get("trees", "{}"))).items())
    depths = {tree.name: found for tree in trees if (found := _depths(tree, arrays))}
    scores, attacked = _scores(arrays, "scores/"), _scores(arrays, "attacked_scores/")
    return Evidence(scores, _pictures(path, arrays), trees, depths, attacked, _nearest(arrays))


def _scores(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, dict[str, Floats]]:
    """Score -> split -> what is called PREFIX + SCORE/SPLIT."""
    found: dict[str, dict[str, Floats]] = {}
    for name, values in _within(arrays, prefix).items():
        score, split = name.split("/", 1)
        found.setdefault(score, {})[split] = values.astype(np.float64)
    return found


def _nearest(arrays: Mapping[str, NDArray[Any]]) -> Nearest | None:
    if "captions" not in arrays:
        return None
    parts = ("antibodies/", "attacked_antibodies/", "shown/", "attacked_shown/")
    return Nearest(arrays["captions"], arrays["owners"], *(_within(arrays, prefix) for prefix in parts))


def _within(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _depths(tree: Tree, arrays: Mapping[str, NDArray[Any]]) -> list[Floats]:
    """Per level; a level of one class, which no model is asked about, is as deep as the mean of the one below."""
    if "depth//0" not in arrays:
        return []
    found: list[Floats] = [arrays["depth//0"].astype(np.float64)]
    for level, names in enumerate(tree.levels[1:], start=1):
        known = arrays.get(f"depth/{tree.name}/{level}")
        found.append(np.full(len(names), found[-1].mean()) if known is None else known.astype(np.float64))
    return found


def _pictures(path: Path, arrays: dict[str, NDArray[Any]]) -> Pictures | None:
    found = {name: arrays[f"pictures/{name}"] for name in PICTURES if f"pictures/{name}" in arrays}
    if len(found) < len(PICTURES) or "class_names" not in arrays or not len(found["label"]):
        return None
    names = tuple(str(name) for name in arrays["class_names"])
    indices = np.concatenate([found[name] for name in PICTURES[2:]])
    lengths = {len(values) for values in found.values()}
    same_shape = found["clean"].shape == found["adversarial"].shape and found["clean"].ndim == 4
    if len(lengths) > 1 or not same_shape or indices.min() < 0 or indices.max() >= len(names):
        raise UserError(f"{path} holds pictures, labels and predictions that do not fit together; measure again")
    return Pictures(**found, class_names=names)


def load_status(folder: Path) -> dict[str, Any]:
    """The fields of status.json; empty where there is none. Raises UserError where it is not a JSON object."""
    path = folder / "status.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_bytes()))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is not a JSON object; remove it to go on without the run's state") from error


def load_config(folder: Path) -> str:
    """The resolved configuration's YAML as it was saved; empty where there is none."""
    path = folder / "config.yaml"
    return path.read_text(errors="replace") if path.is_file() else ""


def load_head(folder: Path) -> dict[str, float]:
    """`curvature` and `log_logit_scale` of the model that a run left, where it is hyperbolic; empty otherwise.

    Raises UserError where the file is not what an exported head is.
    """
    path = folder / "model" / "hyperbolic_head.json"
    if not path.is_file():
        return {}
    try:
        head = json.loads(path.read_bytes())
        return {name: float(head[name]) for name in ("curvature", "log_logit_scale")}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a hyperbolic head ({error!r}); remove it to go on without margins") from error
