"""Class trees from WordNet: which synset each class is, and the hypernyms above it, cut to levels."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from configs.errors import DataError
from configs.schema.hierarchy import WordNetTree
from lightning_modules.hierarchy.cut import cut, without_only_children
from lightning_modules.hierarchy.matching import UNKNOWN, match_classes
from lightning_modules.hierarchy.outline import some
from lightning_modules.hierarchy.tree import Tree
from lightning_modules.hierarchy.wordnet.nouns import hypernym_path, nouns

IMAGENET = "imagenet-1k"


def wordnet_tree(name: str, source: WordNetTree, class_names: Sequence[str]) -> Tree:
    """The tree over `class_names`. Superclasses are called by their synset's first lemma.

    Raises:
        DataError: a class that WordNet does not have, or a file of synsets that does not fit the classes.
    """
    wnids = synsets(name, source.synsets, class_names)
    leaves = [f"{label} {wnid}" for label, wnid in enumerate(wnids)]  # a class, also where two are one synset
    paths = [(leaf, *hypernym_path(wnid)[1:]) for leaf, wnid in zip(leaves, wnids, strict=True)]
    if source.branching:
        paths = without_only_children(paths)
    ways = [hypernym_path(wnid) for wnid in wnids]
    names = {node: nouns()[node].name for way in ways for node in way}
    names |= dict(zip(leaves, class_names, strict=True))
    kinds = {node: above for way in ways for node, above in pairwise(way)}
    kinds |= {leaf: way[1] for leaf, way in zip(leaves, ways, strict=True) if len(way) > 1}
    return Tree.from_paths(name, cut(paths, source.levels, source.cut), names, kinds)


def synsets(name: str, given: str | None, class_names: Sequence[str]) -> tuple[str, ...]:
    """The wnid of each class: of the file `given`, of ImageNet's 1,000 classes (IMAGENET), or by the names (None).

    Raises:
        DataError: as `wordnet_tree` does.
    """
    if given is None:
        return _looked_up(name, class_names)
    path = imagenet_synsets() if given == IMAGENET else Path(given)
    rows = [line.split("\t") for line in _lines(path) if not line.startswith("#")]
    if len(rows) != len(class_names):
        raise DataError(
            f"{path} has {len(rows)} synsets for {len(class_names)} classes; give one a class, in their order"
        )
    for row, class_name in zip(rows, class_names, strict=True):
        _check_row(row, class_name, path)
    return tuple(row[0] for row in rows)


def imagenet_synsets() -> Path:
    """timm's file of ImageNet-1k's wnids by label; labels number the sorted wnids."""
    spec = find_spec("timm")  # does not import it
    path = Path(str(spec.origin)).parent / "data" / "_info" / "imagenet_synsets.txt" if spec else Path("timm")
    if not path.is_file():
        raise DataError(f"ImageNet's synsets are not installed ({path} is missing); install timm")
    return path


def _looked_up(name: str, class_names: Sequence[str]) -> tuple[str, ...]:
    matching = match_classes(class_names)
    missing = [match.class_name for match in matching.of("missing")]
    if missing:
        raise DataError(
            f"WordNet has no noun for the classes {some(missing)}; write a file with a synset for each class "
            f"and give it as hierarchy.trees.{name}.synsets"
        )
    return tuple(match.synsets[0] for match in matching.matches)


def _check_row(row: Sequence[str], class_name: str, path: Path) -> None:
    if row[0] not in nouns():
        what = "no synset yet" if row[0] == UNKNOWN else f"{row[0]!r}, which is no noun of WordNet 3.0,"
        raise DataError(f"{path} has {what} for the class {class_name!r}; write its wnid, such as n02084071")
    if len(row) > 1 and row[1] != class_name:
        raise DataError(
            f"{path} has the class {row[1]!r} where the data set has {class_name!r}; give one a line, in the "
            "data set's order"
        )


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as text ({error}); correct the path or the file") from error
