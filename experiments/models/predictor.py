"""What a model says to pictures, in words: from a run's folder, a model's, or an exported program."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import CheckpointError, ConfigError
from experiments.models.legend import Legend
from experiments.models.trained import Trained

PROGRAM = ".pt2"


@dataclass(frozen=True)
class Rejection:
    """A reject option's answer.

    threshold  None where every score is accepted.
    antibody   what the nearest says; None where there is none.
    """

    score: float
    threshold: float | None
    accepted: bool
    antibody: str | None


@dataclass(frozen=True)
class Prediction:
    """One picture's.

    path       tree -> names from the class up.
    rejection  None where the model has no such option.
    """

    index: int
    name: str
    confidence: float
    path: Mapping[str, tuple[str, ...]]
    rejection: Rejection | None


@dataclass(frozen=True)
class Predictor:
    """A deployed model, and what its answers mean.

    answer  pixels float32 (B, 3, size, size) in [0, 1] -> see `Deployed`.
    """

    answer: Callable[[Tensor], Mapping[str, Tensor]]
    legend: Legend

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> list[Prediction]:
        """One prediction a picture of (B, 3, size, size)."""
        answers = {name: values.tolist() for name, values in self.answer(pixels).items()}
        return [self._prediction({name: values[row] for name, values in answers.items()}) for row in range(len(pixels))]

    def _prediction(self, answer: Mapping[str, Any]) -> Prediction:
        legend, name = self.legend, self.legend.class_names[answer["class"]]
        path: dict[str, tuple[str, ...]] = {}
        for level, place in zip(legend.levels, answer["levels"], strict=True):
            if level.tree is not None:
                path[level.tree] = (*path.get(level.tree, (name,)), level.names[place])
        rejection = None if legend.captions is None else _rejection(answer, legend.captions)
        return Prediction(answer["class"], name, answer["confidence"], path, rejection)


def _rejection(answer: Mapping[str, Any], captions: tuple[str, ...]) -> Rejection:
    threshold, nearest = answer["threshold"], answer["antibody"]
    return Rejection(
        answer["score"],
        threshold if math.isfinite(threshold) else None,
        answer["accept"],
        captions[nearest] if nearest >= 0 else None,
    )


def open_predictor(path: Path, classes: Path | None = None) -> Predictor:
    """The predictor of a run folder, a model folder or a program.

    Args:
        classes: a file of class names, one a line, in place of the model's own.

    Raises:
        CheckpointError: there is no model, or it can't be read.
        ConfigError: nothing names the classes; or names are given for a program, whose classes are fixed.
        DataError: the classes are others than those that the model was vaccinated for.
    """
    if path.suffix != PROGRAM:
        deployed, labels = Trained.find(path).deployed(classes)
        return Predictor(deployed, Legend.of(deployed, labels))
    if classes is not None:
        raise ConfigError(f"{path} is a program with classes of its own; leave --classes out, or name the run's folder")
    if not path.is_file():
        raise CheckpointError(
            f"{path} is not there; write it with `python -m experiments export RUN_FOLDER --to {path}`"
        )
    legend = Legend.load(path.with_suffix(".json"))
    try:
        return Predictor(torch.export.load(path).module(), legend)
    except Exception as error:  # archives fail in zipfile, json, torch and its schema
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} can't be read as an exported program ({reason}); export it again") from error
