"""The `train` verb in process: what it writes, and what it leaves alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from configs.compose import compose
from configs.errors import ConfigError
from configs.schema.model import ModelConfig
from experiments.costs.accelerators import Machine
from experiments.costs.passes import passes
from experiments.plan import plan
from experiments.runs import Run
from experiments.train import train
from lightning_modules.backbones import Backbone, load_backbone
from tests.integration.runs import column, logged, same, weights

Experiment = Callable[..., Path]
QUICK = {"steps": 3, "accelerator": "cpu", "checkpoint_every": 2, "log_every": 1, "threads": 1}


def test_a_run_leaves_model_metrics_checkpoint_and_configuration(experiment_file: Experiment, tiny_vit: str) -> None:
    composed = compose(experiment_file(trainer=QUICK))
    assert train(composed) == 0
    run = Run.of(composed)
    assert run.finished
    assert list(logged(run)) == [1, 2, 3]
    assert compose(run.folder / "config.yaml").hash == composed.hash
    assert run.checkpoint.exists()

    before, after = weights(Path(tiny_vit.removeprefix("local-dir:"))), weights(run.model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("visual.") for name in changed)
    tower = {f"backbone.clip.{name}" for name in before if name.startswith("visual.")}
    assert set(torch.load(run.checkpoint, weights_only=True)["state_dict"]) == tower


def test_a_finished_run_is_not_touched_again(experiment_file: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    composed = compose(experiment_file(trainer=QUICK))
    assert train(composed) == 0
    run = Run.of(composed)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert train(composed) == 0
    assert f"finished already: {run.folder}" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("module", "attack"),
    [
        ({"kind": "tecoa", "clean_weight": 0.5}, {"kind": "pgd", "norm": "l2", "eps_255": 128, "steps": 1}),
        ({"kind": "fare"}, {"kind": "apgd", "steps": 2}),
        ({"kind": "fare", "clean_weight": 1.0}, {"kind": "none"}),
    ],
)
def test_any_objective_with_any_attack(
    experiment_file: Experiment, module: dict[str, object], attack: dict[str, object]
) -> None:
    section = {"kind": "robust_finetuning", "objective": module}
    composed = compose(experiment_file(module=section, attack=attack, trainer=QUICK | {"validate_every": 3}))
    assert train(composed) == 0
    run = Run.of(composed)
    assert column(run, "train/loss").isfinite().all()
    assert float(logged(run)[3]["val/clean_accuracy"]) >= float(logged(run)[3]["val/robust_accuracy"]) - 0.2


def test_training_with_one_tree_of_a_forest_is_training_with_that_tree(experiment_file: Experiment) -> None:
    def trained(name: str, trees: dict[str, object], chosen: list[str] | None) -> Run:
        module = {"kind": "robust_finetuning", "objective": {"kind": "hierarchical", "trees": chosen}}
        composed = compose(experiment_file(name, module=module, hierarchy={"trees": trees}, trainer=QUICK))
        assert train(composed) == 0
        return Run.of(composed)

    colours, twin = {"kind": "data"}, {"kind": "data", "name": "colours"}
    alone = trained("alone", {"twin": twin}, None)
    chosen = trained("chosen", {"colours": colours, "twin": twin}, ["twin"])
    both = trained("both", {"colours": colours, "twin": twin}, None)
    assert same(weights(alone.model), weights(chosen.model))
    assert not same(weights(alone.model), weights(both.model))


def test_the_text_tower_runs_once_a_run(experiment_file: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    embed_text = Backbone.embed_text

    def counted(self: Backbone, texts: list[str]) -> torch.Tensor:
        calls.append(len(texts))
        return embed_text(self, texts)

    monkeypatch.setattr(Backbone, "embed_text", counted)
    assert train(compose(experiment_file(trainer=QUICK | {"validate_every": 2}))) == 0
    assert calls == [6 * 2]  # classes x templates


@pytest.mark.parametrize("objective", ["tecoa", "fare"])
def test_accumulated_batches_are_one_big_batch(experiment_file: Experiment, objective: str, tiny_dataset: Path) -> None:
    """With SGD, which is linear in the gradient; Adam divides small sums of rounding errors by each other."""
    runs = []
    for batch_size, accumulate in ((8, 1), (4, 2)):
        composed = compose(
            experiment_file(
                data={"kind": "classification", "folder": str(tiny_dataset), "batch_size": batch_size, "workers": 0},
                module={"kind": "robust_finetuning", "objective": {"kind": objective}},
                optim={"kind": "sgd", "lr": 0.01},
                trainer=QUICK | {"accumulate": accumulate},
            )
        )
        assert train(composed) == 0
        runs.append(Run.of(composed))
    one, two = runs
    for name in ("train/loss", "train/robust_accuracy", "train/clean_accuracy", "train/perturbation_l2"):
        torch.testing.assert_close(column(one, name), column(two, name), rtol=1e-3, atol=1e-5)
    for name, value in weights(one.model).items():
        torch.testing.assert_close(weights(two.model)[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_reduced_precision_trains_and_respects_the_budget(experiment_file: Experiment, precision: str) -> None:
    composed = compose(
        experiment_file(
            trainer=QUICK | {"precision": precision, "steps": 24}, optim={"lr": 0.01, "schedule": "constant"}
        )
    )
    assert train(composed) == 0
    run = Run.of(composed)
    losses = column(run, "train/loss")
    assert losses.isfinite().all()
    assert losses[-6:].mean() < losses[:6].mean()
    assert column(run, "train/perturbation_linf_255").max() <= 8 + 1e-4
    start, end = load_backbone(composed.config.model), load_backbone(ModelConfig(f"local-dir:{run.model}"))
    moved = [torch.equal(one, two) for one, two in zip(start.visual.parameters(), end.visual.parameters(), strict=True)]
    assert not any(moved)


def test_contrastive_pretraining_goes_through_the_same_verb(experiment_file: Experiment, tiny_dataset: Path) -> None:
    composed = compose(
        experiment_file(
            data={"kind": "image_text", "folder": str(tiny_dataset), "batch_size": 8, "workers": 0},
            module={"kind": "contrastive_pretraining"},
            attack={"kind": "none"},
            trainer=QUICK | {"validate_every": 3},
        )
    )
    assert train(composed) == 0
    run = Run.of(composed)
    assert column(run, "train/loss").isfinite().all()
    assert float(logged(run)[3]["val/loss"]) > 0


def test_a_dry_run_tells_and_writes_nothing(experiment_file: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    composed = compose(experiment_file())
    assert plan(composed, Machine()) == 0
    told = capsys.readouterr().out
    for fact in (str(composed.run_folder), composed.hash, "'train': 96", "3 forward, 3 backward", "160"):
        assert fact in told
    assert not composed.run_folder.exists()


def test_a_dry_run_needs_no_data(
    experiment_file: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"kind": "classification", "folder": str(tmp_path / "later"), "pack": {"source": "openmoji"}}
    assert plan(compose(experiment_file(data=data)), Machine()) == 0
    assert "not yet; training packs it first" in capsys.readouterr().out
    assert not (tmp_path / "later").exists()


def test_passes_are_what_the_step_does(experiment_file: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted on the image tower, without reports."""
    forwards = []
    embed_image = Backbone.embed_image

    def counted(self: Backbone, pixels: torch.Tensor) -> torch.Tensor:
        forwards.append(len(pixels))
        return embed_image(self, pixels)

    monkeypatch.setattr(Backbone, "embed_image", counted)
    module = {"kind": "robust_finetuning", "objective": {"kind": "tecoa", "clean_weight": 1.0}}
    attack = {"kind": "pgd", "steps": 3, "restarts": 2}
    composed = compose(experiment_file(module=module, attack=attack, trainer=QUICK | {"log_every": 100}))
    assert train(composed) == 0
    assert len(forwards) == 3 * passes(composed.config).forwards


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_devices_that_the_machine_lacks_are_one_sentence(experiment_file: Experiment) -> None:
    with pytest.raises(ConfigError, match="do not fit this machine"):
        train(compose(experiment_file(trainer=QUICK | {"accelerator": "gpu"})))


def test_equal_configurations_train_equal_models(experiment_file: Experiment, tmp_path: Path) -> None:
    one = compose(experiment_file(trainer=QUICK))
    two = compose(experiment_file(trainer=QUICK, output=str(tmp_path / "elsewhere")))
    assert train(one) == train(two) == 0
    assert logged(Run.of(one)) == logged(Run.of(two))
    assert same(weights(Run.of(one).model), weights(Run.of(two).model))


@pytest.mark.slow
def test_weights_and_biases_mirrors_a_run_without_an_account(experiment_file: Experiment, tmp_path: Path) -> None:
    """And changes nothing: the run has the hash and the figures of the same run without it."""
    plain = compose(experiment_file(trainer=QUICK))
    mirrored = compose(experiment_file(trainer=QUICK, output=str(tmp_path / "b"), logging={"wandb": "offline"}))
    assert plain.hash == mirrored.hash
    assert train(plain) == train(mirrored) == 0
    assert logged(Run.of(plain)) == logged(Run.of(mirrored))
    assert len(list(Run.of(mirrored).folder.glob("wandb/offline-run-*/run-tiny-*.wandb"))) == 1
