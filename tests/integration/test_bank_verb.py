"""The verb `bank`, from the command line to a bank that a run reads."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.compose import compose
from experiments.cli import main
from lightning_modules.antibodies import build, read_bank
from tests.conftest import CLASS_NAMES
from tests.unit.fake_endpoint import KEY, Asked, FakeEndpoint, Reply, fails, says

PATH = Path("banks/written.jsonl")


def writes(asked: Asked) -> Reply:
    """Two usable texts a class; one look-alike in three names the class itself."""
    batch = next(json.loads(line) for line in asked.message.splitlines() if line.startswith("["))
    if "impossible contexts" in asked.message:
        return says(json.dumps({name: [f"a {name} of smoke", "a {c} under water"] for name in batch}))
    return says(json.dumps({name: [f"stop sign {len(name)}", f"very {name}", "yellow squares"] for name in batch}))


@pytest.fixture
def experiment(experiment_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An experiment with a bank of a model and a lexicon, as the command line takes it; the endpoint is missing."""
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    path = experiment_file()
    content = json.loads(path.read_text())
    content["data"] |= {"kind": "open_world", "near_ood": ["near"], "far_ood": ["far"]}
    written = {"kind": "llm", "file": str(PATH), "look_alikes": 2, "contexts": 2, "batch": 4}
    content["antibodies"] = {"written": written, "lexicon": {"kind": "lexicon"}}
    path.write_text(json.dumps(content))
    settings = {"api_key_env": "FAKE_KEY", "model": "fake", "requests_per_minute": 6e5, "retries": 0, "timeout": 30}
    return [str(path), *(f"antibodies.written.endpoint.{key}={value}" for key, value in settings.items())]


def at(endpoint: FakeEndpoint) -> str:
    return f"antibodies.written.endpoint.base_url={endpoint.base_url}"


def test_a_bank_is_written_shown_compared_and_left_alone(
    experiment: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeEndpoint(writes).serving() as endpoint:
        command = ["bank", *experiment, at(endpoint), "--bank", "written"]
        assert main([*command, "--dry-run"]) == 0
        assert "4 requests (0 more are cached)" in capsys.readouterr().out
        assert not endpoint.asked
        assert not PATH.exists()

        assert main(command) == 0
        captured = capsys.readouterr()
        assert len(endpoint.asked) == 4
        assert "written: 6 texts of the model are left out: names the class itself" in captured.out
        assert "24 antibodies of 6 classes" in captured.out
        assert "look_alike: 12, for instance stop sign 10" in captured.out
        assert "kept " in captured.out
        assert "near: 1 of 2 concepts are named by 6 antibodies: 1 exactly (yellow square)" in captured.out
        assert "far: 0 of 2 concepts are named" in captured.out
        bank = read_bank(PATH, CLASS_NAMES, "written")
        assert {(each.model, each.generator) for each in bank.antibodies} == {("fake", "llm")}
        assert "a {c} of smoke" in {each.text for each in bank.antibodies}

        text = PATH.read_text()
        old = Path("old.jsonl")
        old.write_text(text)
        PATH.write_text(text.replace("stop sign 10", "road sign"))
        assert main([*command, "--dry-run", "--diff", str(old)]) == 0
        told = capsys.readouterr().out
        assert "left as it is" in told
        changed = text.count("stop sign 10")
        assert f"{changed} antibodies removed, {changed} added" in told
        source = compose(experiment[0], experiment[1:]).config.antibodies["written"]
        assert "road sign" in build(source, CLASS_NAMES, "written").captions
        assert len(endpoint.asked) == 4

        PATH.unlink()
        assert main(command) == 0
        assert PATH.read_text() == text
        assert len(endpoint.asked) == 4  # answers are paid for once
    everything = [file.read_text() for file in Path().rglob("*") if file.suffix in (".yaml", ".json", ".jsonl")]
    assert len(everything) >= 6
    assert KEY not in "".join(everything) + captured.out + captured.err


def test_what_broke_off_goes_on(experiment: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    one = "antibodies.written.endpoint.concurrency=1"
    with FakeEndpoint(writes, fails(500), writes).serving() as endpoint:
        command = ["bank", *experiment, at(endpoint), one, "--bank", "written"]
        assert main(command) == 2
        assert "1 of 4 answers are kept" in capsys.readouterr().err.splitlines()[-1]
        assert not PATH.exists()
        assert main(command) == 0
        assert len(endpoint.asked) == 5


def test_every_bank_is_shown(experiment: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    banks = ["antibodies.written=null", "antibodies.noise.kind=random", "antibodies.noise.per_class=2"]
    banks += ["antibodies.mined.kind=negative_mining", "antibodies.mined.candidates=20"]
    assert main(["bank", *experiment[:1], *banks]) == 0
    told = capsys.readouterr().out
    assert "lexicon (lexicon): 24 antibodies of 6 classes" in told  # WordNet has no red square: contexts alone
    assert "noise (random): 12 antibodies" in told
    assert "mined (negative_mining): 40 antibodies" in told
    kept = [line.split() for line in told.splitlines() if line.startswith("kept")]
    assert kept[1][1:3] == ["3", "3"]
    assert told.count("overlap with OOD concepts") == 2


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--bank", "lexikon"], "did you mean 'lexicon'?"),
        (["antibodies=null"], "the experiment has no bank"),
        (["--diff", "x.jsonl"], "choose it with --bank"),
        (["--bank", "lexicon", "--diff", "x.jsonl"], "the bank x.jsonl can't be read"),
        (["antibodies.written.endpoint.api_key_env=ABSENT_KEY"], "ABSENT_KEY holds no key"),
        (["antibodies.written.endpoint.max_tokens=100"], "raise max_tokens"),
        (["antibodies.written.prompt=v0"], "must be one of v1"),
        (
            [
                "--bank",
                "lexicon",
                *(f"antibodies.lexicon.selection.band.{key}" for key in ("scale=absolute", "safe=0.999")),
            ],
            "antibodies.lexicon.selection.band.risk must be above safe",
        ),
        (
            [
                "--bank=lexicon",
                *(f"antibodies.lexicon.selection.band.{key}" for key in ("scale=absolute", "safe=0.9999", "risk=1")),
            ],
            "drops every antibody of 'red square'",
        ),
    ],
)
def test_what_can_not_be_done_is_told_in_a_line(
    arguments: list[str], part: str, experiment: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeEndpoint(writes).serving() as endpoint:
        assert main(["bank", *experiment, at(endpoint), *arguments]) == 2
        assert not endpoint.asked
    assert part in capsys.readouterr().err.splitlines()[-1]
