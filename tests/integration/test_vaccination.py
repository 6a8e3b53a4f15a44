"""Vaccination on the shapes and on toy embeddings: what it reads, what it does to embeddings, that it repeats."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import CLASS_NAMES, ExperimentFile
from torch import Tensor

from configs.compose import compose
from configs.errors import ConfigError, UserError
from configs.schema import ExperimentConfig
from configs.schema.attack import NoAttack
from configs.schema.logging import LoggingConfig
from configs.schema.module import NoFinetuning
from configs.schema.trainer import TrainerConfig
from configs.schema.vaccination import FeatureAttack, TextPrototypes, VaccinationConfig, VisualPrototypes
from datamodules import build_datamodule
from datamodules.classification import ClassificationDataModule
from datamodules.folder import DataFolder
from experiments.runs import Run
from experiments.tracking.mirror import Mirror, mirrored
from experiments.train import fit
from experiments.vaccinate import BANK as BANK_FOLDER
from experiments.vaccinate import embedded, trained, vaccinate
from lightning_modules.backbones import Backbone, load_backbone
from lightning_modules.features import Features
from lightning_modules.immunisation import EmbeddingBatches
from lightning_modules.open_world.immunity import Immunity
from lightning_modules.open_world.vaccine import worst_embeddings
from lightning_modules.vaccination import Antibodies, Vaccination

BANK = "\n".join(["purple disc", "grey square", "striped square", "white disc", "noise", "black square"])
Job = tuple[Run, ExperimentConfig, Backbone, ClassificationDataModule]


@pytest.fixture
def job(experiment_file: ExperimentFile, tmp_path: Path) -> Callable[..., Job]:
    """A run that vaccinates the tiny model, as it is, with a bank that a person wrote."""

    def make(**vaccination: Any) -> Job:
        bank = tmp_path / "bank.txt"
        bank.write_text(BANK)
        file = experiment_file(
            data=json.loads(experiment_file().read_text())["data"]
            | {"kind": "open_world", "near_ood": ["near"], "far_ood": ["far"]},
            antibodies={"own": {"kind": "file", "path": str(bank), "selection": {"names": False, "duplicates": None}}},
            vaccination={"bank": "own", "epochs": 2, "tail": 0.5, "tail_samples": 2, "cache": str(tmp_path / "cache")}
            | vaccination,
        )
        composed = compose(str(file))
        data = build_datamodule(composed.config.data, 0)
        assert isinstance(data, ClassificationDataModule)
        return Run.of(composed), composed.config, load_backbone(composed.config.model), data

    return make


def test_features_are_the_models_and_are_not_computed_twice(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config, backbone, data = job(precision="float16")
    assert config.vaccination is not None
    features = embedded(config, config.vaccination, backbone, data, "val")
    batch = data.sample("val", 26)
    expected = backbone.embed_image(batch["image"]).detach()
    torch.testing.assert_close(features.rows(torch.arange(26)), expected, atol=2e-3, rtol=2e-3)
    assert torch.equal(features.labels, batch["label"])
    calls: list[int] = []
    monkeypatch.setattr(Backbone, "embed_image", lambda _, pixels: calls.append(len(pixels)))
    again = embedded(config, config.vaccination, backbone, data, "val")
    assert np.array_equal(again.embeddings, features.embeddings)
    assert not calls
    with torch.no_grad():
        next(backbone.visual.parameters()).mul_(1.5)
    with pytest.raises(TypeError):  # another model is another file: it is asked for embeddings again
        embedded(config, config.vaccination, backbone, data, "val")
    assert calls


def test_a_killed_extraction_goes_on(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a record that was cut short, without embedding again what was there."""
    _, config, backbone, data = job()
    assert config.vaccination is not None
    whole = embedded(config, config.vaccination, backbone, data, "val")
    expected = np.array(whole.embeddings)
    (folder,) = (path for path in Path(config.vaccination.cache).iterdir() if path.is_dir())
    shutil.rmtree(folder)
    embed, seen = Backbone.embed_image, 0

    def failing(self: Backbone, pixels: Tensor) -> Tensor:
        nonlocal seen
        seen += len(pixels)
        if seen > 16:
            raise OSError("killed")
        return embed(self, pixels)

    config = replace(config, evaluation=replace(config.evaluation, batch_size=8))
    monkeypatch.setattr(Backbone, "embed_image", failing)
    with pytest.raises(OSError, match="killed"):
        embedded(config, config.vaccination, backbone, data, "val")
    assert not folder.exists()
    (part,) = folder.with_name(folder.name + ".parts").iterdir()
    part.write_bytes(part.read_bytes() + b"half a record")
    sizes: list[int] = []

    def counting(self: Backbone, pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return embed(self, pixels)

    monkeypatch.setattr(Backbone, "embed_image", counting)
    again = embedded(config, config.vaccination, backbone, data, "val")
    assert sum(sizes) == 26 - 16
    np.testing.assert_allclose(again.embeddings, expected, atol=1e-6)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_only_training_and_validation_are_ever_opened(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the result is written down, and is of the run's model when it is read again."""
    run, config, backbone, data = job()
    opened: set[str] = set()
    reader = DataFolder.reader

    def watched(self: DataFolder, split: str) -> Any:
        opened.add(split)
        return reader(self, split)

    monkeypatch.setattr(DataFolder, "reader", watched)
    immunity = vaccinate(run, config, backbone, data)
    assert opened == {"train", "val"}
    assert {"test", "near", "far"} <= set(data.manifest.splits)  # which were there to be opened
    told = json.loads((run.folder / "vaccination.json").read_text())
    assert told["antibodies"] == 6
    assert len(told["trials"]) == (4 + 2 * 4) * 6  # whitenings without an adapter; margins and strengths with one
    assert told["chosen"] in told["trials"]
    assert f"{told['pooled_thresholds']} of 6 classes have too few" in capsys.readouterr().err
    immunity.save(run.folder / "model")
    loaded = Immunity.load(run.folder / "model")
    loaded.require(CLASS_NAMES, 16)
    embeddings = backbone.embed_image(data.sample("val", 26)["image"]).detach()
    assert torch.equal(loaded.score(embeddings), immunity.score(embeddings))
    assert (immunity.threshold > -torch.inf).all()
    assert immunity.accept(embeddings).double().mean() > 0.7


def test_the_bank_is_kept_with_its_selection_and_filed_as_an_artifact(
    job: Callable[..., Job], capsys: pytest.CaptureFixture[str]
) -> None:
    run, config, _, _ = job()
    config = replace(config, module=NoFinetuning(), attack=NoAttack(), logging=LoggingConfig(wandb="offline"))
    with mirrored(run, config) as mirror:
        fit(run, config, mirror)
    kept = [json.loads(line) for line in (run.folder / BANK_FOLDER / "bank.jsonl").read_text().splitlines()]
    assert [line["text"] for line in kept] == BANK.splitlines()
    assert {line["kept"] for line in kept} == {True}
    assert "Weights & Biases" not in capsys.readouterr().err
    assert list((run.folder / "wandb").rglob("*.wandb"))
    assert load_backbone(replace(config.model, name=f"local-dir:{run.model}")).immunity is not None


def test_a_bank_that_can_not_be_read_is_told_before_the_training(job: Callable[..., Job], tmp_path: Path) -> None:
    run, config, _, _ = job()
    (tmp_path / "bank.txt").unlink()
    with pytest.raises(UserError, match=r"bank\.txt"):
        fit(run, config, Mirror(run, config))
    assert not run.metrics.exists()


def toy(seed: int = 0, **settings: Any) -> tuple[ExperimentConfig, Vaccination, Antibodies]:
    """Three classes on a sphere of eight dimensions, and antibodies half-way between a class and a foreign direction
    that images of the class share a little of."""
    random = torch.Generator().manual_seed(3)
    axes = torch.eye(8)
    labels = torch.arange(300) % 3
    images = axes[labels] + 0.5 * axes[labels + 3] + 0.1 * torch.randn(300, 8, generator=random)
    features = [
        Features(part.numpy(), each) for part, each in ((images[:210], labels[:210]), (images[210:], labels[210:]))
    ]
    chosen = VaccinationConfig(
        **({"bank": "x", "epochs": 6, "batch_size": 32, "lr": 3e-2, "margins": [0.1], "hidden": 16} | settings)
    )
    vaccination = Vaccination(chosen, seed, ("ant", "bee", "cow"), *features, axes[:3], 20.0)
    config = ExperimentConfig("toy", seed, trainer=TrainerConfig(1, accelerator="cpu"))
    texts = F.normalize(axes[:3] + 2 * axes[3:6], dim=1)
    return config, vaccination, Antibodies(texts, torch.arange(3), ("ant hill", "bee hive", "cow bell"))


@pytest.mark.parametrize("push", ["own", "hardest", "all"])
def test_training_moves_images_away_from_antibodies_and_keeps_their_class(push: Any) -> None:
    paper = {"prototypes": TextPrototypes(), "transplanted": False}
    config, vaccination, antibodies = toy(push=push, push_weight=5.0, **paper)
    before, after = vaccination.immunity(antibodies), trained(config, vaccination, antibodies, 0.1)
    images, labels = vaccination.calibration
    danger = [immunity.terms(images)[1].mean().item() for immunity in (before, after)]
    assert danger[1] < danger[0] - 0.2
    assert (after.classify(images) == labels).all()
    unpushed = trained(*toy(push_weight=0.0, **paper), 0.1)
    assert danger[1] < unpushed.terms(images)[1].mean().item()


def test_training_on_worst_embeddings_makes_classes_safer() -> None:
    attack = FeatureAttack(eps=0.5, steps=3)
    config, vaccination, antibodies = toy(adversarial=attack, prototypes=VisualPrototypes())
    images, labels = vaccination.calibration
    losses = []
    for model in (trained(*toy(prototypes=VisualPrototypes()), 0.1), trained(config, vaccination, antibodies, 0.1)):

        def loss(moved: Tensor, model: Immunity = model) -> Tensor:
            return F.cross_entropy(model.logits(model.adapt(moved)), labels)

        losses.append(loss(worst_embeddings(loss, images, attack)).item())
    assert losses[1] < losses[0]


def test_a_seed_fixes_the_result() -> None:
    weights = [trained(*toy(seed, epochs=1), 0.1).adapter.outward.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_held_out_classes_are_neither_learnt_nor_named() -> None:
    _, vaccination, antibodies = toy()
    fewer, numbers = vaccination.without(torch.tensor([False, True, False]))
    assert fewer.class_names == ("ant", "cow")
    assert set(vaccination.train.labels[fewer.places].tolist()) == {0, 2}
    assert fewer.prototypes.directions.shape == (2, 8)
    left = antibodies.relabelled(numbers)
    assert left.owners.tolist() == [0, 1]
    assert left.captions == ("ant hill", "cow bell")
    assert torch.equal(left.directions, antibodies.directions[[0, 2]])
    torch.testing.assert_close(fewer.prototypes.directions, vaccination.prototypes.directions[[0, 2]])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_batches_cover_an_epoch_once_and_do_not_depend_on_ranks(world: int) -> None:
    _, vaccination, _ = toy()
    places = torch.arange(0, 210, 2)

    def read(rank: int, world: int) -> list[dict[str, Tensor]]:
        batches = EmbeddingBatches(vaccination.train, places, batch_size=12, epochs=2, seed=4, rank=rank, world=world)
        return [batches[step] for step in range(len(batches))]

    alone, shares = read(0, 1), [read(rank, world) for rank in range(world)]
    assert len(alone) == 2 * (105 // 12)
    for step, batch in enumerate(alone):
        together = torch.cat([share[step]["embedding"] for share in shares])
        assert {tuple(row) for row in together.tolist()} == {tuple(row) for row in batch["embedding"].tolist()}
    epochs = [torch.cat([batch["embedding"] for batch in alone[half * 8 : half * 8 + 8]]) for half in (0, 1)]
    assert all(len(epoch.unique(dim=0)) == 96 for epoch in epochs)
    assert not torch.equal(*epochs)


def test_calibration_images_are_left_out_of_training() -> None:
    _, vaccination, _ = toy(calibration_share=0.2)
    images, labels = vaccination.calibration
    assert len(labels) == 90 + 42
    assert len(vaccination.places) == 210 - 42
    learnt = {tuple(row) for row in vaccination.train.rows(vaccination.places).tolist()}
    assert not learnt & {tuple(row) for row in images.tolist()}


def test_every_class_is_held_out_once_and_enough_are_left() -> None:
    _, vaccination, _ = toy(held_out=0.34)
    assert torch.equal(torch.stack(vaccination.folds).sum(0), torch.ones(3, dtype=torch.int64))
    assert toy(held_out=0.5)[1].folds == []  # two of three held out would leave nothing to tell apart


def test_without_a_split_to_validate_on_training_images_are_left_out_for_it() -> None:
    _, vaccination, _ = toy(calibration_share=0.2)
    alone = replace(vaccination, val=None)
    assert torch.equal(alone.calibration[1], vaccination.calibration[1][90:])
    assert torch.equal(alone.places, vaccination.places)


@pytest.mark.parametrize(("split", "wanted"), [("test", "also the test split"), ("train", "calibration_share")])
def test_constants_are_never_chosen_on_what_is_tested_or_trained_on(
    split: str, wanted: str, job: Callable[..., Job]
) -> None:
    _, config, _, _ = job()
    with pytest.raises(ConfigError, match=wanted):
        replace(config, data=replace(config.data, val_split=split))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (["vaccination.bank=lmm"], "vaccination.bank=lmm is no bank of antibodies; did you mean 'llm'?"),
        (["evaluation.open_world.scores.neglabel.bank=none"], "scores.neglabel.bank=none is no bank of antibodies"),
        (["module.kind=none", "attack.kind=none", "vaccination=null"], "and there is no vaccination"),
        (["vaccination.whitenings=[]"], "vaccination.whitenings needs at least one value"),
    ],
)
def test_what_can_not_work_is_said_before_anything_is_trained(settings: list[str], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        compose("quickstart", settings)
