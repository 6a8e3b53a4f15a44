"""Antibodies from WordNet: the lexicon and mined words."""

import pytest

from configs.schema.antibodies import LexiconBank, MinedBank
from lightning_modules.antibodies import Bank, build
from lightning_modules.antibodies.lexicon import FURTHEST
from lightning_modules.antibodies.mining import ABSENT, GENERAL
from lightning_modules.antibodies.names import NameIndex, ancestors, meanings
from lightning_modules.hierarchy.matching import VISIBLE
from lightning_modules.hierarchy.wordnet import adjectives, nouns

CLASSES = ("dog", "fox", "bus", "pizza", "violin", "daisy")


@pytest.fixture(scope="module")
def lexicon() -> Bank:
    return build(LexiconBank(look_alikes=12, contexts=5), CLASSES, "lexicon")


def texts(bank: Bank, class_name: str, family: str) -> list[str]:
    return [each.text for each in bank.antibodies if (each.class_name, each.family) == (class_name, family)]


def test_the_lexicon_fills_every_class_and_family(lexicon: Bank) -> None:
    for name in CLASSES:
        for family, count in (("look_alike", 12), ("impossible_context", 5)):
            found = texts(lexicon, name, family)
            assert len(set(found)) == len(found) == count
        assert all(text.count("{c}") == 1 for text in texts(lexicon, name, "impossible_context"))
    assert lexicon.families == {"look_alike": 12 * 6, "impossible_context": 5 * 6}


def test_look_alikes_are_relatives_that_are_not_in_distribution(lexicon: Bank) -> None:
    """Each is a lemma of a visible synset near its class in the tree, and neither a class, nor above or below one."""
    wnids = dict(zip(CLASSES, meanings(CLASSES, None), strict=True))
    for name in CLASSES:
        own = wnids[name]
        assert own is not None
        for text in texts(lexicon, name, "look_alike"):
            meant = [synset for synset in nouns().values() if text in synset.lemmas and synset.topic in VISIBLE]
            fitting = [
                synset
                for synset in meant
                if not any(other in ancestors(synset.wnid) | {synset.wnid} for other in wnids.values())
                and not any(synset.wnid in ancestors(other or "") for other in wnids.values())
                and _distance(synset.wnid, own) <= 2 * FURTHEST
            ]
            assert fitting, (name, text)


def test_siblings_come_before_cousins(lexicon: Bank) -> None:
    parent = nouns()[meanings(["bus"], None)[0] or ""].hypernyms[0]
    siblings = {lemma for synset in nouns().values() if synset.hypernyms[:1] == (parent,) for lemma in synset.lemmas}
    near = [text in siblings for text in texts(lexicon, "bus", "look_alike")]
    assert near[0]
    assert near == sorted(near, reverse=True)


def test_no_text_names_a_class(lexicon: Bank) -> None:
    index = NameIndex(CLASSES, meanings(CLASSES, None))
    assert [each.text for each in lexicon.antibodies if index.find(each.own_words)] == []


def test_the_lexicon_is_the_same_every_time_and_follows_its_counts(lexicon: Bank) -> None:
    again = build(LexiconBank(look_alikes=12, contexts=5), CLASSES, "again")
    assert again.digest == lexicon.digest
    fewer = build(LexiconBank(look_alikes=3, contexts=0), CLASSES, "fewer")
    for name in CLASSES:
        assert texts(fewer, name, "look_alike") == texts(lexicon, name, "look_alike")[:3]
    assert "impossible_context" not in fewer.families


def test_a_class_that_wordnet_has_not_gets_contexts_alone() -> None:
    bank = build(LexiconBank(), ("red square disc", "dog"), "b")
    assert not texts(bank, "red square disc", "look_alike")
    assert texts(bank, "red square disc", "impossible_context")


def test_contexts_that_name_a_class_are_left_out() -> None:
    """Two of the shipped sentences hold these names."""
    index = NameIndex(("mountain", "glass"), (None, None))
    bank = build(LexiconBank(look_alikes=0, contexts=100), ("mountain", "glass"), "b")
    assert bank.antibodies
    assert [each.text for each in bank.antibodies if index.find(each.own_words)] == []


def test_mined_words_are_wordnets_without_the_classes() -> None:
    bank = build(MinedBank(), ("Dog", "blue"), "mined")
    named = [each.text for each in bank.antibodies if each.family == "noun"]
    described = [each.text for each in bank.antibodies if each.family == "adjective"]
    lemmas = {lemma for synset in nouns().values() if synset.topic not in ABSENT for lemma in synset.lemmas}
    assert set(named) == {lemma for lemma in lemmas if lemma.casefold() not in ("dog", "blue") and len(lemma) <= 80}
    assert len(set(named)) == len(named)
    assert set(described) <= set(adjectives())
    assert not {each.casefold() for each in named} & {each.casefold() for each in described}
    assert set(bank.owners) == {-1}


def test_a_conjugated_pool_puts_adjectives_before_general_nouns() -> None:
    plain, pool = (build(MinedBank(pool=pool, candidates=200), ("dog",), "m") for pool in ("words", "csp"))  # type: ignore[arg-type]
    assert plain.families == pool.families == {"noun": 200, "adjective": 200}
    for one, two in zip(plain.captions[200:], pool.captions[200:], strict=True):
        adjective, noun = two.rsplit(" ", 1)
        assert (adjective, noun in GENERAL) == (one, True)
    assert plain.captions[:200] == pool.captions[:200]
    other = build(MinedBank(pool="csp", candidates=200, seed=1), ("dog",), "m")
    assert other.captions != pool.captions


def _distance(one: str, two: str) -> int:
    """Steps along main hypernyms."""
    ways = []
    for wnid in (one, two):
        way = [wnid]
        while nouns()[way[-1]].hypernyms:
            way.append(nouns()[way[-1]].hypernyms[0])
        ways.append(way)
    return min(ways[0].index(each) + ways[1].index(each) for each in ways[0] if each in ways[1])
