"""Negative selection: bands, autoimmunity, near-duplicates, NegLabel's rule; and what it can't reach."""

import ast
import inspect
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lightning_modules.antibodies.selection as module
from configs.errors import ConfigError
from configs.schema.antibodies import Band, BandSelection, FurthestSelection
from lightning_modules.antibodies import Antibody, Bank, report, select
from lightning_modules.antibodies.duplicates import near_duplicates

CLASSES = ("gizmo", "dog", "widget")
EVERYTHING = Band("absolute", safe=-1, risk=1, foreign=1)
OPEN = BandSelection(names=False, duplicates=None, band=EVERYTHING)


def bank_of(owners: list[int], families: list[str] | None = None, texts: list[str] | None = None) -> Bank:
    names = [CLASSES[owner] if owner >= 0 else None for owner in owners]
    families = families or ["x"] * len(owners)
    texts = texts or [f"brick {place}" for place in range(len(owners))]
    made = [Antibody(*each, "file") for each in zip(names, families, texts, strict=True)]
    return Bank("mine", CLASSES, tuple(made))


def at(cosines: list[list[float]]) -> Tensor:
    """Features with these cosines to three prototypes along the axes; the rest of each is its own direction."""
    given_part = torch.tensor(cosines)
    rest = torch.eye(len(cosines)) * (1 - given_part.square().sum(1)).clamp_min(0).sqrt()[:, None]
    return torch.cat([given_part, rest], dim=1)


def prototypes(features: Tensor) -> Tensor:
    return torch.eye(3, features.shape[1])


def rules(found: list[str | None]) -> list[str | None]:
    return [reason.partition(":")[0] if reason else None for reason in found]


def test_cosines_are_with_the_own_and_the_nearest_class() -> None:
    features = at([[0.5, 0.25, 0.0], [0.25, 0.125, 0.5], [0.0, 0.75, 0.25]])
    found = select(bank_of([0, 0, -1]), 3 * features, 2 * prototypes(features), OPEN)
    assert found.own[:2].tolist() == [0.5, 0.25]
    assert math.isnan(found.own[2])
    assert found.nearest.tolist() == [0.5, 0.5, 0.75]
    assert found.kept.all()
    assert found.reasons == [None] * 3


@pytest.mark.parametrize("own", [-0.5, 0.25, 0.5, 0.75])
def test_an_absolute_band_is_open_at_both_ends(own: float) -> None:
    features = at([[own, 0.0, 0.0], [0.5, 0.0, 0.0]])
    band = BandSelection(names=False, duplicates=None, band=Band("absolute", safe=0.25, risk=0.75, foreign=1))
    found = select(bank_of([0, 0]), features, prototypes(features), band)
    assert found.kept.tolist() == [0.25 < own < 0.75, True]
    assert rules(found.reasons)[0] == ("far" if own <= 0.25 else "near" if own >= 0.75 else None)


cosine_lists = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=25)


@settings(max_examples=100, deadline=None)
@given(cosine_lists, st.sampled_from([0, 0.1, 0.2, 0.29]), st.sampled_from([0.7, 0.8, 0.9, 1]))
def test_quantiles_are_ranks_and_ties_fall_by_order(own: list[float], safe: float, risk: float) -> None:
    """Against a sort in whole numbers of hundredths."""
    features = at([[each, 0.0, 0.0] for each in own])
    band = BandSelection(names=False, duplicates=None, band=Band("quantile", safe, risk, foreign=1))
    found = select(bank_of([0] * len(own)), features, prototypes(features), band)
    order = sorted(range(len(own)), key=lambda place: (own[place], place))
    low = round(safe * 100) * len(own) // 100
    high = (100 - round(risk * 100)) * len(own) // 100
    dropped = {*order[:low], *order[len(own) - high :]}
    assert [place for place, kept in enumerate(found.kept.tolist()) if not kept] == sorted(dropped)


def test_bands_are_of_each_class_and_family() -> None:
    """Of five, the lowest and the highest; whatever other classes and families have."""
    one = [[0.1 * step, 0.0, 0.0] for step in range(1, 6)]
    other = [[0.0, 0.1 * step + 0.3, 0.0] for step in range(1, 6)]
    features = at(one + one + other)
    families = ["x"] * 5 + ["y"] * 5 + ["x"] * 5
    whole = Band("quantile", 0, 1, foreign=1)
    band = BandSelection(names=False, duplicates=None, band=Band("quantile", 0.2, 0.8, foreign=1), bands={"y": whole})
    found = select(bank_of([0] * 10 + [1] * 5, families), features, prototypes(features), band)
    assert found.kept.tolist() == [False, True, True, True, False] + [True] * 5 + [False, True, True, True, False]


def test_what_is_near_to_another_class_is_dropped() -> None:
    features = at([[0.3, 0.6, 0.0], [0.6, 0.3, 0.0], [0.0, 0.2, 0.5], [0.1, 0.0, 0.0]])
    absolute = BandSelection(names=False, duplicates=None, band=replace(EVERYTHING, foreign=0.5))
    found = select(bank_of([0, 0, -1, -1]), features, prototypes(features), absolute)
    assert rules(found.reasons) == ["foreign", None, "foreign", None]
    assert found.reasons[0] == "foreign: 0.600 to 'dog'"
    quantile = BandSelection(names=False, duplicates=None, band=Band("quantile", 0, 1, foreign=0.75))
    found = select(bank_of([0, 0, -1, -1]), features, prototypes(features), quantile)
    assert rules(found.reasons) == ["foreign", None, None, None]


def test_names_are_dropped_before_bands_are_measured() -> None:
    features = at([[0.1 * step, 0.0, 0.0] for step in range(1, 7)])
    texts = ["a {c} beside a widget", "hot dog", "canine", "brick", "a {c} at sea", "Canis familiaris"]
    bank = bank_of([0] * 6, texts=texts)
    found = select(bank, features, prototypes(features), replace(OPEN, names=True))
    assert rules(found.reasons) == ["name", "name", "name", None, None, "name"]
    assert found.reasons[1] == "name: exactly 'dog'"
    assert found.reasons[5] == "name: synonym 'dog'"
    halved = replace(OPEN, names=True, band=Band("quantile", 0.5, 1, foreign=1))
    assert select(bank, features, prototypes(features), halved).kept.tolist() == [False] * 4 + [True, False]


def test_duplicates_are_those_of_the_own_class() -> None:
    features = at([[0.5, 0.2, 0.0]] * 4)
    features[:, 3:] = features[:1, 3:]
    found = select(bank_of([0, 1, 0, -1]), features, prototypes(features), replace(OPEN, duplicates=0.999))
    assert rules(found.reasons) == [None, None, "duplicate", None]
    assert found.reasons[2] == "duplicate: of 'brick 0'"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 40), st.sampled_from([0.3, 0.7, 0.95]))
def test_duplicates_are_the_same_block_by_block(seed: int, count: int, threshold: float) -> None:
    """Against one pass over pairs in order."""
    features = F.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)), dim=1)
    kept: list[int] = []
    for place in range(count):
        if not any(float(features[place] @ features[other]) >= threshold for other in kept):
            kept.append(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_modules.antibodies.duplicates.BLOCK", 7)
        found = near_duplicates(features, threshold)
    assert [place for place, first in enumerate(found) if first is None] == kept
    for place, first in enumerate(found):
        assert first is None or (first in kept and first < place)
        assert first is None or float(features[place] @ features[first]) >= threshold - 1e-6


def test_the_furthest_words_are_kept_nouns_and_adjectives_by_themselves() -> None:
    """Against a sort of each word's quantile, by numpy's definition on all cosines at once."""
    generator = torch.Generator().manual_seed(3)
    features = F.normalize(torch.randn(50, 8, generator=generator), dim=1)
    features[:30] += 0.5  # nouns are all nearer to the classes
    centres = F.normalize(torch.rand(3, 8, generator=generator), dim=1)
    bank = bank_of([-1] * 50, ["noun"] * 30 + ["adjective"] * 20)
    found = select(bank, features, centres, FurthestSelection(share=0.2, quantile=0.95))
    closeness = torch.quantile((F.normalize(features, dim=1).double() @ centres.double().T), 0.95, dim=1).tolist()
    nouns = sorted(range(30), key=lambda place: closeness[place])[:6]
    adjectives = sorted(range(30, 50), key=lambda place: closeness[place])[:4]
    assert {place for place, kept in enumerate(found.kept.tolist()) if kept} == {*nouns, *adjectives}


def test_a_band_that_empties_classes_names_them() -> None:
    features = at([[0.1, 0.0, 0.0], [0.6, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]])
    band = BandSelection(names=False, duplicates=None, band=Band("absolute", 0.5, 0.9, 1))
    with pytest.raises(ConfigError, match=r"antibodies\.mine drops every antibody of 'dog', 'widget'; .*quantile"):
        select(bank_of([0, 0, 1, 2]), features, prototypes(features), band)
    quantiles = replace(band, band=Band("quantile", 0.1, 0.9, 1))
    assert select(bank_of([0, 0, 1, 2]), features, prototypes(features), quantiles).kept.all()
    nearest = replace(band, band=Band("quantile", 0.1, 0.9, 0.5))  # two of four are nearer to other classes
    with pytest.raises(ConfigError, match=r"drops every antibody of .*; they are near other classes: raise .*foreign"):
        select(
            bank_of([0, 0, 1, 2]),
            at([[0.1, 0.9, 0.0], [0.6, 0.8, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]]),
            prototypes(features),
            nearest,
        )


def test_a_class_whose_texts_all_name_it_is_not_the_bands_fault() -> None:
    features = at([[0.0, 0.5, 0.0]])
    found = select(bank_of([1], texts=["the dogs"]), features, prototypes(features), BandSelection())
    assert not found.kept.any()


@pytest.mark.parametrize("scale", ["quantile", "absolute"])
def test_the_same_input_has_the_same_verdict_in_blocks_of_any_size(
    scale: Literal["quantile", "absolute"], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    features, centres = (torch.randn(count, 8, generator=generator) for count in (60, 3))
    bank = bank_of([place % 4 - 1 for place in range(60)], ["x", "y", "z"] * 20)
    band = BandSelection(duplicates=0.9, band=Band(scale, 0.0 if scale == "absolute" else 0.2, 0.9, 0.8))
    whole = select(bank, features, centres, band)
    monkeypatch.setattr(module, "BLOCK", 7)
    blocks = select(bank, features, centres, band)
    assert blocks.reasons == whole.reasons
    assert 0 < int(whole.kept.sum()) < 60


def test_the_report_counts_everything_once() -> None:
    features = at([[0.1 * step, 0.0, 0.0] for step in range(8)])
    bank = bank_of([0] * 8, ["x", "y"] * 4, ["dogs"] + [f"brick {place}" for place in range(7)])
    found = select(bank, features, prototypes(features), BandSelection(band=Band("quantile", 0.3, 0.7, 1)))
    lines = report(bank, found).splitlines()
    counts = torch.tensor([[int(cell) for cell in line.split() if cell.isdigit()][:2] for line in lines[1:]])
    assert counts.sum(0).tolist() == [4, 4]
    assert lines[1].startswith("kept")
    assert sum(counts[0].tolist()) == int(found.kept.sum())
    assert any("names an in-distribution class" in line and "dogs (exactly 'dog')" in line for line in lines)


def test_selection_can_not_reach_what_is_out_of_distribution() -> None:
    """Its signature has no place for it, and nothing that it imports, directly or not, knows of any data set."""
    assert list(inspect.signature(select).parameters) == ["bank", "features", "prototypes", "rules"]
    root = Path(module.__file__).parents[2]
    seen: set[str] = set()
    todo = [module.__name__]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += _imported(root, name)
    assert "lightning_modules.antibodies.names" in seen
    assert "lightning_modules.antibodies.overlap" not in seen
    assert not [name for name in seen if name.startswith(("datamodules", "experiments")) or name.endswith(".data")]


def test_a_large_bank_takes_seconds() -> None:
    """1,000 classes and 10,000 antibodies, of the processor."""
    names = tuple(f"thing {place}" for place in range(1000))
    made = tuple(Antibody(names[place % 1000], "x", f"brick {place}", "file") for place in range(10_000))
    features, centres = torch.randn(10_000, 64), torch.randn(1000, 64)
    bank = Bank("large", names, made, None)
    began = time.process_time()
    select(bank, features, centres, BandSelection(names=False))
    assert time.process_time() - began < 5


def _imported(root: Path, name: str) -> list[str]:
    """Modules of ours that a module's source imports; what a package's __init__ does to it does not count."""
    path = root / (name.replace(".", "/") + ".py")
    if not path.is_file():
        return []
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
        elif isinstance(node, ast.Import):
            found += [each.name for each in node.names]
    return [
        each
        for each in found
        if each.partition(".")[0] in ("lightning_modules", "datamodules", "experiments", "configs")
    ]
