"""What can go wrong while training: one sentence, a state that can be resumed, nothing lost."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from configs.compose import compose
from configs.errors import CheckpointError, TrainingError
from datamodules import build_datamodule
from experiments.cli import main
from experiments.runs import Run
from experiments.train import train
from tests.integration.runs import Fault, faulty, logged, saved_step

Experiment = Callable[..., Path]
TRAINER = {"steps": 12, "accelerator": "cpu", "checkpoint_every": 2, "log_every": 1, "threads": 1}
EXPLODES = {"kind": "sgd", "lr": 1e30}  # finite at step 1, not a number at step 2


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_loss_that_is_not_finite_stops_and_names_step_and_samples(
    experiment_file: Experiment, log_every: int
) -> None:
    """Also where losses are looked at every fourth step only; and the bad state is never saved."""
    trainer = TRAINER | {"log_every": log_every, "checkpoint_every": log_every}
    composed = compose(experiment_file(optim=EXPLODES, trainer=trainer))
    run, config = Run.of(composed), composed.config
    with pytest.raises(TrainingError) as caught:
        train(composed)
    datamodule = build_datamodule(config.data, config.seed)
    keys = [f"train-{index:04d}" for index in datamodule.train_plan.batch(0, 1)]
    message = str(caught.value)
    assert "the loss of step 2 is nan" in message
    assert ", ".join(keys) in message
    assert (str(run.checkpoint) in message) == run.checkpoint.exists() == (log_every == 1)
    assert run.status is not None
    assert (run.status.state, run.status.message) == ("failed", message)
    if run.checkpoint.exists():
        saved = torch.load(run.checkpoint, weights_only=True)
        assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_weights_that_overflow_are_not_saved(experiment_file: Experiment) -> None:
    """The loss of the step before is still finite."""
    steep = {"kind": "robust_finetuning", "objective": {"kind": "tecoa", "logit_scale": 1e4}}
    huge = {"kind": "sgd", "lr": 3e38}
    composed = compose(experiment_file(module=steep, optim=huge, trainer=TRAINER | {"checkpoint_every": 1}))
    with pytest.raises(TrainingError, match="weights are not finite after step 1"):
        train(composed)
    assert not Run.of(composed).checkpoint.exists()


def cut_at(experiment: Path, step: int) -> Run:
    """A run that lost its power after this step."""
    composed = compose(experiment)
    with faulty(Fault(step)), pytest.raises(RuntimeError, match="power cut"):
        train(composed)
    return Run.of(composed)


def test_a_full_disk_leaves_the_earlier_checkpoint(experiment_file: Experiment) -> None:
    """/dev/full takes the place of the file that the checkpoint is first written to."""
    experiment = experiment_file(trainer=TRAINER)
    run = cut_at(experiment, 3)
    before = run.checkpoint.read_bytes()
    run.checkpoint.with_name("last.ckpt.partial").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"can't be written .*the last good checkpoint is .*free some space"):
        train(compose(experiment))
    assert run.checkpoint.read_bytes() == before
    assert saved_step(run) == 2
    assert list(run.checkpoint.parent.iterdir()) == [run.checkpoint]
    assert train(compose(experiment)) == 0  # with space again
    assert list(logged(run)) == list(range(1, 13))


class Payload:
    """Code in a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("damage", ["truncated", "another configuration's", "code"])
def test_a_bad_checkpoint_is_refused_and_kept(experiment_file: Experiment, tmp_path: Path, damage: str) -> None:
    experiment = experiment_file(trainer=TRAINER)
    run = cut_at(experiment, 3)
    content = run.checkpoint.read_bytes()
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "code":
        content = pickle.dumps(Payload(tmp_path / "executed"), protocol=2)
    else:
        content = cut_at(experiment_file("other", trainer=TRAINER | {"steps": 13}), 3).checkpoint.read_bytes()
    run.checkpoint.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.ckpt .*remove"):
        train(compose(experiment))
    assert run.checkpoint.read_bytes() == content
    assert not (tmp_path / "executed").exists()


def test_the_command_line_prints_one_sentence(experiment_file: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(experiment_file(optim=EXPLODES, trainer=TRAINER))]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "the loss of step 2 is nan" in errors[0]
