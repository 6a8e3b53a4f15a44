"""Antibodies and banks: what a text becomes, files, differences, what a run keeps."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from configs.compose import compose
from configs.errors import ConfigError, DataError, FieldError
from configs.schema.antibodies import Band, BandSelection, FileBank, LexiconBank, LLMBank, RandomBank
from lightning_modules.antibodies import (
    Antibody,
    Bank,
    Selection,
    build,
    diff,
    points,
    read_bank,
    write_bank,
    write_folder,
)
from lightning_modules.antibodies.antibody import LONGEST

CLASSES = ("fox", "rowing boat")
LINE: dict[str, Any] = {"class": "fox", "family": "look_alike", "text": "coyote", "generator": "llm"}


def antibodies(*texts: str, owner: str | None = "fox") -> tuple[Antibody, ...]:
    return tuple(Antibody(owner, "look_alike", text, "file") for text in texts)


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("coyote", "coyote"),
        ("a {c} under water", "rowing boat under water"),
        ("The {c}", "rowing boat"),
        ("{c} on an anthill", "rowing boat on an anthill"),
        ("antique chair", "antique chair"),
    ],
)
def test_a_caption_fits_a_template(text: str, caption: str) -> None:
    assert Antibody("rowing boat", "x", text, "file").caption == caption


@pytest.mark.parametrize(("owner", "text"), [(None, "a {c} at sea"), ("fox", "{c} beside {c}")])
def test_a_place_that_can_not_be_filled(owner: str | None, text: str) -> None:
    with pytest.raises(ValueError, match=r"\{c\}"):
        Antibody(owner, "x", text, "file")


lines = st.builds(
    Antibody,
    class_name=st.sampled_from([None, *CLASSES]),
    family=st.sampled_from(["look_alike", "style"]),
    text=st.text("abc é'\"\\{}", min_size=1, max_size=20)
    .map(lambda text: f"x{text}".strip())
    .map(lambda text: " ".join(text.replace("{c}", "").split())),
    generator=st.just("llm"),
    model=st.none() | st.just("m"),
    prompt_hash=st.none() | st.just("0f"),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(lines, min_size=1, max_size=6))
def test_a_file_gives_back_the_bank(tmp_path_factory: pytest.TempPathFactory, written: list[Antibody]) -> None:
    path = tmp_path_factory.mktemp("bank") / "bank.jsonl"
    bank = Bank("b", CLASSES, tuple(written))
    write_bank(path, bank)
    found = read_bank(path, CLASSES, "b")
    assert found == bank
    assert found.digest == bank.digest
    assert len(path.read_text().splitlines()) == len(bank)


def test_a_digest_is_of_the_content() -> None:
    bank = Bank("a", CLASSES, antibodies("coyote", "dhole"))
    assert Bank("b", CLASSES, bank.antibodies).digest == bank.digest
    assert Bank("a", CLASSES, bank.antibodies[::-1]).digest != bank.digest
    assert Bank("a", CLASSES, antibodies("coyote", "dhole", owner="rowing boat")).digest != bank.digest


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"text": ""}, "an empty text at 'text'"),
        ({"text": "x" * 10_000}, f"10,000 characters, and {LONGEST} are allowed"),
        ({"text": 3}, "no text at 'text'"),
        ({"family": None}, "no text at 'family'"),
        ({"class": ["fox"]}, "no text at 'class'"),
        ({"text": "{c} and {c}"}, r"more than one \{c\}"),
        ({"class": None, "text": "a {c}"}, "no class to put there"),
    ],
)
def test_a_malformed_line_is_named(changed: dict[str, Any], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n\n{json.dumps(LINE | changed)}\n")
    with pytest.raises(DataError, match=rf"bank\.jsonl, line 3 has .*{problem}") as raised:
        read_bank(path, CLASSES, "b")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("line", ["{", "[1]", '"fox"', "nonsense", "[" * 100_000])
def test_a_line_that_is_no_object(line: str, tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{line}\n")
    with pytest.raises(DataError, match="line 2 is no JSON"):
        read_bank(path, CLASSES, "b")


def test_a_line_without_a_key_and_a_file_without_a_line(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    path.write_text(json.dumps({key: value for key, value in LINE.items() if key != "family"}))
    with pytest.raises(DataError, match="no key 'family'"):
        read_bank(path, CLASSES, "b")
    path.write_text("\n")
    with pytest.raises(DataError, match="holds no antibody"):
        read_bank(path, CLASSES, "b")
    with pytest.raises(DataError, match="can't be read"):
        read_bank(tmp_path / "absent.jsonl", CLASSES, "b")


def test_a_bank_for_other_classes_names_some(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    names = ["fox", "elk", "cow", "hen", "ape", "ox", "emu"]
    path.write_text("".join(json.dumps(LINE | {"class": name}) + "\n" for name in names))
    with pytest.raises(DataError, match="for other classes: 'elk', 'cow', 'hen', 'ape', 'ox' and 1 more"):
        read_bank(path, CLASSES, "b")


def test_a_text_is_tidied(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    path.write_text(json.dumps(LINE | {"text": "  mane\u0301d\u200b \n wo\u0000lf "}))
    assert read_bank(path, CLASSES, "b").captions == ["man\u00e9d wolf"]


def test_what_changed_is_told_in_order() -> None:
    before = Bank("a", CLASSES, antibodies("coyote", "dhole", "dhole", "lynx"))
    after = Bank("b", CLASSES, antibodies("lynx", "jackal", "dhole"))
    found = diff(before, after)
    assert [each.text for each in found.removed] == ["coyote", "dhole"]
    assert [each.text for each in found.added] == ["jackal"]
    assert str(found).splitlines()[0] == "2 antibodies removed, 1 added"
    assert not diff(before, before).removed
    assert str(diff(after, before)).count("+ ") == 2


def test_owners_and_what_is_left_without_some() -> None:
    bank = Bank("a", CLASSES, (*antibodies("kayak", owner="rowing boat"), *antibodies("mud", owner=None)))
    assert bank.owners == [1, -1]
    assert bank.bare == ["fox"]
    left = bank.without(torch.tensor([True, False]))
    assert left.captions == ["mud"]
    assert left.owners == [-1]
    assert left.class_names == bank.class_names


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("b.yaml", "fox: [coyote, a dhole]\n", [("fox", "coyote"), ("fox", "a dhole")]),
        ("b.json", '{"rowing boat": ["kayak"], "fox": ["no"]}', [("rowing boat", "kayak"), ("fox", "no")]),
        ("b.txt", "# by me\nmud\n\n  old   shoe \n", [(None, "mud"), (None, "old shoe")]),
        ("b.jsonl", json.dumps(LINE), [("fox", "coyote")]),
    ],
)
def test_what_a_person_wrote(name: str, content: str, expected: list[tuple[Any, str]], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    bank = build(FileBank(path=str(tmp_path / name), family="mine"), CLASSES, "b")
    assert [(each.class_name, each.text) for each in bank.antibodies] == expected


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("b.yaml", "elk: [cow]\n", "for other classes: 'elk'"),
        ("b.yaml", "fox: coyote\n", "no list of texts at 'fox'"),
        ("b.yaml", "fox: ['a {c} and {c}']\n", "more than one"),
        ("b.txt", "a {c}\n", "no class to put there"),
        ("b.txt", "x" * 101, "101 characters"),
        ("b.txt", "# nothing\n", "holds no text"),
        ("b.txt", b"\xff\xfe\x00", "can't be read"),
    ],
)
def test_what_a_person_can_not_write(name: str, content: str | bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=problem):
        build(FileBank(path=str(tmp_path / name)), CLASSES, "b")


def test_a_model_has_to_be_asked_first_and_for_every_class(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    with pytest.raises(ConfigError, match=r"antibodies\.mine\.file=.* write it with `python -m experiments bank`"):
        build(LLMBank(file=str(path)), CLASSES, "mine")
    path.write_text(json.dumps(LINE))
    with pytest.raises(DataError, match="no antibody for 'rowing boat'"):
        build(LLMBank(file=str(path)), CLASSES, "mine")


def test_noise_is_on_the_sphere_and_follows_its_seed() -> None:
    def never(_: Any) -> torch.Tensor:
        raise AssertionError

    bank = build(RandomBank(per_class=500), CLASSES, "noise")
    assert bank.owners == [0] * 500 + [1] * 500
    found = points(RandomBank(per_class=500), bank, never, 64)
    assert torch.allclose(found.norm(dim=1), torch.ones(1000))
    assert found.mean(dim=0).abs().max() < 5 / 64**0.5 / 1000**0.5  # five standard deviations
    assert torch.equal(found, points(RandomBank(per_class=500), bank, never, 64))
    assert not torch.equal(found, points(RandomBank(per_class=500, seed=1), bank, never, 64))


def test_captions_are_encoded_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("lightning_modules.antibodies.build"), "CHUNK", 2)
    seen: list[str] = []

    def encode(captions: Any) -> torch.Tensor:
        start = len(seen)
        seen.extend(captions)
        return torch.arange(start, len(seen))[:, None].float()

    bank = Bank("b", CLASSES, antibodies(*"abcde"))
    found = points(FileBank(), bank, encode, 1)
    assert seen == bank.captions
    assert found.flatten().tolist() == [0, 1, 2, 3, 4]


def test_a_run_keeps_texts_features_and_verdicts(tmp_path: Path) -> None:
    bank = Bank("mine", CLASSES, (*antibodies("coyote", "dhole"), *antibodies("mud", owner=None)))
    features = torch.randn(3, 4)
    own, nearest = torch.tensor([0.5, 0.25, float("nan")]), torch.tensor([0.5, 0.75, 0.125])
    verdict = Selection(torch.tensor([True, False, True]), own, nearest, [None, "far: 0.250 to its class", None])
    write_folder(tmp_path / "mine", bank, features, verdict)
    written = [json.loads(line) for line in (tmp_path / "mine/bank.jsonl").read_text().splitlines()]
    assert [line["kept"] for line in written] == [True, False, True]
    assert [line["own"] for line in written] == [0.5, 0.25, None]
    assert written[1]["reason"] == "far: 0.250 to its class"
    assert read_bank(tmp_path / "mine/bank.jsonl", CLASSES, "mine").digest == bank.digest
    with safe_open(tmp_path / "mine/features.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("features"), features)
        assert file.get_tensor("owners").tolist() == [0, 0, -1]
        assert file.get_tensor("kept").tolist() == [1, 0, 1]
        assert file.metadata()["digest"] == bank.digest
    card = (tmp_path / "mine/card.md").read_text()
    assert bank.digest in card
    assert "too far from its class" in card


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("antibodies.b.kind=lexicography", "must be one of lexicon, negative_mining, random, file, llm"),
        ("antibodies.b.path=x", r"unknown key 'antibodies.b.path' with kind=lexicon .* kind=file has it"),
        ("antibodies.b.selection.band.safe=0.95", r"antibodies.b.selection.band.risk must be above safe=0.95"),
        ("antibodies.b.selection.band.safe=-0.1", r"selection.band.safe must be in \[0, 1\]"),
        ("antibodies.b.selection.duplicates=2", r"selection.duplicates must be in \(0, 1\] or null"),
        ("antibodies.b.templates=[a photo]", "without a {c}"),
        ("antibodies.b.look_alikes=-1", "look_alikes must be >= 0"),
    ],
)
def test_settings_are_checked_where_they_are_made(setting: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        compose("quickstart", ["antibodies.b.kind=lexicon", setting])


def test_a_bank_is_composed() -> None:
    settings = ["antibodies.b.kind=lexicon", "antibodies.b.selection.bands.style.safe=0.3"]
    found = compose("quickstart", settings).config.antibodies["b"]
    assert found == LexiconBank(selection=BandSelection(bands={"style": Band(safe=0.3)}))
    with pytest.raises(FieldError, match="leaves no antibody"):
        LLMBank(look_alikes=0, contexts=0)
