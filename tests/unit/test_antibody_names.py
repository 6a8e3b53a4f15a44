"""Names in texts, and the overlap audit."""

import string
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.antibodies import Antibody, Bank, overlap
from lightning_modules.antibodies.names import NameIndex, ancestors, meanings
from lightning_modules.antibodies.words import words
from lightning_modules.hierarchy.wordnet import hypernym_path, nouns

DOG, FOX, BUS = "n02084071", "n02118333", "n02924116"
INDEX = NameIndex(["dog", "fox", "bus", "kite (bird of prey)"], [DOG, FOX, BUS, None])


@pytest.mark.parametrize(
    ("singular", "plural"),
    [("dog", "dogs"), ("fox", "foxes"), ("horse", "horses"), ("bus", "buses"), ("wolf", "wolves"), ("pony", "ponies"),
     ("glove", "gloves"), ("knife", "knives"), ("mouse", "mice"), ("axe", "axes"), ("dish", "dishes"),
     ("woman", "women"), ("glass", "glasses"), ("cookie", "cookies"),
     ("house", "houses"), ("tench", "tenches"), ("ski", "skis"),
     ("pie", "pies"), ("man", "men"), ("tooth", "teeth"), ("goose", "geese"), ("lens", "lenses")],
)  # fmt: skip
def test_number_does_not_count(singular: str, plural: str) -> None:
    assert words(singular) == words(plural)


def test_words_that_only_look_alike_stay_apart() -> None:
    apart = ["glass", "gas", "bus", "cactus", "iris", "moose", "moss", "mouse", "mass", "dog", "god", "cod", "dove"]
    assert len({words(each) for each in apart}) == len(apart)


@given(st.text(string.ascii_letters + " '-.,é"), st.sampled_from(["dog", "double-decker bus"]))
def test_case_and_punctuation_do_not_count(padding: str, name: str) -> None:
    assert words(name.upper()) == words(name)
    assert words(f"({name.replace('-', ' ')})!") == words(name)
    assert words(f"{padding} {name}")[-len(words(name)) :] == words(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a raccoon dog", {0: "exactly"}),
        ("Foxes' den", {1: "exactly"}),
        ("Canis familiaris at sea", {0: "synonym"}),
        ("dogfish", {}),
        ("foxglove", {}),
        ("an autobus or a dog", {0: "exactly", 2: "synonym"}),
        ("a canine", {0: "hypernym", 1: "hypernym"}),
        ("canine tooth", {}),
        ("public transport", {2: "hypernym"}),
        ("kites", {3: "exactly"}),
        ("bird of prey", {}),
        ("", {}),
    ],
)
def test_what_a_text_names(text: str, expected: dict[int, str]) -> None:
    assert INDEX.find(text) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["dog", "dogs", "bus", "fox", "wild", "den", "domestic", "canis", "familiaris"]), max_size=5
    )
)
def test_a_text_names_what_a_search_for_each_phrase_finds(parts: list[str]) -> None:
    """Against every lemma, looked for between spaces."""
    text = " ".join(parts)
    padded = f" {' '.join(words(text))} "
    found = {
        place
        for place, (name, wnid) in enumerate((("dog", DOG), ("fox", FOX), ("bus", BUS)))
        for lemma in (name, *nouns()[wnid].lemmas)
        if f" {' '.join(words(lemma))} " in padded
    }
    assert {place for place, how in INDEX.find(text).items() if how != "hypernym"} == found


def test_ancestors_follow_every_hypernym() -> None:
    assert set(hypernym_path(DOG)[1:]) < ancestors(DOG)  # a dog is also a domestic animal
    assert DOG not in ancestors(DOG)
    assert ancestors("n00001740") == set()


def test_meanings_are_looked_up_as_far_as_there_are_any() -> None:
    assert meanings(["dog", "red square disc"], None) == (DOG, None)


def test_the_audit_tells_how_and_by_which() -> None:
    texts = ["wolf pack", "Canis latrans", "canine", "a {c} on the moon", "brick"]
    bank = Bank("b", ("dog",), tuple(Antibody("dog", "x", text, "file") for text in texts))
    found = overlap(bank, ["wolf", "moon", "coyote", "tulip", "dog"])
    assert found.named == {
        "wolf": ("exactly", (0, 2)),
        "moon": ("exactly", (3,)),
        "coyote": ("synonym", (1, 2)),
        "dog": ("hypernym", (2,)),
    }
    assert found.mask.tolist() == [True, True, True, True, False]
    assert found.by("synonym") == ["coyote"]
    assert "4 of 5 concepts are named by 4 antibodies: 2 exactly (wolf, moon)" in str(found)
    assert bank.without(found.mask).captions == ["brick"]
    assert not overlap(bank.without(found.mask), found.concepts).mask.any()


def test_nothing_is_named_by_nothing() -> None:
    bank = Bank("b", ("dog",), (Antibody("dog", "x", "brick", "file"),))
    found = overlap(bank, [])
    assert torch.equal(found.mask, torch.tensor([False]))
    assert str(found) == "0 of 0 concepts are named"


def test_a_thousand_classes_and_ten_thousand_texts_take_seconds() -> None:
    """Of the processor; a search for each class in each text would take minutes."""
    kinds = [synset for synset in nouns().values() if synset.topic == "noun.artifact"]
    names, wnids = [synset.name for synset in kinds[:1000]], [synset.wnid for synset in kinds[:1000]]
    texts = [f"a {one.name} beside a {two.name}" for one, two in zip(kinds[1000:6000], kinds[2000:7000], strict=True)]
    began = time.process_time()
    index = NameIndex(names, wnids)
    for text in texts * 2:
        index.find(text)
    assert time.process_time() - began < 5
