"""Open-world scores, clean and attacked, against plain computations, on a linear model."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from configs.compose import compose
from configs.errors import DataError, FieldError
from configs.schema import attack as schema
from configs.schema import scores
from configs.schema.antibodies import Band, BandSelection, FileBank
from configs.schema.open_world import OpenWorldConfig
from experiments.analysis import Row as Parsed
from experiments.analysis.loading import Evidence
from experiments.analysis.open_world import cells
from experiments.analysis.plots import score_histograms
from experiments.results import IDENTITY, MEASURED
from lightning_modules import attacks
from lightning_modules.attacks import noise
from lightning_modules.detection.adversary import joint_loss, log_odds
from lightning_modules.detection.clean_look import Part
from lightning_modules.detection.evaluation import OpenWorldEvaluation, World
from lightning_modules.heads import CosineHead
from lightning_modules.open_world.adapter import Adapter
from lightning_modules.open_world.immunity import Immunity
from lightning_modules.probes import Row, Terms

NAMES = ("dog", "wolf", "cat", "fish")
COUNTS = {"val": 60, "test": 40, "near_a": 30, "near_b": 20, "far": 24}
GROUPS = {"near_a": "near", "near_b": "near", "far": "far"}
PGD = schema.PGD(eps_255=4, step_255=2, steps=4)
WIDE = schema.PGD(eps_255=9, step_255=3, steps=6)
APGD = schema.APGD(eps_255=4, steps=6)
WANTED: dict[str, scores.Score] = {"mcm": scores.MCM(temperature=0.1), "largest": scores.MaxLogit()}
TERMS = Terms(seed=3, slots=8)
Batches = list[list[dict[str, Tensor]]]


class Toy(nn.Module):
    """Pixels (B, 3, 4, 4) through a matrix; a caption is the mean of its letters' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.head = CosineHead(10.0)
        self.weight = nn.Parameter(torch.randn(48, 12, generator=torch.Generator().manual_seed(0)))
        self.letters = torch.randn(256, 12, generator=torch.Generator().manual_seed(1))
        self.captions: list[str] = []
        self.immunity: Immunity | None = None

    def embed_image(self, pixels: Tensor) -> Tensor:
        assert len(pixels), "transformers refuse an empty batch"
        return (pixels.flatten(1) - 0.5) @ self.weight

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        self.captions += texts
        return torch.stack([self.letters[list(text.encode())].mean(0) for text in texts])


class Masked(Toy):
    """Its answers hide the gradient."""

    def embed_image(self, pixels: Tensor) -> Tensor:
        return super().embed_image((pixels * 255).round() / 255)


def parts(attacked: int | None) -> list[Part]:
    clean = [Part(split, count, GROUPS.get(split)) for split, count in COUNTS.items()]
    return clean + [Part(each.split, attacked, each.group, attacked=True) for each in clean[1:] if attacked]


def batches(planned: Sequence[Part], size: int = 1000, padding: int = 0) -> Batches:
    """Images near the texts of their classes, or anywhere; in-distribution labels are right but for some."""
    found = []
    for part in planned:
        generator = torch.Generator().manual_seed(sum(part.split.encode()))
        labels = torch.arange(COUNTS[part.split]) % len(NAMES)
        model = Toy()
        centres = model.embed_text([f"a {name}" for name in NAMES]) @ torch.linalg.pinv(model.weight.detach())
        images = 0.5 + 0.05 * torch.randn(len(labels), 48, generator=generator)
        if part.group is None:
            images += 0.04 * centres[labels] / centres.std()
            labels[::7] = (labels[::7] + 1) % len(NAMES)
        else:
            labels[:] = -1
        whole = {
            "image": images.clamp(0, 1).view(-1, 3, 4, 4),
            "label": labels,
            "index": torch.arange(len(labels)),
            "valid": torch.ones(len(labels), dtype=torch.bool),
        }
        rows = torch.arange(part.samples)
        made = [{name: value[some] for name, value in whole.items()} for some in torch.split(rows, size)]
        for each in made if padding else ():
            extra = {name: value[:padding].clone() for name, value in each.items()}
            extra["valid"][:] = False
            each.update({name: torch.cat([value, extra[name]]) for name, value in each.items()})
        if padding:  # as on a rank that has fewer samples
            made.append({**made[0], "valid": torch.zeros_like(made[0]["valid"])})
        found.append(made)
    return found


def measured(
    settings: OpenWorldConfig, attacked: int | None = 12, model: Toy | None = None, **given: Any
) -> tuple[list[Row], OpenWorldEvaluation]:
    world = World(
        NAMES, ["a {c}"], **{name: given.pop(name) for name in ("banks", "concepts", "vaccine") if name in given}
    )
    planned = parts(attacked if settings.attacks else None)
    module = OpenWorldEvaluation(model or Toy(), planned, settings=settings, world=world, terms=TERMS)  # type: ignore[arg-type]
    module.on_test_start()
    for number, made in enumerate(batches(planned, **given)):
        for place, batch in enumerate(made):
            module.test_step(batch, place, number)
    return module.rows(), module


def config(**changed: Any) -> OpenWorldConfig:
    given: dict[str, Any] = {
        "scores": WANTED,
        "attacks": {"pgd": PGD, "apgd": APGD},
        "attacked_scores": ["mcm", "largest"],
    }
    return OpenWorldConfig(**(given | changed))


def value(rows: Sequence[Row], **wanted: object) -> float:
    (row,) = [row for row in rows if all(row.get(name) == each for name, each in wanted.items())]
    return float(row["value"])


def auroc(inside: Tensor, outside: Tensor) -> float:
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    return float(roc_auc_score(truth, torch.cat([inside, outside]).numpy()))


def plain(name: str, pixels: Tensor) -> Tensor:
    """A score, from its formula."""
    model = Toy()
    texts = nn.functional.normalize(model.embed_text([f"a {name}" for name in NAMES]), dim=1).double()
    cosines = nn.functional.normalize(model.embed_image(pixels), dim=1).double() @ texts.T
    return cosines.amax(1) if name == "largest" else (cosines / 0.1).softmax(1).amax(1)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return measured(config(joint=True))[0]


def test_clean_figures_equal_a_plain_computation(rows: list[Row]) -> None:
    images = {part.split: made[0]["image"] for part, made in zip(parts(None), batches(parts(None)), strict=True)}
    for name in WANTED:
        with torch.no_grad():
            found = {split: plain(name, pixels) for split, pixels in images.items()}
        clean = {"score": name, "attack_name": None}
        told = {split: value(rows, metric="auroc", split=split, **clean) for split in GROUPS}
        assert told == pytest.approx({split: auroc(found["test"], found[split]) for split in GROUPS})
        near = value(rows, metric="auroc", split="near", **clean)
        assert near == pytest.approx((told["near_a"] + told["near_b"]) / 2)
        threshold = found["val"].sort().values[3]  # 57 of 60 are 95 %
        accepted = (found["test"] >= threshold).double().mean().item()
        assert value(rows, metric="id_accepted", split="test", **clean) == pytest.approx(accepted)


@pytest.mark.parametrize("name", list(WANTED))
def test_attacked_figures_equal_the_attack_on_the_formula(rows: list[Row], name: str) -> None:
    """Where MCM is not saturated its log odds order as it does, and so does the sign of their gradient."""
    attack = attacks.build(PGD)
    assert attack is not None
    given = {part.split: made[0] for part, made in zip(parts(12), batches(parts(12)), strict=True) if part.attacked}
    worst, clean = {}, {}
    for split, batch in given.items():
        sign = 1.0 if split in GROUPS else -1.0
        seeds = noise.derive(TERMS.seed, 0, batch["index"])
        loss = lambda images, _, sign=sign: sign * plain(name, images).float()  # noqa: E731
        made = attack(lambda pixels: pixels, batch["image"], batch["label"], loss, seeds)
        clean[split] = plain(name, batch["image"]).detach()
        both = torch.stack([clean[split], plain(name, made.pixels).detach()])
        worst[split] = both.amax(0) if split in GROUPS else both.amin(0)
    for split in GROUPS:
        told = {"metric": "auroc", "score": name, "split": split}
        assert value(rows, attack_name="pgd@id", **told) == pytest.approx(auroc(worst["test"], clean[split]))
        assert value(rows, attack_name="pgd@ood", **told) == pytest.approx(auroc(clean["test"], worst[split]))
        assert value(rows, attack_name="pgd@both", **told) == pytest.approx(auroc(worst["test"], worst[split]))


def test_a_stronger_adversary_never_leaves_more() -> None:
    """One that may change more images, that keeps what others made, or that has a larger radius."""
    rows, _ = measured(config(attacks={"pgd": PGD, "apgd": APGD, "wide": WIDE}))
    for name in WANTED:
        for split in (*GROUPS, "near"):
            found = {
                row["attack_name"] + f"{row['attack']['eps_255']:g}": row
                for row in rows
                if row["metric"] == "auroc" and row["score"] == name and row["split"] == split and row["attack"]
            }
            left = {title: row["value"] for title, row in found.items()}
            for attack in ("pgd", "apgd"):
                assert left[f"{attack}@both4"] <= min(left[f"{attack}@id4"], left[f"{attack}@ood4"])
                assert left[f"{attack}@both4"] < found[f"{attack}@both4"]["checks"]["clean"]
                for threat in ("id", "ood", "both"):
                    assert left[f"worst@{threat}4"] <= left[f"{attack}@{threat}4"]
            for threat in ("id", "ood", "both"):
                assert left[f"worst@{threat}9"] <= min(left[f"worst@{threat}4"], left[f"wide@{threat}9"])


def test_more_steps_find_no_less() -> None:
    """APGD keeps its best image, and here one more schedule only climbs higher."""
    few, many = (
        value(
            measured(config(attacks={"apgd": schema.APGD(eps_255=4, steps=steps)}))[0],
            metric="auroc", score="largest", split="near", attack_name="apgd@both",
        )
        for steps in (1, 20)
    )  # fmt: skip
    assert many <= few


def test_batches_padding_and_whole_batches_of_padding_change_no_figure() -> None:
    settings = config(joint=True)
    together, apart = measured(settings)[0], measured(settings, size=7, padding=3)[0]
    assert [row["value"] for row in apart] == pytest.approx([row["value"] for row in together])
    assert [{**row, "value": 0, "checks": 0} for row in apart] == [{**row, "value": 0, "checks": 0} for row in together]


def test_rows_are_whole_and_no_two_of_them_are_of_the_same_thing(rows: list[Row]) -> None:
    whole = [{**row, "dataset": "toy", "stage": "before", "seed": 0} for row in rows]
    assert all(column in row for row in whole for column in (*IDENTITY, *MEASURED))
    identities = {json.dumps([row[column] for column in IDENTITY], sort_keys=True) for row in whole}
    assert len(identities) == len(rows)


def test_a_score_that_nobody_aimed_at_is_judged_by_what_was_made_against_others() -> None:
    rows, _ = measured(config(attacked_scores=["largest"]))
    own = [row for row in rows if row["score"] == "mcm" and row["attack"]]
    assert {row["attack_name"] for row in own} == {"worst@id", "worst@ood", "worst@both"}
    assert all("no attack was aimed at this score" in row["checks"]["suspect"] for row in own)


def test_jointly_more_is_wrong_and_accepted_than_without_an_attack(rows: list[Row]) -> None:
    for name in WANTED:
        (row,) = [row for row in rows if row["attack_name"] == "pgd@joint" and row["score"] == name]
        assert row["metric"] == "silent_error"
        assert row["value"] > row["checks"]["clean"]


def test_the_joint_loss_is_positive_exactly_where_both_goals_are_reached() -> None:
    generator = torch.Generator().manual_seed(5)
    logits, values = torch.randn(500, 4, generator=generator), torch.randn(500, 1, generator=generator).double()
    labels = torch.arange(500) % 4
    loss = joint_loss(lambda each: each[:, 4].double(), lambda each: each[:, :4], torch.tensor(0.3), torch.tensor(2.0))
    found = loss(torch.cat([logits, values], 1), labels)
    assert torch.equal(found > 0, (logits.argmax(1) != labels) & (values[:, 0].float() > 0.3))


def test_where_a_probability_is_all_but_one_its_log_odds_still_move_and_have_a_direction() -> None:
    for margin in (5.0, 30.0, 36.0, 60.0):
        logits = torch.tensor([[margin, 0.0], [margin + 0.5, 0.0]], dtype=torch.float64, requires_grad=True)
        odds = log_odds(logits.softmax(1).amax(1))
        (gradient,) = torch.autograd.grad(odds.sum(), logits)
        assert (gradient[:, 1] < 0).all()
        assert margin > 34 or odds.float().detach().diff() > 0.4


def test_hidden_gradients_are_told() -> None:
    rows, _ = measured(config(), model=Masked())
    attacked = [row for row in rows if row["attack_name"] == "pgd@both"]
    assert attacked
    assert all("gradients are zero" in row["checks"]["suspect"] for row in attacked)


def test_class_texts_are_encoded_once_and_no_weight_gets_a_gradient() -> None:
    model = Toy()
    measured(config(), model=model)
    assert model.captions == [f"a {name}" for name in NAMES]
    assert model.weight.grad is None


def test_samples_that_lack_are_an_error() -> None:
    _, module = measured(config(attacks={}, attacked_scores=[]))
    module.parts[2] = replace(module.parts[2], samples=31)
    with pytest.raises(DataError, match="split 'near_a' saw 30 samples of 31"):
        module.rows()


def bank(path: Path, *texts: str) -> FileBank:
    """All of these texts, none of which selection drops."""
    path.write_text("\n".join(texts))
    band = Band(scale="absolute", safe=-1.0, risk=1.0, foreign=1.0)
    return FileBank(path=str(path), selection=BandSelection(names=False, duplicates=None, band=band))


def test_figures_without_what_names_the_outliers_are_those_of_the_smaller_bank(tmp_path: Path) -> None:
    settings = OpenWorldConfig(
        scores={
            "neglabel": scores.NegLabel(bank="own", groups=2),
            "ada": scores.AdaNeg(bank="own"),
            "plain": scores.MaxLogit(),
        }
    )
    whole = bank(tmp_path / "whole.txt", "hammer", "zebra", "small guitar", "violin", "truck")
    rest = bank(tmp_path / "rest.txt", "hammer", "violin", "truck")
    concepts = {"near_a": ["zebra", "lamp"], "near_b": ["guitar"], "far": None}
    found, _ = measured(settings, banks={"own": whole}, concepts=concepts)
    reduced, _ = measured(settings, banks={"own": rest}, concepts={})
    for name in ("neglabel", "ada"):
        for split in (*GROUPS, "near"):
            told = {"score": name, "split": split, "metric": "auroc"}
            (row,) = [row for row in found if all(row.get(key) == each for key, each in told.items())]
            if split == "far":
                assert "auroc_without_named" not in row
                continue
            assert row["auroc_without_named"] == pytest.approx(value(reduced, **told))
            named = row["checks"]["named"]
            assert (named["exactly"], named["concepts"]) == {"near_a": (1, 2), "near_b": (1, 1), "near": (2, 3)}[split]
    assert all("named" not in row["checks"] for row in found if row["score"] == "plain")


def test_a_vaccinated_model_is_attacked_and_audited_with_its_antibodies(tmp_path: Path) -> None:
    """Accepted is what its own thresholds accept, and its class is what its prototypes say."""
    model, own = Toy(), bank(tmp_path / "bank.txt", "hammer", "zebra", "violin")
    texts, antibodies = (
        nn.functional.normalize(model.embed_text([f"a {name}" for name in names]), dim=1)
        for names in (NAMES, ("hammer", "zebra", "violin"))
    )
    owners = torch.full((3,), -1)
    immunity = Immunity(Adapter(12, 8), texts.roll(1, 0), torch.full((4,), 10.0), antibodies, owners, class_names=NAMES)
    immunity.captions = ("hammer", "zebra", "violin")
    immunity.tail_threshold.fill_(0.25)  # type: ignore[operator]
    model.immunity = immunity
    settings = OpenWorldConfig(
        scores={"s_dis": scores.SDis(recalibrated=False)}, attacks={"pgd": PGD}, attacked_scores=["s_dis"], joint=True
    )
    rows, module = measured(
        settings, model=model, banks={"own": own}, vaccine="own", concepts={"near_a": ["zebra"], "near_b": ["guitar"]}
    )
    batch = {part.split: made[0] for part, made in zip(parts(None), batches(parts(None)), strict=True)}
    with torch.no_grad():
        embeddings = {split: model.embed_image(each["image"]) for split, each in batch.items()}
    accepted = immunity.accept(embeddings["test"])
    right = immunity.classify(embeddings["test"]) == batch["test"]["label"]
    assert 0 < accepted.sum() < len(accepted)
    assert value(rows, metric="id_accepted") == pytest.approx(accepted.double().mean().item())
    assert value(rows, metric="id_accuracy") == pytest.approx(right.double().mean().item())
    known = immunity.score(embeddings["near_a"])
    assert value(rows, metric="auroc", split="near_a", attack_name=None) == pytest.approx(
        auroc(immunity.score(embeddings["test"]).detach(), known.detach())
    )
    fewer = Immunity(Adapter(12, 8), texts, torch.ones(4), antibodies[[0, 2]], owners[:2], class_names=NAMES)
    (row,) = [row for row in rows if row["metric"] == "auroc" and row["split"] == "near_a" and not row["attack"]]
    fewer.register_buffer("prototypes", immunity.prototypes)
    expected = auroc(fewer.score(embeddings["test"]).detach(), fewer.score(embeddings["near_a"]).detach())
    assert row["auroc_without_named"] == pytest.approx(expected)
    assert row["auroc_without_named"] != row["value"]
    assert value(rows, metric="auroc", split="far", attack_name="pgd@both") < value(
        rows, metric="auroc", split="far", attack_name=None
    )
    assert immunity is module.look.panel.reference.immunity
    assert len(immunity.antibodies) == 3


def test_a_score_that_learns_depends_on_the_seed_and_not_on_batches(tmp_path: Path) -> None:
    settings = OpenWorldConfig(scores={"ada": scores.AdaNeg(bank="own")})
    banks = {"own": bank(tmp_path / "bank.txt", "hammer", "violin", "truck")}
    one, two = (measured(settings, banks=banks, size=size)[0] for size in (1000, 7))
    assert [row["value"] for row in one] == pytest.approx([row["value"] for row in two])
    assert {row["metric"] for row in one}.isdisjoint({"open_set_accuracy", "id_accepted"})  # there is no threshold


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"attacked_scores": ["mcn"]}, "names no score 'mcn'; did you mean 'mcm'"),
        ({"attacked_scores": ["mcm", "mcm"]}, "has an entry twice"),
        ({"attacks": {}}, "attacks is empty"),
        ({"attacked_scores": []}, "attacked_scores is empty"),
        ({"attacks": {}, "attacked_scores": [], "joint": True}, "joint needs an attack"),
        ({"attacks": {"idle": schema.NoAttack()}}, "'idle' of kind none"),
        ({"attacks": {"square": schema.Square()}}, "'square' of kind square"),
        ({"scores": {"ada": scores.AdaNeg(bank="own")}, "attacked_scores": ["ada"]}, "'ada' of kind ada_neg, which"),
        ({"attacked_samples": 0}, "attacked_samples"),
    ],
)  # fmt: skip
def test_what_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(FieldError, match=told):
        config(**given)


def test_without_scores_there_are_two() -> None:
    assert [type(each) for each in OpenWorldConfig().wanted.values()] == [scores.MCM, scores.MaxLogit]


def test_it_is_there_by_default_and_null_leaves_it_out() -> None:
    given = compose("zero_shot", ["evaluation.open_world.joint=false"]).config.evaluation.open_world
    assert given == OpenWorldConfig()
    assert compose("zero_shot").config.evaluation.open_world == OpenWorldConfig()
    assert compose("quickstart", ["evaluation.open_world=null"]).config.evaluation.open_world is None


def test_the_glance_shows_the_rows_figures() -> None:
    """Near is a mean of two splits, far the only split of its group; a score that was not aimed at is marked."""
    rows, _ = measured(config(attacked_scores=["largest"]))
    parsed = [Parsed.parse({**row, "dataset": "toy", "stage": "before", "seed": 0}) for row in rows]
    for score, mark in (("mcm", " *"), ("largest", "")):
        near, far = (value(rows, metric="auroc", score=score, attack_name=None, split=each) for each in ("near", "far"))
        worst = {"metric": "auroc", "score": score, "attack_name": "worst@both"}
        left = [value(rows, split=each, **worst) for each in ("near", "far")]
        (line,) = [line for line in cells(parsed, ["before"]) if line[0] == score]
        assert line[2].split() == [f"{100 * near:.1f}", "|", f"{100 * far:.1f}"]
        assert line[3] == " | ".join(f"{100 * each:.1f}".rjust(5) for each in left) + mark
    assert cells([row for row in parsed if not row.score], ["before"]) == []


def test_a_histogram_of_clean_scores_tells_the_clean_figure() -> None:
    told = {"dataset": "toy", "stage": "before", "seed": 0}
    rows, module = measured(config())
    parsed = [Parsed.parse({**row, **told}) for row in rows]
    kept = {"mcm": {split: module.evidence()[f"scores/mcm/{split}"] for split in ("test", *GROUPS)}}
    drawing = score_histograms({"before": Evidence(kept, None)}, parsed, "mcm")
    assert drawing is not None
    (legend,) = [each.get_legend() for each in drawing.axes]
    shown = value(rows, metric="auroc", score="mcm", attack_name=None, split="far")
    assert any(f"AUROC {100 * shown:.1f}" in text.get_text() for text in legend.get_texts())
