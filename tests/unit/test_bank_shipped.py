"""The banks that are shipped: complete, and none of their texts names a class of the data set."""

from collections import Counter
from collections.abc import Sequence
from functools import cache

import pytest

from configs.layers import CONFIGS
from configs.schema.antibodies import LLMBank
from datamodules.sources.openmoji.concepts import concepts
from lightning_modules.antibodies import Bank, build
from lightning_modules.antibodies.words import words
from lightning_modules.hierarchy.wordnet import nouns
from lightning_modules.hierarchy.wordnet.tree import synsets

FOLDER = CONFIGS / "antibodies"
SYNSETS = {"openmoji": str(CONFIGS / "hierarchy/trees/openmoji_synsets.tsv"), "imagenet": "imagenet-1k"}
COUNTS = {"openmoji": 119, "imagenet": 1000}
MOST = 8  # classes that share a text
names = pytest.mark.parametrize("name", COUNTS)


def class_names(name: str) -> tuple[str, ...]:
    if name == "openmoji":
        return tuple(concept.name for concept in concepts("id"))
    return tuple((CONFIGS / "data/imagenet_classes.txt").read_text("utf-8").splitlines())


@cache
def shipped(name: str) -> Bank:
    source = LLMBank(file=str(FOLDER / f"{name}.jsonl"), synsets=SYNSETS[name])
    return build(source, class_names(name), name)


@names
def test_every_class_has_enough_of_both_families(name: str) -> None:
    bank = shipped(name)
    assert len(set(bank.class_names)) == len(bank.class_names) == COUNTS[name]
    counts = Counter((each.class_name, each.family) for each in bank.antibodies)
    for class_name in bank.class_names:
        assert counts[class_name, "look_alike"] >= 5
        assert counts[class_name, "impossible_context"] >= 3
    assert set(bank.families) == {"look_alike", "impossible_context"}


@names
def test_contexts_hold_their_class_once_and_look_alikes_do_not(name: str) -> None:
    for each in shipped(name).antibodies:
        assert each.text.count("{c}") == (each.family == "impossible_context")
        assert not set("{}") & set(each.own_words)


@names
def test_no_text_names_a_class_or_a_synonym(name: str) -> None:
    """Against every name and every lemma of its synset, looked for between spaces, as they are written and in the
    singular; what a name has in parentheses only tells it from others."""
    bank = shipped(name)
    forbidden = set()
    for class_name, wnid in zip(bank.class_names, synsets(name, SYNSETS[name], bank.class_names), strict=True):
        for term in (class_name.partition(" (")[0], *nouns()[wnid].lemmas):
            forbidden |= {" ".join(words(term)), term.casefold()}
    longest = max(len(term.split()) for term in forbidden)
    found = [
        (each.class_name, each.text)
        for each in bank.antibodies
        for said in (" ".join(words(each.own_words)), each.own_words.casefold())
        if forbidden & _phrases(said.split(), longest)
    ]
    assert found == []


@names
def test_texts_differ_within_a_class_and_are_no_formula(name: str) -> None:
    bank = shipped(name)
    own = Counter((each.class_name, words(each.text)) for each in bank.antibodies)
    assert max(own.values()) == 1
    assert max(Counter(words(each.text) for each in bank.antibodies).values()) <= MOST


@names
def test_the_card_tells_how_many_there_are_and_how_they_were_made(name: str) -> None:
    card = (FOLDER / f"{name}.md").read_text("utf-8")
    bank = shipped(name)
    for count in (len(bank), *bank.families.values()):
        assert f"{count:,}" in card
    assert bank.digest in card
    assert "No person has reviewed" in card
    assert {(each.generator, each.model, each.date) for each in bank.antibodies} == {
        ("llm", "a large language model in conversation", "2026-11-22")
    }


def test_the_class_names_of_imagenet_are_in_wordnets_order() -> None:
    """Where a name is also a lemma, most often it is one of its own synset; a shifted list would have none."""
    wnids = synsets("imagenet", "imagenet-1k", class_names("imagenet"))
    own = [
        words(class_name) in {words(lemma) for lemma in nouns()[wnid].lemmas}
        for class_name, wnid in zip(class_names("imagenet"), wnids, strict=True)
    ]
    assert sum(own) > 700
    assert all(sum(own[start : start + 50]) > 10 for start in range(0, 1000, 50))


def _phrases(parts: Sequence[str], longest: int) -> set[str]:
    return {" ".join(parts[start : start + length]) for start in range(len(parts)) for length in range(1, longest + 1)}
