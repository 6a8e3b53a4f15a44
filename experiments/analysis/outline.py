"""Class trees as text: level sizes, problems, and the classes with their children indented below them."""

from collections import Counter
from collections.abc import Iterator, Sequence

from lightning_modules.hierarchy import Tree

CHILDREN, LEAVES, EXAMPLES = 40, 12, 3  # how many are named before the others are counted


def outline(tree: Tree) -> str:
    """Sizes, problems and the tree itself, root side first; ends without a newline.

    A class with one child shares its line, as in `carnivore > feline: cat`, and so do leaves with their parent.
    """
    told = [f"  - {problem}" for problem in problems(tree)] or ["  no problems"]
    return "\n".join([f"{tree.name}: {len(tree.levels[0]):,} leaves", *_sizes(tree), *told, "", *_classes(tree)])


def problems(tree: Tree) -> list[str]:
    """What a person should know before training with the tree, one sentence each; empty for a tree without any."""
    levels = range(1, tree.depth + 1)
    found = [_namesakes(tree, level) for level in levels]
    found += [_single(tree, level) for level in levels]
    found += [_only_children(tree, level) for level in levels]
    return [problem for problem in [*found, _wandering(tree), _short(tree)] if problem]


def _sizes(tree: Tree) -> Iterator[str]:
    width = len(f"{max(map(len, tree.levels)):,}")
    for level in range(tree.depth, 0, -1):
        names, leaves = tree.levels[level], Counter(tree.ancestors(level).tolist())
        (largest, most), (smallest, fewest) = leaves.most_common()[0], leaves.most_common()[-1]
        ends = f"largest: {names[largest]} ({most:,} leaves), smallest: {names[smallest]} ({fewest:,})"
        yield f"  level {level}  {len(names):>{width},} class{'es' if len(names) > 1 else '  '}  {ends}"


def _classes(tree: Tree) -> list[str]:
    return [f"  {line}" for line in _below(tree, tree.depth, range(len(tree.levels[-1])))]


def _below(tree: Tree, level: int, classes: Sequence[int]) -> Iterator[str]:
    """A paragraph for each of the classes of a level."""
    if level == 0:
        yield _listed([tree.levels[0][leaf] for leaf in classes], LEAVES)
        return
    for place in classes[:CHILDREN]:
        yield from _class(tree, level, place)
    if len(classes) > CHILDREN:
        yield f"...and {len(classes) - CHILDREN:,} more"


def _class(tree: Tree, level: int, place: int) -> Iterator[str]:
    names, leaves = [tree.levels[level][place]], tree.ancestors(level).tolist().count(place)
    children = _children(tree, level, place)
    while level > 1 and len(children) == 1:
        level, place = level - 1, children[0]
        children = _children(tree, level, place)
        if tree.levels[level][place] != names[-1]:
            names.append(tree.levels[level][place])
    title = " > ".join(names)
    if level == 1:
        yield f"{title}: {_listed([tree.levels[0][leaf] for leaf in children], LEAVES)}"
        return
    yield f"{title} ({leaves:,})"
    yield from (f"  {line}" for line in _below(tree, level - 1, children))


def _children(tree: Tree, level: int, place: int) -> list[int]:
    return [child for child, parent in enumerate(tree.parents[level - 1]) if parent == place]


def _namesakes(tree: Tree, level: int) -> str:
    shared = [name for name, count in Counter(tree.levels[level]).items() if count > 1]
    return (
        f"level {level}: several classes are called {_listed(shared, EXAMPLES)}; texts can't tell them apart"
        if shared
        else ""
    )


def _single(tree: Tree, level: int) -> str:
    names = tree.levels[level]
    return (
        f"level {level} has one class, {names[0]}, so nothing to tell apart: it is left out" if len(names) == 1 else ""
    )


def _only_children(tree: Tree, level: int) -> str:
    names, count = tree.levels[level], Counter(tree.parents[level - 1])
    found = [names[place] for place in range(len(names)) if count[place] == 1]
    examples = _listed(found, EXAMPLES)
    return f"level {level}: {len(found):,} of {len(names):,} classes have one child ({examples})" if found else ""


def _wandering(tree: Tree) -> str:
    """Names at different levels on different paths: one word is then taught two depths."""
    places: dict[str, set[int]] = {}
    for level, names in enumerate(tree.levels):
        for place, name in enumerate(names):
            if level == tree.depth or tree.levels[level + 1][tree.parents[level][place]] != name:
                places.setdefault(name, set()).add(level)
    found = [
        f"{name} at levels {', '.join(map(str, sorted(levels)))}" for name, levels in places.items() if len(levels) > 1
    ]
    return f"{len(found):,} names are at several levels ({_listed(found, EXAMPLES, '; ')})" if found else ""


def _short(tree: Tree) -> str:
    """Leaves whose two highest classes are one: they had fewer ancestors than levels."""
    if tree.depth == 0:
        return ""
    above, below = tree.ancestors(tree.depth).tolist(), tree.ancestors(tree.depth - 1).tolist()
    found = [
        leaf for leaf, top, under in zip(tree.levels[0], above, below, strict=True)
        if tree.levels[-1][top] == tree.levels[-2][under]
    ]  # fmt: skip
    return f"{len(found):,} leaves repeat their top class ({_listed(found, EXAMPLES)})" if found else ""


def _listed(items: Sequence[str], shown: int, separator: str = ", ") -> str:
    more = [f"...and {len(items) - shown:,} more"] if len(items) > shown else []
    return separator.join([*items[:shown], *more])
