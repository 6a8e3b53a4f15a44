"""The `predict` verb: what a model says to pictures, and whether it would rather not say."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from glob import glob, has_magic
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.models.predictor import Prediction, Predictor

SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".npy"])
BATCH = 64


def predict(model: Path, images: Sequence[str], classes: Path | None = None, as_json: bool = False) -> int:
    """Prints an answer for each picture. Returns the exit code: 1 where one of them can't be read.

    Args:
        images: files, folders and globs.
        as_json: one JSON object a line.

    Raises:
        DataError: no picture at all.
        UserError: see `open_predictor`.
    """
    paths, unfound = find_images(images)
    if not paths:
        raise DataError(f"no picture is found in {', '.join(images)}; name files, folders or globs of pictures")
    from experiments.models.predictor import open_predictor

    predictor = open_predictor(model, classes)
    if predictor.legend.captions is None:
        print("This model was not vaccinated: it has no reject option, and accepts everything.", file=sys.stderr)
    failures = [DataError(f"no picture is found in {word}") for word in unfound]
    for error in failures:
        print(f"error: {error}", file=sys.stderr)
    rest = iter(paths)
    while chunk := list(islice(rest, BATCH)):
        for path, answer in _answers(predictor, chunk):
            if isinstance(answer, DataError):
                failures.append(answer)
                print(f"error: {path}: {answer}", file=sys.stderr)
            if as_json:
                print(to_json(path, answer), flush=True)
            elif not isinstance(answer, DataError):
                print(_words(path, answer), flush=True)
    return 1 if failures else 0


def find_images(words: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Pictures in the order of the words, each once, and the words that name none."""
    found: dict[Path, None] = {}
    unfound = []
    for word in words:
        paths = list(_expanded(word))
        found |= dict.fromkeys(paths)
        if not paths:
            unfound.append(word)
    return list(found), unfound


def _expanded(word: str) -> Iterator[Path]:
    path = Path(word)
    if path.is_dir():
        yield from sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
    elif path.is_file():
        yield path
    elif has_magic(word):
        yield from (Path(each) for each in sorted(glob(word, recursive=True)) if Path(each).is_file())


def _answers(predictor: "Predictor", paths: Sequence[Path]) -> list[tuple[Path, "Prediction | DataError"]]:
    """In the order of the paths; pictures that can't be read have their error."""
    import torch

    read = [(path, _pixels(path, predictor.legend.image_size)) for path in paths]
    pixels = [picture for _, picture in read if not isinstance(picture, DataError)]
    answers = iter(predictor(torch.stack(pixels)) if pixels else ())
    return [(path, found if isinstance(found, DataError) else next(answers)) for path, found in read]


def _pixels(path: Path, size: int) -> "Tensor | DataError":
    """(3, size, size) in [0, 1], as evaluation reads pictures."""
    import torch

    from datamodules.images import Transform, to_float

    try:
        picture = Transform(size)(path.read_bytes())
    except DataError as error:
        return error
    except OSError as error:
        return DataError(f"the file can't be read ({error.strerror})")
    return to_float(torch.tensor(picture).permute(2, 0, 1))


def to_json(path: Path, answer: "Prediction | DataError") -> str:
    """One line. Keys: `image`, then `error`, or those of a Prediction."""
    told = {"error": str(answer)} if isinstance(answer, DataError) else asdict(answer)
    return json.dumps({"image": str(path), **told}, ensure_ascii=False, allow_nan=False)


def _words(path: Path, answer: "Prediction") -> str:
    lines = [f"{path}: {answer.name}, confidence {100 * answer.confidence:.1f} %"]
    # A class that has nothing above it for a level or two stands on each of them.
    ways = {tree: " < ".join(name for name, _ in groupby(names)) for tree, names in answer.path.items()}
    lines += [f"  {tree}: {way}" for tree, way in ways.items()]
    if answer.rejection is not None:
        found = answer.rejection
        sign, verdict = (">=", "accepted") if found.accepted else ("<", "REJECTED as unknown")
        bound = f"{sign} threshold {found.threshold:.4f}" if found.threshold is not None else "(no threshold)"
        # Of an accepted picture it would tell nothing: a few antibodies are the nearest of most pictures.
        nearest = "" if found.accepted or found.antibody is None else f"; nearest antibody: {found.antibody}"
        lines.append(f"  {verdict}: score {found.score:.4f} {bound}{nearest}")
    return "\n".join(lines)
