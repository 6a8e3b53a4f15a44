"""Attacks that know no labels, as an evaluation runs them, against the same ascent written out."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.compose import compose
from configs.errors import ConfigError
from configs.schema.data import ClassificationData
from configs.schema.model import ModelConfig
from datamodules.classification import ClassificationDataModule
from lightning_modules.attacks import noise
from lightning_modules.attacks.projection import uniform_start
from lightning_modules.backbones import Backbone, frozen, load_backbone
from lightning_modules.zero_shot import ZeroShot
from tests.integration.measured import Rows, evaluate, experiment, fit

EPS, STEP, STEPS = 6 / 255, 2 / 255, 4


@pytest.fixture(scope="module")
def model(tiny_vit: str, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return fit(tiny_vit, tiny_dataset, tmp_path_factory.mktemp("fitted") / "model")


def _accuracies(rows: Rows, attack: str) -> dict[int, float]:
    """By level of the only tree, leaves at 0."""
    chosen = [row for row in rows if row["attack_name"] == attack and row["metric"] == "accuracy"]
    return {row["level"]: row["value"] for row in chosen}


def _strayed(loss: str, clean: Tensor, moved: Tensor) -> Tensor:
    if loss == "embedding_l2":
        return ((moved - clean) ** 2).sum()
    return -(F.normalize(moved, dim=1) * F.normalize(clean, dim=1)).sum()


def _ascend(backbone: Backbone, loss: str, pixels: Tensor, seeds: Tensor) -> Tensor:
    with torch.no_grad():
        clean = backbone.embed_image(pixels)
    moved = uniform_start(pixels, noise.derive(seeds, 0), EPS, "linf")
    for _ in range(STEPS):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(_strayed(loss, clean, backbone.embed_image(moved)), moved)
        stepped = moved.detach() + STEP * gradient.sign()
        moved = pixels + (stepped - pixels).clamp(-EPS, EPS)
        moved = moved.clamp(0, 1)
    return moved


@pytest.mark.parametrize("loss", ["embedding_l2", "embedding_cosine"])
def test_accuracy_is_that_of_the_ascent_written_out(loss: str, model: str, tiny_dataset: Path, tmp_path: Path) -> None:
    pgd = {"kind": "pgd", "eps_255": 6, "step_255": 2, "steps": STEPS, "loss": loss}
    rows = evaluate(experiment(tmp_path / "away.yaml", model, tiny_dataset, {"attacks": {"away": pgd}}))
    data = ClassificationDataModule(ClassificationData(folder=str(tiny_dataset), workers=0), seed=0)
    (batch,) = (data.on_after_batch_transfer(each, 0) for each in data.eval_loader("test", 31))
    backbone = load_backbone(ModelConfig(model)).channels_last().eval()
    classifier = ZeroShot(backbone, data.class_names, data.templates)
    with frozen(backbone):
        moved = _ascend(backbone, loss, batch["image"], noise.derive(0, 0, batch["index"]))
    right = (classifier.predict(batch["image"]) == batch["label"]) & (classifier.predict(moved) == batch["label"])
    found = _accuracies(rows, "away")
    assert found[0] == pytest.approx(right.double().mean().item(), abs=1e-9)
    assert 0 < found[0] < 1
    assert found[0] <= found[1]  # the whole budget was spent, so that superclasses have figures


def test_apgd_raises_the_distance_at_least_as_far(model: str, tiny_dataset: Path, tmp_path: Path) -> None:
    """More steps and more restarts of the labelless APGD never leave more images standing than fewer."""
    apgd = {"kind": "apgd", "eps_255": 6, "loss": "embedding_l2"}
    attacks = {"short": apgd | {"steps": 2}, "long": apgd | {"steps": 12, "restarts": 2}}
    rows = evaluate(experiment(tmp_path / "apgd.yaml", model, tiny_dataset, {"attacks": attacks}))
    short, long = (_accuracies(rows, name)[0] for name in attacks)
    assert long <= short + 2 / 31


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("attack", "attack.loss=embedding_l2 is for measuring"),
        ("evaluation.validation_attack", "evaluation.validation_attack.loss=embedding_l2 is for measuring"),
        ("evaluation.superclass", "knows no level to aim at"),
    ],
)
def test_it_is_refused_where_it_can_not_work(key: str, wanted: str) -> None:
    attack = "{kind: pgd, loss: embedding_l2}"
    value = f"{{attacks: {{away: {attack}}}}}" if key.endswith("superclass") else attack
    with pytest.raises(ConfigError, match=wanted):
        compose("tecoa_openmoji", [f"{key}={value}"])
