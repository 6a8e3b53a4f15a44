"""Antibodies that a language model writes: questions, and what becomes of good and bad answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.schema.antibodies import LLMBank
from lightning_modules.antibodies import llm
from lightning_modules.antibodies.antibody import LONGEST
from lightning_modules.antibodies.llm import Answer, ask, prompts, questions, read_answer
from lightning_modules.language_model import Client, LanguageModelError
from tests.unit.fake_endpoint import KEY, Asked, FakeEndpoint, Reply, says

CLASSES = ("fox", "bus", "owl", "no")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)


def writes(change: Callable[[dict[str, Any]], Any] = lambda said: said) -> Callable[[Asked], Reply]:
    """A model that answers for the classes in the message's JSON list, by what the message asks for."""

    def reply(asked: Asked) -> Reply:
        batch = next(json.loads(line) for line in asked.message.splitlines() if line.startswith("["))
        text = "a {c} of glass number %d" if "impossible contexts" in asked.message else "brick %d"
        return says(json.dumps(change({name: [text % each for each in range(5)] for name in batch})))

    return reply


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_every_class_and_family_is_asked_for_once(batch: int) -> None:
    source = LLMBank(file="x", look_alikes=3, contexts=2, batch=batch)
    with FakeEndpoint(writes()).serving() as endpoint:
        found, dropped = ask(Client(endpoint.config()), CLASSES, source)
        assert len(endpoint.asked) == len(questions(CLASSES, source)) == 2 * -(-len(CLASSES) // batch)
        assert not any("$" in request.message for request in endpoint.asked)
    assert dropped == {}
    assert [(each.class_name, each.family) for each in found] == [
        (name, family) for name in CLASSES for family in ("look_alike",) * 3 + ("impossible_context",) * 2
    ]
    hashes = {family: (prompt.name, prompt.hash) for family, (prompt, _) in prompts(source).items()}
    assert {(each.family, (each.prompt, each.prompt_hash)) for each in found} == set(hashes.items())


def test_families_are_asked_for_by_their_own_prompts() -> None:
    source = LLMBank(file="x", look_alikes=0, contexts=0, parts=2, styles=3)
    assert {family: count for family, (_, count) in prompts(source).items()} == {"part_whole": 2, "style": 3}
    everything = prompts(LLMBank(file="x", parts=1, styles=1))
    assert len({prompt.hash for prompt, _ in everything.values()}) == 4
    for question in questions(CLASSES, source):
        assert json.dumps(list(CLASSES)) in question.message()


def test_the_estimate_is_near_the_truth() -> None:
    """The answer that it expects, against the shipped bank's length at four characters a token."""
    shipped = Path(llm.__file__).parents[2] / "configs/antibodies/openmoji.jsonl"
    lines = [json.loads(line) for line in shipped.read_text().splitlines()]
    names = list(dict.fromkeys(line["class"] for line in lines))
    expected = sum(question.answer_tokens for question in questions(names, LLMBank(file="x")))
    length = sum(len(line["text"]) + 4 for line in lines) + sum(2 * len(name) + 10 for name in names)
    assert 0.5 < expected / (length / 4) < 3


def answer(family: str = "look_alike", count: int = 6, **said: list[Any]) -> Answer:
    return read_answer(json.dumps(said), tuple(said), family, count)


def test_texts_are_tidied_repaired_dropped_and_counted() -> None:
    found = answer(
        Fox=["  coyote\u0000 ", "", "x" * (LONGEST + 1), "Arctic foxes", "a {c}", "dhole", "coyote", "\u200b"]
    )
    assert found.texts == {"Fox": ("coyote", "dhole")}
    assert found.dropped == {
        "empty": 1,
        "too long, or nothing but signs": 2,
        "names the class itself": 1,
        "braces out of place": 1,
    }


def test_a_class_written_where_its_place_belongs_becomes_one() -> None:
    said = ["a Fox of glass", "a {c} of fog", "a {c} beside a fox", "frozen lake", "a {c} and {c}", "a {d} fox"]
    found = answer("impossible_context", fox=said)
    assert found.texts == {"fox": ("a {c} of glass", "a {c} of fog")}
    assert found.dropped == {"names the class itself": 1, "no {c}": 1, "braces out of place": 2}
    part = answer("part_whole", fox=["tail of a fox", "a den"])
    assert part.texts == {"fox": ("tail of a {c}", "a den")}


def test_no_more_texts_than_were_asked_for() -> None:
    assert answer(count=2, fox=["a", "b", "a", "c"]).texts == {"fox": ("a", "b")}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ("{}", "misses 'fox', 'bus'"),
        ('{"fox": ["a"]}', "misses 'bus'"),
        ('{"fox": [], "bus": ["a"]}', r"no text of 'fox' can be used \(the list is empty\)"),
        ('{"fox": ["fox"], "bus": ["a"]}', r"no text of 'fox' can be used \(names the class itself\)"),
        ('{"fox": "coyote", "bus": ["a"]}', "valid"),
        ('{"fox": [["coyote"]], "bus": ["a"]}', "valid"),
        ('{"fox": [null], "bus": ["a"]}', "valid"),
        ('{"fox": ["' + "x" * 10_000 + '"], "bus": ["a"]}', "too long"),
    ],
)
def test_an_answer_that_is_none(said: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        read_answer(said, ("fox", "bus"), "look_alike", 6)
    assert len(str(raised.value)) < 200


def test_a_bad_answer_is_asked_for_again_and_told_why() -> None:
    replies = [says("{"), says('{"fox": []}'), writes()]
    with FakeEndpoint(*replies).serving() as endpoint:
        source = LLMBank(file="x", look_alikes=2, contexts=0)
        found, _ = ask(Client(endpoint.config()), ("fox",), source)
        assert [each.text for each in found] == ["brick 0", "brick 1"]
        assert "the list is empty" in endpoint.asked[2].message


def test_a_batch_without_an_answer_is_told_and_the_others_are_kept() -> None:
    source = LLMBank(file="x", look_alikes=2, contexts=0, batch=1)
    with FakeEndpoint(lambda asked: says("{}") if '"owl"' in asked.message else writes()(asked)).serving() as endpoint:
        client = Client(endpoint.config())
        with pytest.raises(LanguageModelError, match=r"1 of 4 requests .* misses 'owl'"):
            ask(client, CLASSES, source)
        assert client.estimate(questions(CLASSES, source)).requests == 1
