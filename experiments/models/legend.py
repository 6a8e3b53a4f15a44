"""What the numbers mean that a deployed model answers with: the JSON file beside an exported program."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import CheckpointError
from experiments.atomic import write_text
from experiments.models.labels import Labels

if TYPE_CHECKING:
    from lightning_modules.deployed import Deployed

FORMAT = 1
USAGE = {
    "load": "torch.export.load(FILE).module()(pixels)",
    "pixels": "float32 (B, 3, image_size, image_size) in [0, 1], RGB; shorter side resized (bicubic), centre-cropped",
    "class": "int64 (B,), index in class_names",
    "levels": "int64 (B, M), index in the names of each of levels",
    "confidence": "float32 (B,), posterior of the class; not calibrated where temperature is 1",
}
REJECTION = {
    "score": "float32 (B,), higher = more in-distribution",
    "threshold": "float32 (B,), thresholds[class]",
    "accept": "bool (B,), score >= threshold",
    "antibody": "int64 (B,), the nearest, index in captions; -1 for none",
}


@dataclass(frozen=True)
class LegendLevel:
    """A level of a class tree; the leaves belong to none."""

    tree: str | None
    number: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Legend:
    """See `lightning_modules.deployed.Deployed` for what is answered.

    captions    what each antibody says; None where the model has no reject option.
    thresholds  by class; None in place of one that turns nothing away, or where there is no reject option.
    temperature of the posterior, fitted to validation pictures; 1 where nothing was fitted.
    """

    image_size: int
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    levels: tuple[LegendLevel, ...]
    captions: tuple[str, ...] | None
    thresholds: tuple[float | None, ...] | None
    temperature: float = 1.0

    @classmethod
    def of(cls, deployed: "Deployed", labels: Labels) -> "Legend":
        """Of a model whose classes are called so."""
        immunity = deployed.immunity
        levels = tuple(LegendLevel(level.tree, level.number, level.names) for level in labels.forest.levels)
        return cls(
            deployed.image_size,
            labels.class_names,
            labels.templates,
            levels,
            None if immunity is None else immunity.captions,
            None if immunity is None else _finite(immunity.threshold.tolist()),
            1.0 if immunity is None else immunity.temperature,
        )

    def save(self, path: Path) -> None:
        """Writes it as JSON, with what goes in and comes out."""
        told = USAGE if self.captions is None else USAGE | REJECTION
        content = {"format": FORMAT, "usage": told, **asdict(self)}
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Legend":
        """What `save` wrote.

        Raises:
            CheckpointError: missing, or something else.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']} instead of {FORMAT}")
            levels = tuple(
                LegendLevel(level["tree"], level["number"], tuple(level["names"])) for level in content["levels"]
            )
            return cls(
                int(content["image_size"]),
                tuple(content["class_names"]),
                tuple(content["templates"]),
                levels,
                _tuple(content["captions"]),
                _tuple(content["thresholds"]),
                float(content.get("temperature", 1.0)),  # files from before it was fitted have none
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}, which says what an exported program answers, can't be read ({error!r}); keep it beside the "
                "program, or export again"
            ) from error


def _finite(values: Sequence[float]) -> tuple[float | None, ...]:
    return tuple(value if math.isfinite(value) else None for value in values)


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
