"""Evaluation against plain computations, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from configs.compose import Composed, compose
from configs.errors import ConfigError, DataError
from datamodules import build_datamodule
from datamodules.base import PlannedDataModule
from experiments.measure import ProbeData, measure, probes
from experiments.results import Row
from experiments.runs import Run
from experiments.trainer import build_tester
from lightning_modules.backbones import Backbone, class_features, load_backbone
from lightning_modules.evaluation import Evaluation
from lightning_modules.hierarchy import Tree
from lightning_modules.probes import Probe

ATTACKS = {
    "pgd": {"kind": "pgd", "eps_255": 4, "step_255": 1, "steps": 4, "loss": "ce"},
    "apgd": {"kind": "apgd", "eps_255": 4, "steps": 6, "targets": 2},
}


@pytest.fixture
def composed(experiment_file, tiny_dataset: Path) -> Composed:  # type: ignore[no-untyped-def]
    data = {"kind": "open_world", "folder": str(tiny_dataset), "batch_size": 8, "workers": 0}
    evaluation = {"batch_size": 8, "attacks": ATTACKS, "attacked_samples": 13, "eps_sweep_255": [0, 2], "pictures": 5}
    return compose(experiment_file(data=data | {"near_ood": ["near"], "far_ood": ["far"]}, evaluation=evaluation))


@pytest.fixture
def parts(composed: Composed) -> tuple[Backbone, PlannedDataModule]:
    config = composed.config
    return load_backbone(config.model), build_datamodule(config.data, config.seed)


@pytest.fixture
def rows(composed: Composed, parts: tuple[Backbone, PlannedDataModule]) -> list[Row]:
    return measure(Run.of(composed), composed.config, *parts, "before")


def find(rows: list[Row], **wanted: object) -> Row:
    (row,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return row


def everything(data: PlannedDataModule, split: str) -> dict[str, torch.Tensor]:
    """All valid samples of a split, in float."""
    data.setup()
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.eval_loader(split, 8)]
    return {name: torch.cat([b[name][b["valid"]] for b in batches]) for name in ("image", "label")}


@torch.no_grad()
def logits(backbone: Backbone, data: PlannedDataModule, pixels: torch.Tensor) -> torch.Tensor:
    features = class_features(backbone, data.class_names, data.templates)  # type: ignore[attr-defined]
    return backbone.logit_scale * F.normalize(backbone.embed_image(pixels), dim=-1) @ features.T


def test_clean_rows_equal_a_plain_computation(rows: list[Row], parts: tuple[Backbone, PlannedDataModule]) -> None:
    backbone, data = parts
    test = everything(data, "test")
    predicted = logits(backbone, data, test["image"]).argmax(1)
    leaf = find(rows, metric="accuracy", attack_name=None, level=0)
    assert leaf["n"] == len(test["label"]) == 31
    assert leaf["value"] == pytest.approx((predicted == test["label"]).double().mean().item())
    tree = Tree.from_dict("colours", data.manifest.trees["colours"])
    for level in range(1, tree.depth + 1):
        ancestors = tree.ancestors(level)
        expected = (ancestors[predicted] == ancestors[test["label"]]).double().mean().item()
        assert find(rows, metric="accuracy", attack_name=None, level=level)["value"] == pytest.approx(expected)


def test_robust_accuracy_grows_towards_the_root(rows: list[Row]) -> None:
    for name in ("pgd", "apgd"):
        by_level = [find(rows, metric="accuracy", attack_name=name, level=level)["value"] for level in range(3)]
        assert by_level == sorted(by_level)
        assert by_level[-1] == 1.0  # one root


def test_open_world_rows_equal_a_plain_computation(rows: list[Row], parts: tuple[Backbone, PlannedDataModule]) -> None:
    backbone, data = parts

    def mcm(split: str) -> np.ndarray:
        scaled = logits(backbone, data, everything(data, split)["image"]).double()
        return scaled.softmax(1).amax(1).numpy()

    inside = mcm("test")
    for split in ("near", "far"):
        outside = mcm(split)
        truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
        found = find(rows, metric="auroc", split=split, score="mcm")
        assert found["value"] == pytest.approx(roc_auc_score(truth, np.r_[inside, outside]), abs=1e-6)
        assert found["n"] == len(outside) == 14


def test_attacks_only_lower_accuracy_and_the_stronger_lowers_it_more(rows: list[Row]) -> None:
    clean = find(rows, attack_name="sweep", attack=None, level=0)["value"]
    pgd = find(rows, attack_name="pgd", level=0)
    apgd = find(rows, attack_name="apgd", level=0)
    assert pgd["n"] == apgd["n"] == 13
    assert clean >= pgd["value"] >= apgd["value"]
    assert pgd["attack"]["eps_255"] == 4
    assert 0 <= pgd["checks"]["zero_gradient"] <= 1


@pytest.mark.usefixtures("rows")
def test_evidence_is_what_the_rows_were_computed_from(composed: Composed) -> None:
    with np.load(Run.of(composed).folder / "evidence-before.npz") as evidence:
        assert set(evidence) >= {"scores/mcm/test", "scores/mcm/near", "scores/mcm/far", "class_names"}
        assert len(evidence["scores/mcm/test"]) == 31
        clean, adversarial = (evidence[f"pictures/{name}"].astype(int) for name in ("clean", "adversarial"))
    assert clean.shape == adversarial.shape == (5, 3, 32, 32)
    assert 0 < np.abs(clean - adversarial).max() <= 4


def test_the_same_settings_are_not_measured_twice(rows: list[Row], composed: Composed, parts) -> None:  # type: ignore[no-untyped-def]
    results = Run.of(composed).results
    written = results.stat().st_mtime_ns
    again = measure(Run.of(composed), composed.config, *parts, "before")
    assert results.stat().st_mtime_ns == written
    assert [row["value"] for row in again] == [row["value"] for row in rows]


def test_the_model_is_as_it_was(composed: Composed, parts: tuple[Backbone, PlannedDataModule]) -> None:
    backbone, data = parts
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    measure(Run.of(composed), composed.config, backbone, data, "before")
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_batch_size_and_workers_change_no_figure(
    rows: list[Row], composed: Composed, parts: tuple[Backbone, PlannedDataModule], tmp_path: Path
) -> None:
    config = composed.config
    other = replace(config, evaluation=replace(config.evaluation, batch_size=5), data=replace(config.data, workers=2))
    run = replace(Run.of(composed), folder=tmp_path / "other")
    again = measure(run, other, parts[0], build_datamodule(other.data, other.seed), "before")
    assert [row["value"] for row in again] == pytest.approx([row["value"] for row in rows])


def test_an_attack_of_kind_none_is_refused(composed: Composed, parts: tuple[Backbone, PlannedDataModule]) -> None:
    from configs.schema.attack import NoAttack

    evaluation = replace(composed.config.evaluation, attacks={"idle": NoAttack()})
    with pytest.raises(ConfigError, match=r"evaluation\.attacks\.idle"):
        probes(evaluation, parts[1])  # type: ignore[arg-type]


def test_a_probe_that_misses_samples_gives_no_figure(
    composed: Composed, parts: tuple[Backbone, PlannedDataModule]
) -> None:
    backbone, data = parts
    data.setup()
    evaluation = Evaluation(
        backbone,
        [Probe("clean", "test", 31)],
        class_names=data.class_names,  # type: ignore[attr-defined]
        templates=data.templates,  # type: ignore[attr-defined]
        trees=[],
        scores={},
        seed=0,
    )
    short = ProbeData(data, [Probe("clean", "test", 30)], batch_size=8)  # type: ignore[arg-type]
    build_tester(composed.config, "short").test(evaluation, datamodule=short, verbose=False)
    with pytest.raises(DataError, match="saw 30 samples of 31"):
        evaluation.rows()
