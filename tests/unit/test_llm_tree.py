"""Trees that a language model names: answers, votes, the file that people edit, and the one that is shipped."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from configs.layers import CONFIGS
from configs.schema.hierarchy import LLMTree
from configs.schema.language_model import LanguageModelConfig
from datamodules.sources.openmoji.concepts import concepts
from lightning_modules.hierarchy import llm
from lightning_modules.hierarchy.llm import questions, read_answer
from lightning_modules.hierarchy.path_file import read_tree, to_yaml
from lightning_modules.hierarchy.reconcile import reconcile
from lightning_modules.language_model import Client, LanguageModelError
from tests.unit.fake_endpoint import KEY, Asked, FakeEndpoint, Reply, says

ZOO: dict[str, tuple[str, ...]] = {
    "dog": ("canine", "mammal"),
    "fox": ("canine", "mammal"),
    "owl": ("raptor", "bird"),
    "no": ("negation", "word"),
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)


def knows(known: Mapping[str, Sequence[str]]) -> Any:
    """A model that answers for the classes that it finds in the message's JSON list."""

    def reply(asked: Asked) -> Reply:
        batch = next(json.loads(line) for line in asked.message.splitlines() if line.startswith("["))
        return says(json.dumps({name: known[name] for name in batch}))

    return reply


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_every_class_is_asked_for_once(batch: int) -> None:
    source = LLMTree(file="x", levels=2, batch=batch)
    with FakeEndpoint(knows(ZOO)).serving() as endpoint:
        asked = questions(list(ZOO), source)
        assert llm.ask(Client(endpoint.config()), asked) == ZOO
        assert len(endpoint.asked) == len(asked) == -(-len(ZOO) // batch)
        assert all("2 superclasses" in request.message for request in endpoint.asked)
        assert "$" not in endpoint.asked[0].message


def test_the_estimate_is_near_the_truth() -> None:
    """The answer that it expects, against the shipped tree's length at four characters a token."""
    path = CONFIGS / "hierarchy/trees/openmoji_llm.yaml"
    names = [concept.name for concept in concepts("id")]
    estimate = Client(LanguageModelConfig()).estimate(questions(names, LLMTree(file="x", levels=3)))
    length = sum(len(line) + 6 for line in path.read_text().splitlines() if not line.startswith("#"))
    assert 0.5 < estimate.output_tokens / (length / 4) < 3


def test_a_batch_without_an_answer_is_told_and_the_others_are_kept() -> None:
    with FakeEndpoint(
        lambda asked: says("{}") if '"owl"' in asked.message else knows(ZOO)(asked)
    ).serving() as endpoint:
        client, asked = Client(endpoint.config()), questions(list(ZOO), LLMTree(file="x", levels=2, batch=1))
        with pytest.raises(LanguageModelError, match=r"1 of 4 requests .* misses 'owl'"):
            llm.ask(client, asked)
        assert client.estimate(asked).requests == 1


GOOD = {"Dog": ["canine", "mammal"], "fox": [" wild\u0000 canine", "mam\nmal"], "unicorn": ["myth", "idea"]}


def test_an_answer_is_tidied() -> None:
    said = read_answer(json.dumps(GOOD), ["fox", "dog"], 2)
    assert said == {"fox": ("wild canine", "mam mal"), "dog": ("canine", "mammal")}
    assert list(said) == ["fox", "dog"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"fox": ["canine"]}, "'fox' has 1 superclasses instead of 2"),
        ({"fox": []}, "'fox' has 0 superclasses"),
        ({"fox": ["canine", "mammal", "animal"]}, "'fox' has 3 superclasses"),
        ({"fox": ["Fox", "mammal"]}, "name it"),
        ({"fox": ["mammal", "Mammal"]}, "one of them twice"),
        ({"fox": ["", "mammal"]}, "'fox' is an empty text"),
        ({"fox": ["x" * 10_000, "mammal"]}, "10,000 characters"),
        ({"fox": "canine"}, "valid array at fox"),
        ({"fox": None}, "valid array at fox"),
    ],
)
def test_an_answer_that_is_none(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        read_answer(json.dumps(GOOD | change), ["fox", "dog"], 2)
    assert len(str(raised.value)) < 200


def test_an_answer_without_some_classes() -> None:
    with pytest.raises(ValueError, match="misses 'owl', 'elk'"):
        read_answer(json.dumps(GOOD), ["fox", "owl", "elk"], 2)


def test_the_majority_decides_on_a_parent_and_the_alphabet_on_a_tie() -> None:
    said = {
        "dog": ("canine", "mammal", "animal"),
        "fox": ("canine", "mammal", "animal"),
        "wolf": ("canine", "predator", "hunter"),
        "cat": ("Feline", "mammal", "animal"),
        "lion": ("feline", "predator", "animal"),
        "lynx": ("feline", "zebra", "animal"),
    }
    settled, changes = reconcile(said)
    assert settled["wolf"] == ("canine", "mammal", "animal")  # two votes to one, and on from there
    assert settled["lion"] == settled["lynx"] == settled["cat"] == ("feline", "mammal", "animal")  # one each
    told = [str(change) for change in changes]
    assert told[0] == "level 1: 'canine' is below 'mammal' (2), no longer below 'predator' (1)"
    assert told[1] == "level 1: 'feline' is below 'mammal' (1), no longer below 'predator' (1), 'zebra' (1)"
    assert len(told) == 3  # and the predators, of whom none is left


names_of_superclasses = st.lists(st.sampled_from(["a", "A", "b", "c", "d"]), min_size=3, max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([f"leaf{index}" for index in range(12)]), names_of_superclasses, min_size=1))
def test_what_is_reconciled_has_one_parent_a_name_and_stays_so(said: dict[str, list[str]]) -> None:
    settled, changes = reconcile(said)
    assert list(settled) == list(said)
    for level in range(2):
        parents: dict[str, set[str]] = {}
        for above in settled.values():
            parents.setdefault(above[level], set()).add(above[level + 1])
        assert all(len(each) == 1 for each in parents.values())
    for name, above in settled.items():
        assert above[0].casefold() == said[name][0].casefold()  # the nearest superclass is as the model named it
    assert reconcile(settled) == (settled, [])
    assert reconcile(dict(reversed(said.items())))[0] == settled  # in any order
    if not changes:
        assert {name: [each.casefold() for each in above] for name, above in settled.items()} == {
            name: [each.casefold() for each in above] for name, above in said.items()
        }


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Classes called as YAML's own words, with quotes, colons and letters of any script; leaves in the order wanted."""
    odd = {
        "null": ("b: c", "d"),
        "1984": ("b: c", "d"),
        "yes": ("#e", "'f'"),
        "crane, bird": ("été", "鳥"),
        "x": ("[y", "鳥"),
    }
    path = tmp_path / "odd.yaml"
    path.write_text(to_yaml(ZOO | odd, ["by a model", "two\nlines"]), "utf-8")
    assert path.read_text("utf-8").startswith(
        "# by a model\n# two lines\ndog: [canine, mammal]\nfox: [canine, mammal]\n"
    )
    order = list(reversed(ZOO | odd))
    tree = read_tree(path, order, "mine")
    assert tree.name == "mine"
    assert read_tree(path, order).name == "odd"
    assert tree.levels[0] == tuple(order)
    for level in (1, 2):
        found = [tree.levels[level][index] for index in tree.ancestors(level).tolist()]
        assert found == [(ZOO | odd)[name][level - 1] for name in order]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("dog: [canine, mammal]\nfox: [canine, mammal]\n", "misses 'owl', 'no' of"),
        (to_yaml(ZOO | {"elk": ("deer", "mammal")}, []), "has 'elk', which the data set has not"),
        (to_yaml(ZOO | {"fox": ("canine", "mammal", "animal")}, []), "3 superclasses at 'fox' and 2 at 'dog'"),
        (to_yaml(ZOO | {"fox": ("canine", "predator")}, []), "'canine' .*two parents, 'mammal' and 'predator'"),
        (to_yaml(ZOO | {"owl": ("owl", "x")} | {"fox": ("y" * 101, "x")}, []), "101 characters"),
        (to_yaml(ZOO, []) + "fox: [a, b]\n", "'fox' a second time"),
        (to_yaml(ZOO | {"owl": ()}, []), "no list of superclasses at 'owl'"),
        (to_yaml(ZOO, []).replace("[raptor, bird]", "raptor"), "no list of superclasses at 'owl'"),
        (to_yaml(ZOO, []).replace("[raptor, bird]", "[raptor, [bird]]"), "no list of superclasses at 'owl'"),
        (to_yaml(ZOO, []).replace("[raptor, bird]", ""), "no list of superclasses at 'owl'"),
        (to_yaml(ZOO, []).replace("raptor", "''"), "an empty text"),
        (to_yaml(ZOO, []).replace("raptor", "!!python/object/apply:os.getcwd []"), "no list of superclasses at 'owl'"),
        ("", "holds no classes"),
        ("- dog\n- fox\n", "holds no classes"),
        ("dog: [canine\n", "can't be read"),
        ("? [dog]\n: [canine]\n", "can't be read"),
        ("dog: &a [*a]\n", "can't be read"),
        ("dog: \x00", "can't be read"),
        (None, "can't be read"),
    ],
)
def test_a_file_that_is_no_tree_is_told_in_a_sentence(content: str | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "edited.yaml"
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(DataError, match=problem) as raised:
        read_tree(path, list(ZOO))
    assert "edited.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_class_may_be_called_as_a_superclass_of_others_is(tmp_path: Path) -> None:
    path = tmp_path / "sea.yaml"
    path.write_text("fish: [swimmer, animal]\nshark: [fish, animal]\nwhale: [mammal, mammal]\nseal: [mammal, mammal]\n")
    tree = read_tree(path, ["fish", "shark", "whale", "seal"])
    assert tree.levels[0] == ("fish", "shark", "whale", "seal")
    assert tree.ancestors(1).tolist() == [0, 1, 2, 2]
    assert tree.ancestors(2).tolist() == [0, 0, 1, 1]


def test_the_shipped_tree_is_one_over_openmojis_classes() -> None:
    names = [concept.name for concept in concepts("id")]
    tree = read_tree(CONFIGS / "hierarchy/trees/openmoji_llm.yaml", names)
    assert tree.levels[0] == tuple(names)
    assert tree.depth == 3
    sizes = [len(level) for level in tree.levels]
    assert sizes == sorted(set(sizes), reverse=True)
    assert not {each.casefold() for level in tree.levels[1:] for each in level} & {name.casefold() for name in names}
    above = dict(zip(names, zip(*(tree.ancestors(level).tolist() for level in (1, 2, 3)), strict=True), strict=True))
    called = {
        name: [tree.levels[level][place] for level, place in enumerate(each, start=1)] for name, each in above.items()
    }
    assert called["fox"] == called["dog"] == ["canine", "mammal", "animal"]
    assert called["whale"][1:] == called["cat"][1:]  # a mammal, where Unicode's tree has a sea animal
