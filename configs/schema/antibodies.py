"""Banks of semantic antibodies, by name: where texts of what is *not* there come from, and which are kept."""

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import FieldError
from configs.schema.checks import above, at_least
from configs.schema.language_model import LanguageModelConfig


@dataclass(frozen=True)
class Band:
    """The safety-utility band of cosines between an antibody and its own class (Immuno-VLM, Fang et al. 2026, phase 2),
    for each class and family by itself, and the limit towards all other classes (ours: the paper tests against the own
    class alone).

    scale    quantile: shares of the antibodies, ranked by cosine; counts are rounded down. absolute: cosines.
    safe     below it an antibody has nothing to do with its class.
    risk     above it an antibody is another word for its class.
    foreign  above it an antibody is another word for another class; as a quantile, of all antibodies of the family.
    """

    scale: Literal["quantile", "absolute"] = "quantile"
    safe: float = 0.1
    risk: float = 0.9
    foreign: float = 0.95

    def __post_init__(self) -> None:
        lowest = 0 if self.scale == "quantile" else -1
        for name, value in (("safe", self.safe), ("risk", self.risk), ("foreign", self.foreign)):
            if not lowest <= value <= 1:
                raise FieldError(name, f"must be in [{lowest}, 1] with scale={self.scale}, got {value}")
        if self.safe >= self.risk:
            raise FieldError("risk", f"must be above safe={self.safe}, got {self.risk}")


@dataclass(frozen=True)
class BandSelection:
    """Negative selection. Its rules apply in this order, each to what the ones before left.

    names       whether texts are dropped that name an in-distribution class or a synonym, or are a hypernym of one.
    duplicates  cosine from which an antibody counts as an earlier one of its class again; null: never.
    band        of every family that `bands` does not name.
    """

    names: bool = True
    duplicates: float | None = 0.99
    band: Band = field(default_factory=Band)
    bands: dict[str, Band] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.duplicates is not None and not 0 < self.duplicates <= 1:
            raise FieldError("duplicates", f"must be in (0, 1] or null, got {self.duplicates}")


@dataclass(frozen=True)
class FurthestSelection:
    """NegLabel's rule (Jiang et al. 2024, section 3.1): of nouns and of adjectives the share that is least similar to
    the class names, by a quantile of its cosines with all of them."""

    share: float = 0.15
    quantile: float = 0.95

    def __post_init__(self) -> None:
        for name, value in (("share", self.share), ("quantile", self.quantile)):
            if not 0 < value <= 1:
                raise FieldError(name, f"must be in (0, 1], got {value}")


@dataclass(frozen=True)
class BankSource:
    """What every kind of bank has.

    synsets    the class names' meanings in WordNet, as hierarchy trees of kind wordnet have them: a file whose lines
               begin with a synset's id, `imagenet-1k`, or null: looked up by the names, as far as they are found.
    templates  prompts with {c} for an antibody; none: the data set's own.
    """

    synsets: str | None = None
    templates: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for template in self.templates:
            if "{c}" not in template:
                raise FieldError(
                    "templates", f"has {template!r} without a {{c}} for the antibody; write 'a photo of a {{c}}'"
                )


@dataclass(frozen=True)
class LexiconBank(BankSource):
    """From WordNet alone: siblings and cousins of each class, and sentences that can't be true of it.

    look_alikes, contexts  texts per class, as far as there are so many.
    sentences              version of the list of contexts.
    """

    kind: Literal["lexicon"] = "lexicon"
    look_alikes: int = 10
    contexts: int = 4
    sentences: Literal["v1"] = "v1"
    selection: BandSelection = field(default_factory=BandSelection)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, look_alikes=self.look_alikes, contexts=self.contexts)
        _some(look_alikes=self.look_alikes, contexts=self.contexts)


@dataclass(frozen=True)
class MinedBank(BankSource):
    """Words of WordNet that belong to no class, of which the furthest are kept.

    pool        words: nouns and adjectives (NegLabel). csp: adjectives stand before a general noun, "golden creature"
                (conjugated semantic pool, Chen et al. 2024).
    candidates  how many nouns and how many adjectives are looked at, evenly spread over the tables; null: all.
    seed        of the general noun that an adjective gets.
    """

    kind: Literal["negative_mining"] = "negative_mining"
    pool: Literal["words", "csp"] = "words"
    candidates: int | None = None
    seed: int = 0
    selection: FurthestSelection = field(default_factory=FurthestSelection)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, candidates=self.candidates)
        at_least(0, seed=self.seed)


@dataclass(frozen=True)
class RandomBank(BankSource):
    """A control without meaning: directions drawn evenly from the sphere, none of which is dropped."""

    kind: Literal["random"] = "random"
    per_class: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, per_class=self.per_class)
        at_least(0, seed=self.seed)


@dataclass(frozen=True)
class FileBank(BankSource):
    """What a person wrote.

    path    a bank (.jsonl), classes with lists of texts (.yaml, .yml, .json), or one text a line that belongs to no
            class (any other).
    family  of the texts, where the file does not say it.
    """

    kind: Literal["file"] = "file"
    path: str = "???"
    family: str = "look_alike"
    selection: BandSelection = field(default_factory=BandSelection)


@dataclass(frozen=True)
class LLMBank(BankSource):
    """What a language model wrote, in a file to be reviewed: `bank` writes it, runs read it.

    look_alikes, contexts, parts, styles  texts per class that are asked for.
    endpoint  who is asked; reading the file asks nobody.
    prompt    version of the questions.
    batch     classes per request.
    """

    kind: Literal["llm"] = "llm"
    file: str = "???"
    look_alikes: int = 6
    contexts: int = 4
    parts: int = 0
    styles: int = 0
    prompt: Literal["v1"] = "v1"
    batch: int = 25
    endpoint: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    selection: BandSelection = field(default_factory=BandSelection)

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {
            "look_alikes": self.look_alikes,
            "contexts": self.contexts,
            "parts": self.parts,
            "styles": self.styles,
        }
        at_least(0, **counts)
        _some(**counts)
        above(0, batch=self.batch)


TextBank = LexiconBank | MinedBank | FileBank | LLMBank
BankConfig = TextBank | RandomBank
BANKS: dict[str, type] = {
    "lexicon": LexiconBank,
    "negative_mining": MinedBank,
    "random": RandomBank,
    "file": FileBank,
    "llm": LLMBank,
}


def _some(**counts: int) -> None:
    if not any(counts.values()):
        raise FieldError(next(iter(counts)), f"= 0, as {' and '.join(list(counts)[1:])}, leaves no antibody; raise one")
