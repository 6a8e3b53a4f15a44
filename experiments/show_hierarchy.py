"""`show hierarchy`: the class trees of an experiment, in words and on the Poincare disc."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError
from experiments.atomic import replacing, write_text
from experiments.classes import with_classes

if TYPE_CHECKING:
    from configs.compose import Composed
    from datamodules.classification import ClassificationDataModule
    from lightning_modules.hierarchy import Forest

FORMATS = (".svg", ".png")


def show_hierarchy(composed: "Composed", draw: Path | None = None, matching: Path | None = None) -> int:
    """Prints the trees with their level sizes and problems. Packs the data set where that was not done yet.

    Args:
        draw: .svg or .png, for a drawing of all trees.
        matching: .tsv, for the WordNet synset that each class name stands for, to be reviewed. Written first, so that
            it is there where a tree can't be made because a name was not found.

    Raises:
        ConfigError: the drawing is of another format, or the data has no classes.
        DataError: there is no data set, or a tree can't be made.
    """
    if draw is not None and draw.suffix not in FORMATS:
        raise ConfigError(f"--draw {draw} must end in .svg or .png")
    data = with_classes(composed)
    if matching is not None:
        _write_matching(matching, data.class_names)
    from experiments.analysis.outline import outline
    from lightning_modules.hierarchy import build

    forest = build(composed.config.hierarchy, data.class_names, data.manifest.trees)
    if draw is not None:
        _draw(draw, forest)
    print("\n\n".join(outline(tree) for tree in forest.trees) or _no_tree(data))
    return 0


def _no_tree(data: "ClassificationDataModule") -> str:
    return f"no class tree: {data.folder} brings none, and hierarchy.trees names none"


def _write_matching(path: Path, class_names: Sequence[str]) -> None:
    from lightning_modules.hierarchy.matching import match_classes

    found = match_classes(class_names)
    write_text(path, found.to_tsv())
    counts = ", ".join(f"{len(found.of(status))} {status}" for status in ("matched", "ambiguous", "missing"))
    print(f"{path}: {len(class_names):,} classes, {counts}\n")


def _draw(path: Path, forest: "Forest") -> None:
    from experiments.analysis import figure
    from experiments.analysis.disc import discs

    if not forest.trees:
        raise ConfigError("there is no class tree to draw; name one in hierarchy.trees")
    drawing = discs(forest.trees)
    with replacing(path, durable=False) as file:
        file.write(figure.svg(drawing) if path.suffix == ".svg" else figure.png(drawing))
    print(f"{path}\n")
