"""A deployed model answers as the parts that it is made of, and so does its program, without this project."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import CLASS_NAMES, TREE
from torch import Tensor

from configs.errors import CheckpointError, DataError
from configs.schema.model import ModelConfig
from experiments.models.labels import Labels
from experiments.models.legend import Legend
from lightning_modules.backbones import Backbone, class_features, load_backbone
from lightning_modules.deployed import Deployed, save_program
from lightning_modules.heads import classify
from lightning_modules.heads.hyperbolic import Entry, HyperbolicHead
from lightning_modules.open_world.adapter import Adapter
from lightning_modules.open_world.immunity import Immunity

TEMPLATES = ("a {c}", "a picture of a {c}")
LABELS = Labels(CLASS_NAMES, TEMPLATES, {"colours": TREE})
KINDS = ("plain", "hyperbolic", "vaccinated", "own", "no antibodies")


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def immunity_of(embeddings: Tensor, danger: Any, count: int) -> Immunity:
    """Around embeddings, with a trained adapter, so that pictures differ in class, antibody and decision.

    One class has no antibody of its own, and where owners count, none is without an owner.
    """
    generator, dimension = torch.Generator().manual_seed(3), embeddings.shape[1]
    adapter = Adapter(dimension, 8)
    torch.nn.init.normal_(adapter.outward.weight, std=0.05, generator=generator)
    around = F.normalize(embeddings, dim=-1).mean(dim=0)
    near = F.normalize(around + 0.2 * unit(generator, len(CLASS_NAMES) + count, dimension), dim=-1)
    owners = torch.arange(count) % (len(CLASS_NAMES) - 1)
    immunity = Immunity(
        adapter,
        near[: len(CLASS_NAMES)].clone(),
        torch.linspace(20, 40, len(CLASS_NAMES)),
        near[len(CLASS_NAMES) :].clone(),
        owners if danger == "own" else owners - 1,
        class_names=CLASS_NAMES,
        captions=[f"antibody {number}" for number in range(count)],
        lambda_inf=0.7,
        danger=danger,
    ).eval()
    with torch.no_grad():
        immunity.calibrate(embeddings, tail=0.5, rejected=0.3, tail_samples=2)
    return immunity


def pictures(size: int = 32) -> Tensor:
    """Random ones, black and white among them."""
    found = torch.rand(40, 3, size, size, generator=torch.Generator().manual_seed(0))
    found *= torch.linspace(0, 1, 40)[:, None, None, None]
    found[1] = 1
    return found


@pytest.fixture
def backbone(tiny_vit: str) -> Callable[..., Backbone]:
    def make(kind: str, name: str = tiny_vit) -> Backbone:
        found = load_backbone(ModelConfig(name))
        if kind == "hyperbolic":
            found.hyperbolic = HyperbolicHead(1.0, Entry(0.1, 0.5, 1.0), Entry(-0.2, 0.0, 1.0), 1.0)
        elif kind != "plain":
            embeddings = found.embed_image(pictures(found.image_size)).detach()
            count = 0 if kind == "no antibodies" else 30
            found.immunity = immunity_of(embeddings, "own" if kind == "own" else "global", count)
        return found

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_its_parts(kind: str, backbone: Callable[..., Backbone]) -> None:
    whole, pixels = backbone(kind), pictures()
    answers = Deployed(backbone(kind), LABELS.forest, TEMPLATES)(pixels)
    embeddings = whole.embed_image(pixels).detach()
    immunity = whole.immunity
    if immunity is None:
        logits = classify(whole.head, embeddings, class_features(whole, CLASS_NAMES, TEMPLATES))
    else:
        logits = immunity.logits(immunity.adapt(embeddings))
        torch.testing.assert_close(answers["score"], immunity.score(embeddings))
        assert torch.equal(answers["class"], immunity.classify(embeddings))
        assert torch.equal(answers["accept"], immunity.accept(embeddings))
        assert torch.equal(answers["threshold"], immunity.threshold[answers["class"]])
    torch.testing.assert_close(answers["confidence"], logits.softmax(dim=1).amax(dim=1))
    assert torch.equal(answers["class"], logits.argmax(dim=1))
    assert len(answers["class"].unique()) > 1
    colours = torch.tensor(TREE["parents"][0])
    assert torch.equal(answers["levels"], torch.stack([answers["class"], colours[answers["class"]]], dim=1))
    assert set(answers) >= {"score", "accept"} if immunity else set(answers) == {"class", "levels", "confidence"}


@pytest.mark.parametrize("kind", ["vaccinated", "own"])
def test_the_antibody_is_what_the_score_falls_for(kind: str, backbone: Callable[..., Backbone]) -> None:
    """Its cosine is s-; of a class that has none of its own, it is the nearest of all."""
    model = Deployed(backbone(kind), LABELS.forest, TEMPLATES)
    pixels = pictures()
    answers, immunity = model(pixels), model.immunity
    assert immunity is not None
    embeddings = backbone(kind).embed_image(pixels)
    _, danger = immunity.terms(embeddings)
    found = immunity.antibodies[answers["antibody"]]
    torch.testing.assert_close((immunity.adapt(embeddings) * found).sum(dim=1), danger)
    owned = immunity.owners[answers["antibody"]] == answers["class"]
    without = answers["class"] == len(CLASS_NAMES) - 1
    assert kind != "own" or bool((owned | without).all())
    assert 0 < int(answers["accept"].sum()) < len(pixels)


def test_without_antibodies_none_is_named(backbone: Callable[..., Backbone]) -> None:
    assert (Deployed(backbone("no antibodies"), LABELS.forest, TEMPLATES)(pictures())["antibody"] == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "hyperbolic", "own", "no antibodies"])
def test_its_program_answers_the_same(kind: str, backbone: Callable[..., Backbone]) -> None:
    """For any batch, with the same gradient in the pixels, so that it can be attacked. Bytes and normalised pixels,
    which a program would take for what they are not, are refused."""
    model = Deployed(backbone(kind), LABELS.forest, TEMPLATES)
    program, pixels = written_and_read(model), pictures()
    for count in (1, 2, 40):
        torch.testing.assert_close(program(pixels[:count]), model(pixels[:count]))
    objective = "confidence" if model.immunity is None else "score"
    gradients = []
    for each in (model, program):
        start = pixels.clone().requires_grad_()
        gradients += torch.autograd.grad(each(start)[objective].sum(), start)
    torch.testing.assert_close(gradients[1], gradients[0])
    assert gradients[0].abs().sum() > 0
    for answer in (model, program):
        for wrong in ((255 * pixels).to(torch.uint8), 2 * pixels - 1):
            with pytest.raises(RuntimeError, match=r"\[0, 1\]; divide bytes by 255"):
                answer(wrong)


def written_and_read(model: Deployed) -> torch.nn.Module:
    """Its program."""
    file = io.BytesIO()
    save_program(model, file)
    file.seek(0)
    return torch.export.load(file).module()


def test_it_refuses_other_classes(backbone: Callable[..., Backbone]) -> None:
    with pytest.raises(DataError, match=r"6 classes .* has 2"):
        Deployed(backbone("vaccinated"), Labels(("ant", "bee")).forest, TEMPLATES)


@pytest.mark.slow
def test_its_program_needs_nothing_of_this_project(backbone: Callable[..., Backbone], tmp_path: Path) -> None:
    model, pixels = Deployed(backbone("vaccinated", "mini"), LABELS.forest, TEMPLATES), pictures(64)
    with (tmp_path / "model.pt2").open("wb") as file:
        save_program(model, file)
    Legend.of(model, LABELS).save(tmp_path / "model.json")
    torch.save(pixels, tmp_path / "pixels.pt")
    code = """
import json, sys, torch
answers = torch.export.load("model.pt2").module()(torch.load("pixels.pt"))
legend = json.load(open("model.json"))
ours = {"configs", "datamodules", "lightning_modules", "experiments", "open_clip"} & sys.modules.keys()
assert not ours, ours
print(json.dumps({
    "classes": [legend["class_names"][each] for each in answers["class"]],
    "colours": [legend["levels"][1]["names"][each] for _, each in answers["levels"].tolist()],
    "captions": [legend["captions"][each] for each in answers["antibody"]],
    "accept": answers["accept"].tolist(),
}))
"""
    told = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    answers, immunity = model(pixels), model.immunity
    assert immunity is not None
    names = [CLASS_NAMES[each] for each in answers["class"]]
    assert json.loads(told) == {
        "classes": names,
        "colours": [name.split()[0] for name in names],
        "captions": [immunity.captions[each] for each in answers["antibody"]],
        "accept": answers["accept"].tolist(),
    }


@pytest.mark.parametrize("kind", ["plain", "vaccinated"])
def test_a_legend_is_read_as_it_was_written(kind: str, backbone: Callable[..., Backbone], tmp_path: Path) -> None:
    legend = Legend.of(Deployed(backbone(kind), LABELS.forest, TEMPLATES), LABELS)
    legend.save(tmp_path / "model.json")
    assert Legend.load(tmp_path / "model.json") == legend
    assert (legend.captions is None) == (kind == "plain")


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"format": 2}'])
def test_a_legend_that_is_none(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"model\.json, .* export again"):
        Legend.load(tmp_path / "model.json")
