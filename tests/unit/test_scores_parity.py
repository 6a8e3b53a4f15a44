"""Every open-world score against its paper's formula in loops."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import literal_scores as literal
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_worlds import CLASSES, GROUPS, WIDTH, drawn, embeddings, hyperbolic, reference, settings

from configs.schema import scores as schema
from lightning_modules.heads import CosineHead, Head
from lightning_modules.open_world import Reference, Scores, sweep
from lightning_modules.open_world.adapter import Adapter
from lightning_modules.open_world.immunity import Immunity

HEADS: dict[str, Callable[[], Head]] = {"cosines": lambda: CosineHead(20.0), "ball": hyperbolic}


def expected(world: Reference, batch: torch.Tensor, name: str) -> list[float]:
    head, scale = world.head, world.scale
    images = head.images(batch)
    bank = head.similarities(images, world.banks["bank"].points).double().tolist()
    classes = head.similarities(images, world.classes).double().tolist()
    no = head.similarities(images, head.texts(drawn(7, CLASSES, WIDTH)[:, None])).double().tolist()
    units, training = F.normalize(batch.double(), dim=1).numpy(), world.features.double().numpy()
    kind, _, form = name.partition("_")
    formulas: dict[str, Callable[[int], float]] = {
        "msp": lambda i: literal.msp(classes[i], 1 / scale),
        "max": lambda i: max(classes[i]),
        "energy": lambda i: literal.energy(classes[i], scale, 2.0),
        "mcm": lambda i: literal.msp(classes[i], 1.0),
        "neglabel": lambda i: literal.neglabel(classes[i], bank[i], *((3, 0.01) if form else (GROUPS, 0.1))),
        "eoe": lambda i: literal.eoe(classes[i], bank[i], form),
        "clipn": lambda i: literal.clipn(classes[i], no[i], scale, form),
        "knn": lambda i: literal.knn(units[i], training, 7),
        "mahalanobis": lambda i: literal.mahalanobis(units[i], training, world.labels.numpy()),
        "vim": lambda i: literal.vim(units[i], classes[i], training, world.classes.double().numpy(), scale, 3),
    }
    return [formulas[kind](i) for i in range(len(batch))]


@pytest.mark.parametrize("block", [1, 50, 2**20])
@pytest.mark.parametrize("head", HEADS)
def test_every_score_is_its_papers(head: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sweep.BLOCK, "cpu", block)
    world, batch = reference(HEADS[head]()), embeddings()
    found = Scores(settings(tmp_path, head == "cosines"), world)(batch)
    for name, values in found.items():
        assert values.dtype == torch.float64
        np.testing.assert_allclose(values, expected(world, batch, name), rtol=2e-5, atol=1e-9, err_msg=name)


def test_both_outcomes_of_eoe_max_occur(tmp_path: Path) -> None:
    values = Scores(settings(tmp_path), reference(CosineHead(20.0)))(embeddings(40))["eoe_max"]
    assert 0 < int((values == 1 / CLASSES).sum()) < 40


@pytest.mark.parametrize("length", [2, 3, 7])
def test_ada_neg_is_its_papers_over_batches(length: int) -> None:
    """With full memories that give up images, and with batches of unequal size."""
    world = reference(CosineHead(6.0))
    own = Scores({"ada": schema.AdaNeg(bank="bank", groups=GROUPS, length=length)}, world)
    peer = literal.AdaNeg(
        world.classes.double().numpy(), world.banks["bank"].points.double().numpy(), 6.0, GROUPS, length
    )
    batch = torch.cat([embeddings(40), world.classes[[0, 2, 3]] + 0.1 * drawn(8, 30, 3, WIDTH)[0]])
    moved = 0.0
    for part in torch.split(batch, 15):
        values = own(part)["ada"]
        wanted = peer.batch(F.normalize(part.double(), dim=1).numpy())
        np.testing.assert_allclose(values, wanted, rtol=1e-4)
        static = [1.1 * peer.share(each, peer.texts) for each in F.normalize(part.double(), dim=1).numpy()]
        moved = max(moved, float(np.abs(np.array(wanted) - static).max()))
    assert moved > 0.05
    assert np.isfinite(peer.entropy).all(axis=1).any()  # a memory was full


def test_s_dis_is_the_immunitys() -> None:
    """And its class is too: the adapter moves every embedding, so that nearest texts and prototypes differ."""
    world, batch = reference(CosineHead(20.0)), embeddings(40)
    adapter = Adapter(WIDTH, 5)
    torch.nn.init.normal_(adapter.outward.weight, generator=torch.Generator().manual_seed(0))
    bank, ones = world.banks["bank"], torch.ones(CLASSES)
    immunity = Immunity(adapter, world.classes, ones, bank.points, bank.owners, class_names=list("abcd"))
    immunity.calibrate(world.features, tail=0.5, rejected=0.05, tail_samples=4)
    world = replace(world, immunity=immunity)
    scores = Scores(
        {"raw": schema.SDis(recalibrated=False), "evt": schema.SDis(recalibrated=True), "mcm": schema.MCM()}, world
    )
    found, classes = scores(batch), scores.classes(batch)
    images = adapter(batch).double()
    plain = [
        max(image @ p for p in world.classes.double()) - max(image @ a for a in bank.points.double())
        for image in images
    ]
    torch.testing.assert_close(found["raw"].double(), torch.stack(plain), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["evt"], immunity.recalibrated(batch))
    assert torch.equal(classes["raw"], immunity.classify(batch))
    assert torch.equal(classes["mcm"], world.head.similarities(world.head.images(batch), world.classes).argmax(1))
    assert not torch.equal(classes["raw"], classes["mcm"])
