"""Asking a language model, against an endpoint that misbehaves in every way: what is asked, kept, paid and told."""

import json
import logging
import socket
import string
import threading
import time
import traceback
import unicodedata
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.compose import compose
from configs.errors import ConfigError, FieldError
from configs.schema.language_model import LanguageModelConfig
from lightning_modules.language_model import BadAnswer, Client, LanguageModelError, Prompt, Question, clean, read_json
from lightning_modules.language_model.client import GIVE_UP
from lightning_modules.language_model.cost import Budget, tokens
from lightning_modules.language_model.pace import LONGEST_PAUSE, Pace, pause, retry_after
from tests.unit.fake_endpoint import KEY, Asked, FakeEndpoint, Reply, fails, says

PROMPT = Prompt("names_v1", "Three names for $thing, as JSON.")
LIMIT = 40


def read(text: str) -> list[str]:
    """A list of at least one short name."""
    names = [clean(name, LIMIT) for name in read_json(text, dict[str, list[str]]).get("names", [])]
    if not names:
        raise ValueError("an empty list")
    return names


def ask_for(*things: str) -> list[Question[list[str]]]:
    return [Question(PROMPT, {"thing": thing}, read, answer_tokens=20) for thing in things]


def names(*given: str) -> str:
    return json.dumps({"names": given})


def echo(asked: Asked, delay: float = 0.0) -> Reply:
    """The name that was asked for, so that answers can be told apart."""
    return Reply(says(names(asked.message.split()[3].rstrip(","))).body, delay=delay)


SLOWLY = partial(echo, delay=0.05)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)  # the cache's default is a relative path


def test_answers_come_in_order_side_by_side_and_once() -> None:
    things = [f"thing{index}" for index in range(9)]
    told: list[int] = []
    together = threading.Barrier(3, timeout=20)

    def in_threes(asked: Asked) -> Reply:
        together.wait()
        return echo(asked)

    with FakeEndpoint(in_threes).serving() as endpoint:
        config = endpoint.config(concurrency=3)
        assert Client(config).ask(ask_for(*things), told.append) == [[thing] for thing in things]
        assert endpoint.most_under_way == 3
        assert sorted(told) == [0] + [1] * 9
        assert len(endpoint.asked) == 9
        assert {asked.headers["authorization"] for asked in endpoint.asked} == {f"Bearer {KEY}"}
        assert {asked.path for asked in endpoint.asked} == {"/v1/chat/completions"}
        told.clear()
        assert Client(config).ask(ask_for(*reversed(things)), told.append) == [[thing] for thing in reversed(things)]
        assert told == [9]
        assert len(endpoint.asked) == 9


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"temperature": 0.5}, {"seed": 1}, {"seed": None}, {"prompt": "Names of $thing:"}]
)
def test_another_question_is_asked_anew(change: dict[str, Any]) -> None:
    with FakeEndpoint(says(names("one")), says(names("two"))).serving() as endpoint:
        (first,) = ask_for("fox")
        assert Client(endpoint.config()).ask([first]) == [["one"]]
        other = Question(Prompt("v2", change.pop("prompt", PROMPT.text)), first.values, read, 20)
        assert Client(endpoint.config(**change)).ask([other]) == [["two"]]
        assert Client(endpoint.config()).ask([first]) == [["one"]]
        for key, value in change.items():
            assert endpoint.asked[1].body.get(key) == value


def test_a_run_that_broke_off_goes_on_where_it_was() -> None:
    things = ["ant", "bee", "cow", "dog", "elk"]
    with FakeEndpoint(echo, echo, fails(401), echo).serving() as endpoint:
        client = Client(endpoint.config(concurrency=1))
        with pytest.raises(LanguageModelError, match="of 5 answers are kept") as raised:
            client.ask(ask_for(*things))
        assert "FAKE_KEY" in str(raised.value)
        kept = client.estimate(ask_for(*things)).cached
        assert f"{kept} of 5" in str(raised.value)
        assert kept == len(endpoint.asked) - 1 == 2
        assert client.ask(ask_for(*things)) == [[thing] for thing in things]
        assert len(endpoint.asked) == 5 + 1


def test_an_interrupt_keeps_what_is_under_way_and_sends_nothing_more() -> None:
    interrupted = threading.Event()

    def interrupt(count: int) -> None:
        if count:
            interrupted.set()
            raise KeyboardInterrupt

    def under_way(asked: Asked) -> Reply:
        interrupted.wait(20)
        return SLOWLY(asked)

    things = ask_for(*string.ascii_letters)
    with FakeEndpoint(echo, under_way).serving() as endpoint:
        client = Client(endpoint.config(concurrency=2))
        with pytest.raises(KeyboardInterrupt):
            client.ask(things, interrupt)
        assert 2 <= len(endpoint.asked) < len(things) / 2
        assert client.estimate(things).cached == len(endpoint.asked)


def test_an_answer_on_disk_that_is_damaged_is_asked_again() -> None:
    with FakeEndpoint(says(names("one")), says(names("two"))).serving() as endpoint:
        client = Client(endpoint.config())
        client.ask(ask_for("fox"))
        (path,) = client.cache.folder.rglob("*.json")
        assert not list(client.cache.folder.rglob("*.partial"))
        for damaged in (path.read_text()[:-30], path.read_text().replace("fox", "cat"), "[]", '{"key": 1}', ""):
            path.write_text(damaged)
            assert client.estimate(ask_for("fox")).requests == 1
        assert client.ask(ask_for("fox")) == [["two"]]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    with (
        FakeEndpoint(echo).serving() as endpoint,
        pytest.raises(LanguageModelError, match=r"can be kept in .*taken"),
    ):
        Client(endpoint.config(cache=str(tmp_path / "taken"))).ask(ask_for("fox"))


@pytest.mark.parametrize(
    "refusal",
    [
        fails(429, retry_after="0.8"),
        fails(503, retry_after="0.8"),
        fails(429, retry_after=format_datetime(datetime(1999, 1, 1, tzinfo=UTC))),
        fails(500),
        Reply(b"oops", 502),
    ],
)
def test_who_is_refused_waits_and_comes_again(refusal: Reply) -> None:
    with FakeEndpoint(refusal, echo).serving() as endpoint:
        assert Client(endpoint.config()).ask(ask_for("ant")) == [["ant"]]
        first, second = (asked.time for asked in endpoint.asked)
        assert second - first >= (0.8 if refusal.headers.get("retry-after") == "0.8" else 0.25)


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (fails(500), "status 500"),
        (fails(429), "status 429"),
        (Reply(b"<html>welcome</html>"), "something else than chat completions"),
        (Reply(b'{"choices": ['), "something else than chat completions"),
        (Reply(b"{}"), "something else than chat completions"),
        (Reply(b"null"), "something else than chat completions"),
        (Reply(b'{"choices": []}'), "something else than chat completions"),
        (Reply(b'{"choices": [{"message": null}]}'), "something else than chat completions"),
    ],
)
def test_an_endpoint_that_stays_broken_ends_the_run(reply: Reply, part: str) -> None:
    with FakeEndpoint(reply).serving() as endpoint:
        with pytest.raises(LanguageModelError, match=part) as raised:
            Client(endpoint.config(retries=0)).ask(ask_for("fox"))
        assert endpoint.base_url in str(raised.value)
        assert "\n" not in str(raised.value)
        assert len(endpoint.asked) == 1


def test_an_endpoint_that_is_silent_or_fails_again_and_again() -> None:
    late = Reply(says(names("late")).body, delay=0.6)
    for reply, part, timeout in ((late, "said nothing for 0.2 s, 2 times", 0.2), (fails(500), "500, 2 times", 30.0)):
        with FakeEndpoint(reply).serving() as endpoint:
            with pytest.raises(LanguageModelError, match=part):
                Client(endpoint.config(timeout=timeout, retries=1)).ask(ask_for("fox"))
            assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (fails(401, f"Incorrect key {KEY}"), "refuses the key in FAKE_KEY"),
        (fails(403), "refuses the key in FAKE_KEY"),
        (fails(404, "no model fake"), "no model fake.*correct base_url or model"),
        (fails(400, "context too long\nby far"), "context too long by far"),
        (fails(429, code="insufficient_quota"), "no quota left"),
        (fails(429, retry_after="86400"), "asks to wait 86,400 s"),
    ],
)
def test_an_endpoint_that_never_will_is_asked_once(reply: Reply, part: str) -> None:
    with FakeEndpoint(reply).serving() as endpoint:
        with pytest.raises(LanguageModelError, match=part):
            Client(endpoint.config(retries=5)).ask(ask_for("fox"))
        assert len(endpoint.asked) == 1


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    config = LanguageModelConfig(base_url=address, api_key_env=None, retries=1, requests_per_minute=6e5)
    with pytest.raises(LanguageModelError, match=r"can't be reached \(.*refused.*\), 2 times"):
        Client(config).ask(ask_for(*"abcdef"))


def test_a_failure_ends_the_rest_of_the_others() -> None:
    """One thread waits for its turn in a minute's time when another one is told that the key is wrong."""
    with FakeEndpoint(fails(401)).serving() as endpoint:
        started = time.monotonic()
        with pytest.raises(LanguageModelError, match="FAKE_KEY"):
            Client(endpoint.config(concurrency=4, requests_per_minute=1)).ask(ask_for(*"abcd"))
        assert time.monotonic() - started < 30
        assert len(endpoint.asked) == 1


BAD = {
    "malformed": (says("{names: fox"), "Invalid JSON"),
    "no JSON": (says("Certainly! Three names are"), "Invalid JSON"),
    "truncated": (says('{"names": ["fo'), "EOF"),
    "cut off": (says(names("whole"), finish_reason="length"), "cut off at 8192 tokens"),
    "nothing": (says(""), "EOF"),
    "empty list": (says('{"names": []}'), "an empty list"),
    "another form": (says('{"names": [1]}'), "valid string at names.0"),
    "a list": (says('["fox"]'), "an object"),
    "a long text": (says(names("x" * 10_000)), "10,000 characters, and 40 are allowed"),
    "control characters": (says(names("\u0007\u200b")), "an empty text"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_answer_that_is_none_is_asked_for_again_with_the_reason(kind: str) -> None:
    bad, complaint = BAD[kind]
    with FakeEndpoint(bad, says(names("good"))).serving() as endpoint:
        assert Client(endpoint.config()).ask(ask_for("fox")) == [["good"]]
        first, second = endpoint.asked
        assert second.message.startswith(first.message)
        assert complaint in second.message
        assert len(second.message) < len(first.message) + 400
        assert second.body["seed"] == first.body["seed"] + 1


def test_bad_answers_are_told_and_not_kept_and_the_others_are() -> None:
    def picky(asked: Asked) -> Reply:
        return says('{"names": []}') if "bee" in asked.message else echo(asked)

    with FakeEndpoint(picky).serving() as endpoint:
        client = Client(endpoint.config(repairs=3))
        assert client.ask(ask_for("ant", "bee", "cow")) == [["ant"], BadAnswer("an empty list"), ["cow"]]
        assert len(endpoint.asked) == 2 + 4
        assert client.estimate(ask_for("ant", "bee", "cow")).requests == 1


def test_a_model_that_can_not_do_it_is_not_paid_for_all_questions() -> None:
    refusal = Reply(says("I would rather not").body, delay=0.02)
    with FakeEndpoint(refusal).serving() as endpoint:
        with pytest.raises(LanguageModelError, match=f"none of the first {GIVE_UP} questions"):
            Client(endpoint.config(repairs=0, concurrency=1)).ask(ask_for(*string.ascii_letters))
        assert len(endpoint.asked) < 2 * GIVE_UP


def test_a_server_without_the_newer_options_is_asked_without_them() -> None:
    def old(asked: Asked) -> Reply:
        return fails(400, "unknown field response_format") if "response_format" in asked.body else echo(asked)

    def new(asked: Asked) -> Reply:
        if "max_tokens" in asked.body:
            return fails(400, "Unsupported parameter: use 'max_completion_tokens' instead of 'max_tokens'")
        assert asked.body["max_completion_tokens"] == 77
        return echo(asked)

    for behaviour in (old, new):
        with FakeEndpoint(behaviour).serving() as endpoint:
            config = endpoint.config(max_answer_tokens=77, cache=behaviour.__name__, concurrency=2)
            assert Client(config).ask(ask_for("ant", "bee", "cow", "dog"))[3] == ["dog"]
            assert len(endpoint.asked) <= 4 + 2  # two were under way when the first refusal came


def test_a_server_that_needs_no_key_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeEndpoint(echo).serving() as endpoint:
        assert Client(endpoint.config(api_key_env=None)).ask(ask_for("fox")) == [["fox"]]
        assert KEY not in str(endpoint.asked)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_without_its_key_nothing_is_sent(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAKE_KEY") if value is None else monkeypatch.setenv("FAKE_KEY", value)
    with FakeEndpoint(echo).serving() as endpoint:
        client = Client(endpoint.config())
        assert client.estimate(ask_for("fox")).requests == 1
        with pytest.raises(LanguageModelError, match="FAKE_KEY holds no key"):
            client.ask(ask_for("fox"))
        assert not endpoint.asked


def test_the_key_is_nowhere_but_in_the_request(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The endpoint repeats it wherever it can, and every logger tells all it knows."""
    caplog.set_level(logging.DEBUG)
    for logger in ("openai", "httpx", "httpx2", "httpcore"):
        caplog.set_level(logging.DEBUG, logger)
    told = ""
    replies = (
        fails(401, f"bad key {KEY}"),
        fails(404, f"bad key {KEY}"),
        fails(500, KEY),
        Reply(KEY.encode()),
        says(KEY),
        says(json.dumps({KEY: [KEY]})),
        says(names(KEY)),
    )
    for reply in replies:
        with FakeEndpoint(reply).serving() as endpoint:
            client = Client(endpoint.config(retries=0, repairs=0))
            try:
                told += repr((client, client.__dict__, client.ask(ask_for("fox"))))
            except LanguageModelError as error:
                told += repr(error) + "".join(traceback.format_exception(error))
            assert KEY in endpoint.asked[0].headers["authorization"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    written = "".join(path.read_text() + str(path) for path in files)
    assert "***" in written  # the answer that was kept held the key
    captured = capsys.readouterr()
    for output in (told, written, caplog.text, captured.out, captured.err):
        assert KEY not in output


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_key_env", KEY),
        ("base_url", f"https://user:{KEY}@host/v1"),
        ("base_url", f"https://{KEY}@host/v1"),
        ("base_url", f"https://host/v1?key={KEY}"),
        ("base_url", "host/v1"),
        ("base_url", "file:///etc/passwd"),
        ("base_url", "http://[::1/v1"),
        ("timeout", 0.0),
        ("max_tokens", 0),
        ("retries", -1),
        ("requests_per_minute", 0.0),
    ],
)
def test_a_setting_out_of_range_is_named_and_a_key_in_it_is_not(field: str, value: Any) -> None:
    with pytest.raises(FieldError) as raised:
        LanguageModelConfig(**{field: value})
    assert raised.value.field == field
    tree = "hierarchy.trees.mine"
    settings = [f"{tree}.kind=llm", f"{tree}.file=a.yaml", f"{tree}.endpoint.{field}={value}"]
    with pytest.raises(ConfigError, match=f"{tree}.endpoint.{field}".replace(".", r"\.")) as composed:
        compose("quickstart", settings)
    assert KEY not in str(raised.value) + str(composed.value)


def test_a_budget_is_never_overspent_and_all_of_it_is_used() -> None:
    with FakeEndpoint(SLOWLY).serving() as endpoint:  # 100 tokens an answer
        config = endpoint.config(max_tokens=560, max_answer_tokens=150, concurrency=4)
        client = Client(config)
        with pytest.raises(LanguageModelError, match=r"raise max_tokens.* of 20 answers are kept"):
            client.ask(ask_for(*string.ascii_lowercase[:20]))
        kept = client.estimate(ask_for(*string.ascii_lowercase[:20])).cached
        assert kept == len(endpoint.asked) == 4  # a fifth may need 174 of the 160 that are left
        assert client.budget.spent == 400
        assert len(Client(endpoint.config(max_tokens=None)).ask(ask_for(*string.ascii_lowercase[:20]))) == 20
        assert len(endpoint.asked) == 20


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), max_size=30), st.integers(1, 300))
def test_a_budget_holds_for_any_order_of_bills(requests: list[tuple[int, float]], limit: int) -> None:
    budget, spent = Budget(limit), 0
    for most, share in requests:
        used = int(most * share)
        if spent + most > limit:
            with pytest.raises(LanguageModelError), budget.setting_aside(most):
                pass
            continue
        with budget.setting_aside(most) as bill:
            bill.tokens = used
        spent += used
        assert budget.spent == spent <= limit


def test_who_waits_for_a_budget_gets_what_others_give_back() -> None:
    budget, entered = Budget(100), threading.Event()

    def other() -> None:
        with budget.setting_aside(60) as bill:
            entered.set()
            time.sleep(0.1)
            bill.tokens = 10

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    with budget.setting_aside(60) as bill:
        bill.tokens = 60
    thread.join()
    assert budget.spent == 70


def test_an_estimate_counts_what_is_still_to_be_asked() -> None:
    with FakeEndpoint(echo).serving() as endpoint:
        client = Client(endpoint.config(input_price=2.0, output_price=10.0))
        asked = ask_for("ant", "bee", "cow")
        estimate = client.estimate(asked)
        assert not endpoint.asked
        sent = sum(tokens(question.message()) for question in asked)
        assert sent <= estimate.input_tokens <= sent + 3 * 20
        assert (estimate.requests, estimate.cached, estimate.output_tokens) == (3, 0, 60)
        assert estimate.cost == pytest.approx(2e-6 * estimate.input_tokens + 1e-5 * 60)
        client.ask(asked[:2])
        estimate = client.estimate(asked)
        assert (estimate.requests, estimate.cached, estimate.output_tokens) == (1, 2, 20)
        assert Client(endpoint.config()).estimate(asked).cost is None


def test_requests_start_at_the_pace_that_is_set() -> None:
    with FakeEndpoint(echo).serving() as endpoint:
        started = time.monotonic()
        Client(endpoint.config(requests_per_minute=600, concurrency=6)).ask(ask_for(*"abcdef"))
        assert time.monotonic() - started >= 5 * 0.1


def test_a_rest_is_everybodys() -> None:
    pace = Pace(6e5)
    started = time.monotonic()
    pace.rest(0.3)
    threads = [threading.Thread(target=pace.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    pace.rest(0.1)  # does not cut short what was asked for before
    for thread in threads:
        thread.join()
        assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("failures", range(1, 12))
def test_pauses_double_and_scatter_and_honour_what_was_asked_for(failures: int) -> None:
    whole = min(0.5 * 2 ** (failures - 1), LONGEST_PAUSE)
    drawn = [pause(failures, None) for _ in range(50)]
    assert all(whole / 2 <= seconds <= whole for seconds in drawn)
    assert len(set(drawn)) > 25
    assert all(pause(failures, 90.0) == 90.0 for _ in range(5))


def test_retry_after_is_a_number_or_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after({}) is None
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after": "-3"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": format_datetime(later, usegmt=True)}) == pytest.approx(90, abs=3)
    assert retry_after({"retry-after": "Fri, 01 Jan 1999 00:00:00 GMT"}) == 0.0


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_clean_text_is_one_bounded_line_of_what_was_said(text: str) -> None:
    try:
        cleaned = clean(text, 50)
    except ValueError:
        return
    assert 0 < len(cleaned) <= 50
    assert cleaned == clean(cleaned, 50) == unicodedata.normalize("NFC", cleaned)
    assert all(each == " " or unicodedata.category(each)[0] not in "CZ" for each in cleaned)
    words = "".join(unicodedata.normalize("NFC", text).split())
    assert cleaned.replace(" ", "") == "".join(each for each in words if unicodedata.category(each)[0] != "C")


def test_clean_text_by_example() -> None:
    assert clean("  cafe\u0301\n\tau \u202elait\x00 ", 12) == "caf\u00e9 au lait"
    for text, problem in ((" \u200b ", "empty"), ("x" * 13, "13 characters, and 12 are allowed")):
        with pytest.raises(ValueError, match=problem):
            clean(text, 12)


@pytest.mark.parametrize("fenced", ["{}", "```json\n{}\n```", "```\n{}```", " \n{}\n"])
def test_json_may_stand_in_a_code_fence(fenced: str) -> None:
    assert read_json(fenced.replace("{}", names("fox")), dict[str, list[str]]) == {"names": ["fox"]}


@pytest.mark.parametrize(
    ("text", "part"), [("Name $other", "'other'"), ("It costs $5", "place"), ("A place in the end: $", "place")]
)
def test_a_prompt_with_a_place_that_nothing_fills(text: str, part: str) -> None:
    question = Question(Prompt("mine", text), {"thing": "fox"}, read, 20)
    with pytest.raises(LanguageModelError, match=part) as raised:
        Client(LanguageModelConfig()).estimate([question])
    assert "'mine'" in str(raised.value)
    assert "$thing" in str(raised.value)


def test_what_fills_a_place_is_not_looked_into() -> None:
    assert PROMPT.fill({"thing": "$thing {0} %s ${HOME}"}) == "Three names for $thing {0} %s ${HOME}, as JSON."
