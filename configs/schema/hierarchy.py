"""Class trees over the leaf classes, by name: where each comes from. Several of them are a forest."""

from dataclasses import dataclass, field
from typing import Literal

from configs.schema.checks import at_least
from configs.schema.language_model import LanguageModelConfig

Cut = Literal["nearest", "equal_depth", "balanced"]


@dataclass(frozen=True)
class DataTree:
    """A tree of the data set's own manifest, by its name there; null: the name that it has here."""

    kind: Literal["data"] = "data"
    name: str | None = None


@dataclass(frozen=True)
class WordNetTree:
    """WordNet 3.0's hypernyms, cut to `levels` above the leaves.

    cut        nearest: the nearest hypernyms. equal_depth: at equal fractions of the way to the root. balanced: a
               level's classes are alike in size. Where a leaf has too few ancestors, the topmost is repeated.
    branching  whether hypernyms with a single child, among those of all classes, are left out before the cut.
    synsets    a file whose lines begin with a synset's id, such as n02084071, in the order of the classes;
               `imagenet-1k`: ImageNet's own; null: looked up by the class names, every one of which must be found.
    """

    kind: Literal["wordnet"] = "wordnet"
    levels: int = 5
    cut: Cut = "nearest"
    branching: bool = True
    synsets: str | None = None

    def __post_init__(self) -> None:
        at_least(1, levels=self.levels)


@dataclass(frozen=True)
class FileTree:
    """YAML or JSON: superclasses with their classes below, or {"levels": .., "parents": ..} as manifests have it."""

    kind: Literal["file"] = "file"
    path: str = "???"


@dataclass(frozen=True)
class FolderTree:
    """Nested folders, the innermost of which are called as the classes are."""

    kind: Literal["folder"] = "folder"
    root: str = "???"


@dataclass(frozen=True)
class UnicodeTree:
    """Unicode's subgroups and groups of emoji, by their names and keywords."""

    kind: Literal["unicode"] = "unicode"


@dataclass(frozen=True)
class LLMTree:
    """Superclasses that a language model named, in a file to be reviewed: `write-hierarchy` writes it, runs read it.

    endpoint  who is asked; reading the file asks nobody.
    prompt    version of the question that the model is asked.
    batch     classes per request; within a request, names agree best.
    """

    kind: Literal["llm"] = "llm"
    file: str = "???"
    levels: int = 5
    prompt: Literal["v1"] = "v1"
    batch: int = 100
    endpoint: LanguageModelConfig = field(default_factory=LanguageModelConfig)

    def __post_init__(self) -> None:
        at_least(1, levels=self.levels, batch=self.batch)


TreeSource = DataTree | WordNetTree | FileTree | FolderTree | UnicodeTree | LLMTree
TREES: dict[str, type] = {
    "data": DataTree,
    "wordnet": WordNetTree,
    "file": FileTree,
    "folder": FolderTree,
    "unicode": UnicodeTree,
    "llm": LLMTree,
}


@dataclass(frozen=True)
class HierarchyConfig:
    """The forest. No tree at all stands for those that the data set's manifest brings.

    one_root  whether each tree must end in a single class: a misspelt superclass is easily a second root.
    """

    trees: dict[str, TreeSource] = field(default_factory=dict)
    one_root: bool = False
