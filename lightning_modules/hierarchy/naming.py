"""Names that no two classes of a tree share, since a prompt has nothing else to tell them apart by."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from configs.errors import DataError


def told_apart(
    tree: str, paths: Sequence[Sequence[str]], names: Mapping[str, str], kinds: Mapping[str, str]
) -> dict[str, str]:
    """What each class is called: by its name, or as "crane, a kind of wading bird" where another shares it. A leaf that
    shares its name with superclasses alone keeps it. Case does not count, as it does not to CLIP's tokenizer.

    Args:
        paths: per leaf, its id and those of its ancestors, nearest first.
        names: id -> name.
        kinds: id -> id of what it is a kind of.

    Raises:
        DataError: two classes of one name that neither their ancestors nor their leaves tell apart.
    """
    first_leaf = {node: path[0] for path in reversed(paths) for node in path}
    sharing: dict[str, list[str]] = defaultdict(list)
    for node in dict.fromkeys(node for path in paths for node in path):
        sharing[names[node].casefold()].append(node)
    called: dict[str, str] = {}
    for nodes in sharing.values():
        alone = [node for node in nodes if first_leaf[node] == node] if len(nodes) > 1 else nodes
        longer = [node for node in nodes if len(alone) != 1 or node != alone[0]]
        called |= {alone[0]: names[alone[0]]} if len(alone) == 1 else {}
        called |= _described(tree, longer, names, kinds, first_leaf)
    return called


def _described(
    tree: str, nodes: Sequence[str], names: Mapping[str, str], kinds: Mapping[str, str], first_leaf: Mapping[str, str]
) -> dict[str, str]:
    """Names with the nearest ancestors that are called differently, or else with the first leaf below."""
    ways = [list(_way_up(node, names, kinds)) for node in nodes]
    tellers = [[way[step : step + 1] for way in ways] for step in range(max(map(len, ways), default=0))]
    for above in tellers:
        if _differ([(name or [""])[0] for name in above]):
            suffixes = [f", a kind of {name[0]}" if name else "" for name in above]
            return {node: names[node] + suffix for node, suffix in zip(nodes, suffixes, strict=True)}
    leaves = [names[first_leaf[node]] for node in nodes]
    if nodes and (not _differ(leaves) or any(first_leaf[node] == node for node in nodes)):
        raise DataError(
            f"two classes of tree {tree!r} are called {names[nodes[0]]!r}, and nothing tells them apart; rename one"
        )
    return {node: f"{names[node]}, such as {leaf}" for node, leaf in zip(nodes, leaves, strict=True)}


def _differ(names: Sequence[str]) -> bool:
    return len({name.casefold() for name in names}) == len(names)


def _way_up(node: str, names: Mapping[str, str], kinds: Mapping[str, str]) -> Iterator[str]:
    passed = {node}
    while (node := kinds.get(node, node)) not in passed:
        passed.add(node)
        yield names[node]
