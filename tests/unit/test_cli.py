"""The command line: quick answers, one sentence for an error, the right exit code."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from configs.compose import Composed, compose
from configs.errors import UserError
from configs.layers import experiment_names
from experiments import verbs
from experiments.cli import main, parse
from experiments.costs.accelerators import Machine

HEAVY = ("torch", "lightning", "numpy", "matplotlib", "wandb", "open_clip")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "experiments", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["train", "quikstart"], 2),
        (["train", "quickstart", "trainer.stepz=3"], 2),
        (["evaluate", "--help"], 0),
        (["evaluate", "quickstart", "--attacks", "pgd20,apgd-ce,aa", "--eps", "1,2,400"], 2),
        (["show", "quickstart"], 0),
    ],
)
def test_help_and_configuration_errors_answer_in_a_second(arguments: list[str], code: int) -> None:
    """Processor seconds of the child: other processes on the machine do not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(*arguments).returncode == code
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["train", "quickstart", "x=1"],
        ["evaluate", "quickstart", "--attacks", "aa,pgd20", "--eps", "0"],
        ["show", "quickstart", "--origin"],
        ["show", "--list"],
    ],
)
def test_nothing_heavy_is_imported_on_the_quick_paths(argv: list[str]) -> None:
    code = (
        "import sys\nfrom experiments.cli import main\n"
        f"try:\n    main({argv!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ([], "VERB"),
        (["trian", "quickstart"], "did you mean 'train'?"),
        (["train"], "EXPERIMENT"),
        (["train", "quickstart", "--dryrun"], "--dryrun"),
        (["train", "quickstart", "--dry"], "--dry"),
        (["train", "quickstart", "optim.lr"], "key=value"),
        (["quickstart", "optim.lrr=1"], "optim.lr"),
        (["bench", "nothing"], "train-step"),
        (["report"], "OUTPUTS"),
        (["evaluate", "quickstart", "--attacks", "apgd-cee"], "did you mean 'apgd-ce'?"),
        (["evaluate", "quickstart", "--eps", "8/255"], "--eps"),
        (["evaluate", "quickstart", "--norm", "l3"], "--norm"),
        (["evaluate", "quickstart", "attack=auto_attack/standrd"], "did you mean 'auto_attack/standard'?"),
        (["train", "quickstart", "--attacks", "aa"], "--attacks"),
        (["report", "a", "b"], "b"),
        (["show"], "EXPERIMENT"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_two(
    argv: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert part in captured.err


def test_settings_and_options_come_in_any_order() -> None:
    arguments = parse(["train", "quickstart", "a=1", "--dry-run", "b=2", "c=3"])
    assert arguments.dry_run
    assert arguments.overrides == ["a=1", "b=2", "c=3"]
    assert parse(["quickstart", "--dry-run", "a=1"]).overrides == ["a=1"]


def test_evaluate_hands_on_the_attacks_of_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb itself is replaced: it loads torch, and other tests run it."""
    handed: list[Composed] = []

    def verb(name: str, _: str, composed: Composed, how: object) -> int:
        assert how == (Machine() if name == "plan" else None)
        handed.append(composed)
        return 0 if name == "plan" else 1

    monkeypatch.setattr(verbs, "_call", verb)
    assert main(["evaluate", "--attacks", "cw,aa", "quickstart", "seed=2", "--eps=2,1", "--dry-run"]) == 0
    assert list(handed[0].config.evaluation.attacks) == ["cw@1", "cw@2", "aa@1", "aa@2"]
    assert handed[0].config.seed == 2
    assert main(["evaluate", "quickstart", "seed=2"]) == 1
    assert handed[1] == compose("quickstart", ["seed=2"])


def test_two_parses_share_no_state() -> None:
    parse(["train", "quickstart", "--dry-run", "a=1"])
    assert parse(["train", "quickstart"]).overrides == []


@pytest.mark.parametrize(("raised", "code"), [(UserError("the disk is full"), 2), (KeyboardInterrupt(), 130)])
def test_what_a_verb_raises_becomes_an_exit_code(
    raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise raised

    monkeypatch.setattr(verbs, "_call", fail)
    assert main(["show", "quickstart"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_who_reads_no_further_hears_no_complaint() -> None:
    command = [sys.executable, "-m", "experiments", "show", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_show_prints_a_file_that_is_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--origin"]):
        assert main(["show", "quickstart", "attack.steps=3", "logging.tags=[a, b c]", *arguments]) == 0
        path = tmp_path / "shown.yaml"
        path.write_text(capsys.readouterr().out, encoding="utf-8")
        assert compose(path).config == compose("quickstart", ["attack.steps=3", "logging.tags=[a, b c]"]).config


def test_show_origin_says_who_set_each_key(capsys: pytest.CaptureFixture[str]) -> None:
    main(["show", "quickstart", "attack.steps=3", "--origin"])
    lines = {line.split("#")[0].strip(): line.partition("# ")[2] for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines["steps: 3"] == "command line"
    assert lines["near_ood:"] == "configs/data/openmoji.yaml"
    assert lines["nodes: 1"] == "schema default"


def test_show_list_names_every_shipped_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--list"]) == 0
    listed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in listed] == experiment_names()
    assert all(claim and not claim.startswith(("#", "Claim")) for _, claim in listed)


def test_every_verb_shows_an_example_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("train", "evaluate", "quickstart", "pack", "show", "report", "bench"):
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert caught.value.code == 0
        assert f"{verb} " in capsys.readouterr().out.partition("Example: ")[2]
