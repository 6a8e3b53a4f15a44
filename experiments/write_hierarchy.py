"""The verb `write-hierarchy`: a language model names the superclasses of a data set's classes, for people to review."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError, did_you_mean
from configs.schema.hierarchy import LLMTree, TreeSource
from experiments.atomic import write_text
from experiments.bar import open_bar
from experiments.classes import with_classes

if TYPE_CHECKING:
    from configs.compose import Composed
    from lightning_modules.hierarchy.llm import Superclasses
    from lightning_modules.hierarchy.reconcile import Change
    from lightning_modules.hierarchy.tree import Tree
    from lightning_modules.language_model import Client, Question


def write_hierarchy(composed: "Composed", dry_run: bool, tree: str | None = None) -> int:
    """Writes the file of each tree of kind `llm`, or of the one called `tree`. A file that is there is left alone: a
    person may have edited it. With `dry_run`, prints what asking would cost, and stops.

    Raises:
        ConfigError: the experiment has no such tree.
        DataError: there is no data set, or the tree that came out can't be read; its file is there to be corrected.
        LanguageModelError: the endpoint can't be used, or the budget is spent; answers until then are kept.
    """
    from lightning_modules.hierarchy import llm
    from lightning_modules.language_model import Client

    chosen = _chosen(composed.config.hierarchy.trees, tree)
    class_names = with_classes(composed).class_names
    for name, source in chosen.items():
        if Path(source.file).exists():
            print(f"{name}: {source.file} is there, and left as it is; move it away to have it written again")
            continue
        client, asked = Client(source.endpoint), llm.questions(class_names, source)
        print(f"{name}: {client.estimate(asked)}")
        if not dry_run:
            _write(name, source, class_names, _ask(name, client, asked))
    return 0


def _chosen(trees: Mapping[str, TreeSource], wanted: str | None) -> dict[str, LLMTree]:
    written = {name: source for name, source in trees.items() if isinstance(source, LLMTree)}
    if not written:
        raise ConfigError("the experiment has no tree of kind llm: set hierarchy.trees.NAME.kind=llm and its file")
    if wanted is None:
        return written
    if wanted not in written:
        raise ConfigError(f"hierarchy.trees has no tree '{wanted}' of kind llm; {did_you_mean(wanted, written)}")
    return {wanted: written[wanted]}


def _ask(name: str, client: "Client", asked: "Sequence[Question[Superclasses]]") -> "Superclasses":
    from lightning_modules.hierarchy import llm

    with open_bar(name, len(asked), " requests") as bar:
        return llm.ask(client, asked, bar.update)


def _write(name: str, source: LLMTree, class_names: Sequence[str], named: "Superclasses") -> None:
    from lightning_modules.hierarchy.path_file import read_tree, to_yaml
    from lightning_modules.hierarchy.reconcile import reconcile

    superclasses, changes = reconcile(named)
    write_text(Path(source.file), to_yaml(superclasses, _header(source, changes)))
    for change in changes:
        print(f"{name}: {change}")
    print(f"{name}: {source.file}: {_summary(read_tree(Path(source.file), class_names, name))}")


def _header(source: LLMTree, changes: "Sequence[Change]") -> list[str]:
    from lightning_modules.hierarchy.llm import prompt

    asked = prompt(source)
    return [
        "Each class, then its superclasses, nearest first. Edit it: it is read as it stands.",
        f"Written by {source.endpoint.model} on {date.today()}, with the prompt {asked.name} ({asked.hash}).",
        *(f"Changed to make it a tree: {change}" for change in changes),
    ]


def _summary(tree: "Tree") -> str:
    """How many classes there are per level, leaves first, and which top class is the largest."""
    top, leaves = Counter(tree.ancestors(tree.depth).tolist()).most_common(1)[0]
    sizes = " -> ".join(str(len(names)) for names in tree.levels)
    return f"{sizes} classes; {leaves} of {len(tree.levels[0])} below {tree.levels[-1][top]!r}"
