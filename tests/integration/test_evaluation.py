"""Evaluation against plain computations, and what it refuses."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from configs.compose import Composed, compose
from configs.errors import ConfigError, DataError
from configs.schema.antibodies import BankConfig, FileBank, RandomBank
from configs.schema.attack import PGD, NoAttack
from configs.schema.objective import Hyperbolic
from datamodules import build_datamodule
from datamodules.classification import ClassificationDataModule
from datamodules.pack import pack
from experiments.measure import measure, probes
from experiments.probe_data import ProbeData
from experiments.results import Row
from experiments.runs import Run
from experiments.trainer import build_tester
from lightning_modules import attacks
from lightning_modules.attacks import LOSSES, misclassified, noise
from lightning_modules.backbones import Backbone, class_features, load_backbone
from lightning_modules.evaluation import Evaluation
from lightning_modules.hierarchy import Tree
from lightning_modules.hyperbolic import fit_head
from lightning_modules.probes import Probe, Terms
from lightning_modules.zero_shot import ZeroShot
from tests.conftest import CLASS_NAMES, shapes
from tests.integration.measured import evaluate, experiment, figures, fit

LISTED = {"kind": "auto_attack", "version": "custom", "attacks": ["apgd-ce", "apgd-t"], "steps": 6, "targets": 2}
ATTACKS = {
    "pgd": {"kind": "pgd", "eps_255": 4, "step_255": 1, "steps": 4, "loss": "ce"},
    "apgd": {"kind": "apgd", "eps_255": 4, "steps": 6},
    "listed": LISTED | {"eps_255": 3},
    "wider": LISTED | {"eps_255": 5},
    "momentum": {"kind": "pgd", "eps_255": 2, "step_255": 1, "steps": 3, "restarts": 2, "loss": "margin"},
}
EVALUATION = {"attacks": ATTACKS, "attacked_samples": 13, "eps_sweep_255": [0, 2], "pictures": 5}

Measure = Callable[..., list[Row]]


@pytest.fixture(scope="module")
def model(tiny_vit: str, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return fit(tiny_vit, tiny_dataset, tmp_path_factory.mktemp("fitted") / "model")


@pytest.fixture(scope="module")
def composed(model: str, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Composed:
    path = tmp_path_factory.mktemp("whole") / "tiny.yaml"
    ood = {"kind": "open_world", "near_ood": ["near"], "far_ood": ["far"]}
    return compose(experiment(path, model, tiny_dataset, EVALUATION, **ood))


@pytest.fixture(scope="module")
def backbone(composed: Composed) -> Backbone:
    return load_backbone(composed.config.model)


@pytest.fixture(scope="module")
def data(composed: Composed) -> ClassificationDataModule:
    built = build_datamodule(composed.config.data, composed.config.seed)
    assert isinstance(built, ClassificationDataModule)
    return built


@pytest.fixture(scope="module")
def rows(composed: Composed, backbone: Backbone, data: ClassificationDataModule) -> list[Row]:
    return measure(Run.of(composed), composed.config, backbone, data, "before")


@pytest.fixture
def again(composed: Composed, backbone: Backbone, tmp_path: Path) -> Measure:
    """Measures with other settings of the evaluation, in another folder, with any model."""

    def measured(model: Backbone = backbone, workers: int = 0, **settings: Any) -> list[Row]:
        path = experiment(tmp_path / "tiny.yaml", "mini", Path(composed.config.data.folder), EVALUATION | settings)
        config = compose(path).config
        config = replace(config, data=replace(composed.config.data, workers=workers))
        run = replace(Run.of(composed), folder=tmp_path / "run")
        return measure(run, config, model, build_datamodule(config.data, config.seed), "before")

    return measured


def find(rows: list[Row], **wanted: object) -> Row:
    (row,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return row


def everything(data: ClassificationDataModule, split: str, samples: int | None = None) -> dict[str, Tensor]:
    """All valid samples of a split, in float."""
    data.setup()
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.eval_loader(split, 8, samples)]
    return {name: torch.cat([b[name][b["valid"]] for b in batches]) for name in ("image", "label", "index")}


def logits(backbone: Backbone, data: ClassificationDataModule) -> Callable[[Tensor], Tensor]:
    features = class_features(backbone, data.class_names, data.templates)
    scale = backbone.logit_scale.detach()
    return lambda pixels: scale * F.normalize(backbone.embed_image(pixels), dim=-1) @ features.T


def test_clean_rows_equal_a_plain_computation(
    rows: list[Row], backbone: Backbone, data: ClassificationDataModule
) -> None:
    test = everything(data, "test")
    with torch.no_grad():
        predicted = logits(backbone, data)(test["image"]).argmax(1)
    leaf = find(rows, metric="accuracy", attack_name=None, level=0)
    assert leaf["n"] == len(test["label"]) == 31
    assert leaf["value"] == pytest.approx((predicted == test["label"]).double().mean().item())
    tree = Tree.from_dict("colours", data.manifest.trees["colours"])
    for level in range(1, tree.depth + 1):
        ancestors = tree.ancestors(level)
        expected = (ancestors[predicted] == ancestors[test["label"]]).double().mean().item()
        assert find(rows, metric="accuracy", attack_name=None, level=level)["value"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["pgd", "apgd", "listed"])
def test_attacked_rows_equal_one_batch_through_the_attack(
    rows: list[Row], composed: Composed, backbone: Backbone, data: ClassificationDataModule, name: str
) -> None:
    """No slots, no ledger, no stream: the attack as a function, on all samples at once."""
    test, model_fn = everything(data, "test", 13), logits(backbone, data)
    attack = attacks.build(composed.config.evaluation.attacks[name])
    assert attack is not None
    seeds = noise.derive(composed.config.seed, 0, test["index"])
    judge = None if name == "pgd" else misclassified
    found = attack(model_fn, test["image"], test["label"], LOSSES["ce"], seeds, judge)
    with torch.no_grad():
        answers = [model_fn(test["image"]), model_fn(found.pixels)]
    wrong = misclassified(answers[0], test["label"]) | misclassified(answers[1], test["label"])
    row = find(rows, attack_name=name, level=0)
    assert row["n"] == 13
    assert row["value"] == pytest.approx(1 - wrong.double().mean().item())
    assert 0 < row["value"] < find(rows, attack_name="sweep", attack=None, level=0)["value"]


def test_robust_accuracy_grows_towards_the_root(rows: list[Row]) -> None:
    for name in ("pgd", "momentum"):
        by_level = [find(rows, metric="accuracy", attack_name=name, level=level)["value"] for level in range(3)]
        assert by_level == sorted(by_level)
        assert by_level[-1] == 1.0  # one root


def test_with_the_whole_budget_the_leaf_falls_no_less_and_every_level_is_told(again: Measure, rows: list[Row]) -> None:
    """What falls on the way falls at the strongest point or in the run that follows: never less than scheduled."""
    patient = again(all_levels=True, eps_sweep_255=[], pictures=0)
    for name in ("apgd", "listed"):
        told = [find(patient, metric="accuracy", attack_name=name, level=level)["value"] for level in range(3)]
        assert told == sorted(told)
        assert told[0] <= find(rows, attack_name=name, level=0)["value"]
        assert told[-1] == 1.0  # one root
        assert told[0] < 1.0


@pytest.mark.parametrize("inference", ["own", "cosine"])
def test_what_is_reported_is_what_is_attacked(
    again: Measure, backbone: Backbone, data: ClassificationDataModule, inference: str
) -> None:
    """A model with a hyperbolic head, by its distances and by its cosines: clean, and under PGD on the same logits."""
    test, model = everything(data, "test", 13), copy.deepcopy(backbone)
    model.hyperbolic = fit_head(model, Hyperbolic(power=1.0), test["image"], data.class_names, data.templates)
    pgd = {"kind": "pgd", "eps_255": 4, "step_255": 2, "steps": 3, "loss": "ce"}
    measured = again(model, inference=inference, attacks={"pgd": pgd}, attacked_samples=13, samples=13)
    judge = model if inference == "own" else backbone
    classify = ZeroShot(judge, data.class_names, data.templates).logits
    attack = attacks.build(PGD(eps_255=4, step_255=2, steps=3, loss="ce"))
    assert attack is not None
    found = attack(classify, test["image"], test["label"], LOSSES["ce"], noise.derive(0, 0, test["index"]))
    with torch.no_grad():
        right = [classify(images).argmax(1) == test["label"] for images in (test["image"], found.pixels)]
    assert find(measured, attack_name=None, metric="accuracy", level=0)["value"] == pytest.approx(
        right[0].double().mean().item()
    )
    assert find(measured, attack_name="pgd", metric="accuracy", level=0)["value"] == pytest.approx(
        (right[0] & right[1]).double().mean().item()
    )


def test_a_scheduled_attack_claims_nothing_above_the_leaves(rows: list[Row]) -> None:
    """A sample leaves when its leaf falls; what the rest of the budget would do to its ancestors is not known."""
    for name in ("apgd", "listed", "wider"):
        assert [row["level"] for row in rows if row["attack_name"] == name] == [0]


def test_every_sample_is_accounted_for(rows: list[Row]) -> None:
    right = round(13 * find(rows, attack_name="sweep", attack=None, level=0)["value"])
    for name in ("apgd", "listed", "wider"):
        row = find(rows, attack_name=name)
        checks = row["checks"]
        assert checks["attacked"] + checks["inherited"] == right
        assert sum(checks["stages"].values()) + checks["inherited"] == right - round(13 * row["value"])
        assert checks["broken"] == 0
        assert 0 <= checks["zero_gradient"] <= 1
    assert list(find(rows, attack_name="listed")["checks"]["stages"]) == ["apgd-ce", "apgd-t"]
    assert find(rows, attack_name="pgd", level=0)["checks"]["attacked"] == 13


def test_who_falls_at_a_smaller_radius_is_not_attacked_at_a_larger_one(rows: list[Row], again: Measure) -> None:
    small, large = (find(rows, attack_name=name) for name in ("listed", "wider"))
    assert large["checks"]["inherited"] == sum(small["checks"]["stages"].values()) > 0
    alone = find(again(reuse=False), attack_name="wider")
    assert alone["checks"]["inherited"] == 0
    assert large["value"] <= min(alone["value"], small["value"])


def test_open_world_rows_equal_a_plain_computation(
    rows: list[Row], backbone: Backbone, data: ClassificationDataModule
) -> None:
    """The paper's MCM, at temperature 1, on cosines."""
    scale = backbone.logit_scale.detach().double()

    @torch.no_grad()
    def mcm(split: str) -> np.ndarray:
        cosines = logits(backbone, data)(everything(data, split)["image"]).double() / scale
        return cosines.softmax(1).amax(1).numpy()

    inside = mcm("test")
    for split in ("near", "far"):
        outside = mcm(split)
        truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
        found = find(rows, metric="auroc", split=split, score="mcm")
        assert found["value"] == pytest.approx(roc_auc_score(truth, np.r_[inside, outside]), abs=1e-6)
        assert found["n"] == len(outside) == 14


@pytest.mark.usefixtures("rows")
def test_evidence_is_what_the_rows_were_computed_from(composed: Composed) -> None:
    with np.load(Run.of(composed).folder / "evidence-before.npz") as evidence:
        assert set(evidence) >= {"scores/mcm/test", "scores/mcm/near", "scores/mcm/far", "class_names"}
        assert len(evidence["scores/mcm/test"]) == 31
        clean, adversarial = (evidence[f"pictures/{name}"].astype(int) for name in ("clean", "adversarial"))
    assert clean.shape == adversarial.shape == (5, 3, 32, 32)
    assert 0 < np.abs(clean - adversarial).max() <= 4


def test_the_same_settings_are_not_measured_twice(
    rows: list[Row], composed: Composed, backbone: Backbone, data: ClassificationDataModule
) -> None:
    results = Run.of(composed).results
    written = results.stat().st_mtime_ns
    repeated = measure(Run.of(composed), composed.config, backbone, data, "before")
    assert results.stat().st_mtime_ns == written
    assert [row["value"] for row in repeated] == [row["value"] for row in rows]


def test_the_model_is_as_it_was_and_sees_a_clean_image_once(backbone: Backbone, again: Measure) -> None:
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    seen: list[int] = []
    embed = backbone.embed_image

    def counted(pixels: Tensor) -> Tensor:
        seen.append(len(pixels))
        return embed(pixels)

    backbone.embed_image = counted  # type: ignore[method-assign]
    try:
        again(attacks={}, eps_sweep_255=[0], attacked_samples=None)
    finally:
        del backbone.embed_image  # type: ignore[method-assign]
    # The labelled split in whole batches, and nothing for the second pass over it; then, for the open-world scores, the
    # samples of validation, test, near and far.
    assert sum(seen) == 32 + 26 + 31 + 14 + 14
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_the_class_texts_are_encoded_once(backbone: Backbone, again: Measure) -> None:
    """Over all probes: clean, known and unknown images, attacks, radii, and the signs that attacks fail."""
    encoded: list[int] = []
    embed = backbone.embed_text

    def counted(texts: Sequence[str], *args: Any) -> Tensor:
        encoded.append(len(texts))
        return embed(texts, *args)

    backbone.embed_text = counted  # type: ignore[method-assign]
    try:
        again(attacks={name: ATTACKS[name] for name in ("pgd", "apgd")}, checks=True, check_samples=5)
    finally:
        del backbone.embed_text  # type: ignore[method-assign]
    assert encoded == [6 * 2] * 2  # classes, templates: for the accuracies, and for the open-world scores


def test_losses_that_stand_in_are_named_in_the_rows(model: str, tmp_path: Path) -> None:
    """Targeted DLR wants 4 classes, and here are 3."""
    pack(
        tmp_path / "few",
        {"test": [sample for sample in shapes("test", 12) if sample.label is not None and sample.label < 3]},
        name="few",
        version="1",
        class_names=CLASS_NAMES[:3],
        templates=("a {c}",),
        trees={},
        licence="CC0",
        recipe={},
        shard_samples=8,
        progress=False,
    )
    attacks = {name: ATTACKS[name] for name in ("apgd", "listed")}
    path = experiment(tmp_path / "few.yaml", model, tmp_path / "few", {"attacks": attacks, "eps_sweep_255": []})
    found = evaluate(path)
    (told,) = find(found, attack_name="listed")["checks"]["fallbacks"]
    assert told == "targeted_margin in place of targeted_dlr, which needs 4 classes"
    assert "fallbacks" not in find(found, attack_name="apgd")["checks"]


def test_batch_size_slots_and_workers_change_no_figure(rows: list[Row], again: Measure) -> None:
    other = again(workers=2, batch_size=5, slots=7)
    assert [row["value"] for row in other] == pytest.approx([row["value"] for row in rows])
    assert [row["checks"].get("stages") for row in other] == [row["checks"].get("stages") for row in rows]


def test_bfloat16_fells_no_sample_that_float32_does_not_confirm(
    model: str, composed: Composed, data: ClassificationDataModule, again: Measure, tmp_path: Path
) -> None:
    """The kept images say so: the float32 model is wrong on exactly those that count as fallen."""
    quick = again(precision="bf16", save_adversarial="fp32", attacks={"apgd": ATTACKS["apgd"]}, eps_sweep_255=[])
    row = find(quick, attack_name="apgd")
    folder = tmp_path / "run" / "adversarial" / "before" / "apgd"
    kept = compose(experiment(tmp_path / "kept.yaml", model, folder, {})).config.data
    adversarial = everything(build_datamodule(kept, 0), "test")  # type: ignore[arg-type]
    clean = everything(data, "test", 13)
    with torch.no_grad():
        fallen = misclassified(logits(load_backbone(composed.config.model), data)(adversarial["image"]), clean["label"])
    assert row["value"] == pytest.approx(1 - fallen.double().mean().item())
    assert 0 < (adversarial["image"] - clean["image"]).abs().max() <= 4 / 255 + 1e-6
    assert torch.equal(adversarial["label"], clean["label"])


class Brittle(torch.nn.Module):
    """Answers images that are not stored ones, or dark ones, with NaN."""

    def __init__(self, visual: torch.nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.visual, self.mean, self.std = visual, mean, std

    def forward(self, inputs: Tensor) -> Tensor:
        levels = (inputs * self.std + self.mean) * 255
        changed = ((levels - levels.round()).abs() > 0.01).flatten(1).any(1)
        embeddings: Tensor = self.visual(inputs)
        return embeddings.masked_fill(changed[:, None], float("nan"))


def test_outputs_that_are_not_numbers_count_as_fallen_at_every_level(
    composed: Composed, rows: list[Row], again: Measure
) -> None:
    backbone = load_backbone(composed.config.model)
    backbone.clip.visual = Brittle(backbone.visual, backbone.mean, backbone.std)
    found = again(model=backbone, attacks={name: ATTACKS[name] for name in ("pgd", "apgd")}, eps_sweep_255=[])
    assert find(found, attack_name=None, level=0, metric="accuracy")["value"] == pytest.approx(
        find(rows, attack_name=None, level=0, metric="accuracy")["value"]
    )
    attacked = [row for row in found if row["attack_name"] is not None]
    assert len(attacked) == 3 + 1
    assert {row["value"] for row in attacked} == {0.0}
    assert find(found, attack_name="pgd", level=0)["checks"]["broken"] == 13
    assert find(found, attack_name="apgd")["checks"]["broken"] == find(found, attack_name="apgd")["checks"]["attacked"]


def test_beliefs_are_in_the_checks_of_every_attacked_row(again: Measure, capfd: pytest.CaptureFixture[str]) -> None:
    found = again(
        checks=True, check_samples=7, attacks={"apgd": ATTACKS["apgd"], "pgd": ATTACKS["pgd"]}, eps_sweep_255=[]
    )
    for row in found:
        assert (row["checks"].get("examined") == 7) == (row["attack"] is not None)
    assert find(found, attack_name="apgd")["checks"]["randomised"] == 0.0
    told = capfd.readouterr().err
    assert "looking for signs that attacks fail" in told
    assert f"pgd on test: robust {find(found, attack_name='pgd', level=0)['value']:.1%} of 13" in told


def test_kept_images_give_another_measurement_the_same_accuracy(
    model: str, tiny_dataset: Path, rows: list[Row], tmp_path: Path
) -> None:
    settings = {"attacked_samples": 13, "attacks": {"listed": ATTACKS["listed"], "pgd": ATTACKS["pgd"]}}
    for save, error in (("fp32", 0.0), ("uint8", 1 / 255)):
        one = compose(
            experiment(tmp_path / save / "one.yaml", model, tiny_dataset, settings | {"save_adversarial": save})
        )
        data = build_datamodule(one.config.data, 0)
        found = measure(Run.of(one), one.config, load_backbone(one.config.model), data, "before")
        for name in ("listed", "pgd"):
            folder = Run.of(one).folder / "adversarial" / "before" / name
            two = compose(experiment(tmp_path / save / f"{name}.yaml", model, folder, {}))
            kept = build_datamodule(two.config.data, 0)
            assert isinstance(kept, ClassificationDataModule)
            transferred = measure(Run.of(two), two.config, load_backbone(two.config.model), kept, "before")
            value = find(found, attack_name=name, level=0)["value"]
            assert find(transferred, level=0, attack=None)["value"] == pytest.approx(value, abs=2 / 13 * (error > 0))
            assert find(transferred, level=0, attack=None)["n"] == 13
            assert kept.class_names == data.class_names  # type: ignore[attr-defined]
            assert kept.manifest.trees == data.manifest.trees
        assert not list(Run.of(one).folder.glob("ledger/*/*/images-*"))
    assert figures(found)[-1]["value"] == find(rows, attack_name="pgd", level=2)["value"]


def test_an_attack_of_kind_none_is_refused(composed: Composed, data: ClassificationDataModule) -> None:
    evaluation = replace(composed.config.evaluation, attacks={"idle": NoAttack()})
    with pytest.raises(ConfigError, match=r"evaluation\.attacks\.idle"):
        probes(evaluation, data)


def test_a_probe_that_misses_samples_gives_no_figure(
    composed: Composed, backbone: Backbone, data: ClassificationDataModule
) -> None:
    data.setup()
    attack = composed.config.evaluation.attacks["apgd"]
    planned = [Probe("clean", "test", 31), Probe("apgd", "test", 7, attack)]
    for number, name in enumerate(("clean", "apgd")):
        evaluation = Evaluation(
            backbone,
            planned,
            class_names=data.class_names,
            templates=data.templates,
            trees=[],
            terms=Terms(seed=0, slots=4),
        )
        short = [replace(probe, samples=probe.samples - (place == number)) for place, probe in enumerate(planned)]
        build_tester(composed.config, "short").test(
            evaluation, datamodule=ProbeData(data, short, batch_size=8), verbose=False
        )
        with pytest.raises(DataError, match=f"{name} over split 'test' saw {short[number].samples} samples"):
            evaluation.rows()


@pytest.mark.usefixtures("rows")
def test_what_figures_depend_on_beside_the_run_is_asked_again(
    composed: Composed, backbone: Backbone, data: ClassificationDataModule, tmp_path: Path
) -> None:
    """Banks that no training sees, and what is in a file that the settings name: neither has another run folder."""
    run, written = Run.of(composed), tmp_path / "bank.jsonl"
    written.write_text("one")

    def again(**banks: BankConfig) -> bool:
        before = run.results.stat().st_mtime_ns
        measure(run, replace(composed.config, antibodies=banks), backbone, data, "before")
        return run.results.stat().st_mtime_ns > before

    assert again(noise=RandomBank(per_class=3))
    assert not again(noise=RandomBank(per_class=3))
    assert again(noise=RandomBank(per_class=4))
    assert again(mine=FileBank(path=str(written)))
    assert not again(mine=FileBank(path=str(written)))
    written.write_text("another")
    assert again(mine=FileBank(path=str(written)))
