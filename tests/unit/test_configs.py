"""Every file that is shipped: it composes, says what it claims, and stays the small thing that it should be."""

import dataclasses
import typing
from itertools import takewhile
from pathlib import Path

import pytest

from configs.compose import compose
from configs.layers import CONFIGS, EXPERIMENTS, experiment_names, file_layers
from configs.schema import ExperimentConfig
from configs.schema.data import Data
from configs.schema.module import OptimConfig
from configs.sections import VARIANTS, hints, members

NO_FRAGMENTS = ("experiment", "sweep", "trees", "descriptions")
FRAGMENTS = sorted(path for path in CONFIGS.glob("*/**/*.yaml") if path.parent.name not in NO_FRAGMENTS)
BASELINES = ("tecoa", "fare", "pmg_aft", "tga_zsr", "agft", "saft", "trades")
ABLATIONS = (*(f"{name}_openmoji" for name in BASELINES), "debug")
LABELS = ("# Claim: ", "# Expected: ", "# Time: ", "# Command: ")


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_composes_and_its_resolved_form_is_the_same_run(name: str, tmp_path: Path) -> None:
    first = compose(name)
    resolved = tmp_path / "config.yaml"
    resolved.write_text(first.resolved, encoding="utf-8")
    second = compose(resolved)
    assert (second.config, second.hash) == (first.config, first.hash)
    assert first.config.name == name


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_opens_with_claim_expectation_time_and_command(name: str) -> None:
    lines = (EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    header = takewhile(lambda line: line.startswith("#"), lines)
    labelled = [line for line in header if line.startswith(LABELS)]
    assert [line.startswith(label) for line, label in zip(labelled, LABELS, strict=True)] == [True] * 4
    assert labelled[3].split()[2:5] == ["python", "-m", "experiments"]
    assert name in labelled[3]


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_a_child_of_an_experiment_in_ten_lines(name: str) -> None:
    path = EXPERIMENTS / f"{name}.yaml"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 10
    assert any("/experiment/" in layer.origin for layer in file_layers(path)[:-1])


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_every_fragment_fits_the_schema_on_its_own(path: Path) -> None:
    """With what it leaves open set; a run of the other kind of data where it needs one."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    overrides = ["data.folder=d"]
    if "image_folder," in text:
        overrides.append("data.pack.root=r")
    if "image_text" in text:
        overrides.append("module.kind=contrastive_pretraining")
    if "contrastive_pretraining" in text:
        overrides.append("data.kind=image_text")
    compose(path, overrides)


def test_published_recipes_are_the_published_ones() -> None:
    rates = {"tecoa": 1e-5, "pmg_aft": 5e-5, "tga_zsr": 1e-4, "agft": 4e-4, "saft": 1e-4, "trades": 1e-5}
    for name, rate in rates.items():
        config = compose(f"{name}_vit_b32_imagenet").config
        assert config.optim == OptimConfig(kind="sgd", lr=rate, weight_decay=0.0, warmup_steps=1000)
        assert config.trainer.steps == 10 * (1_281_167 // config.data.batch_size)
    fare = compose("fare_vit_b32_imagenet").config
    assert fare.optim == OptimConfig(kind="adamw", lr=1e-5, weight_decay=1e-4, warmup_steps=1400)


def test_ood_splits_are_for_evaluation_alone() -> None:
    for name in experiment_names():
        data: Data = compose(name).config.data
        ood = set(getattr(data, "near_ood", [])) | set(getattr(data, "far_ood", []))
        assert not ood & {data.train_split, data.val_split}


def test_every_union_of_sections_has_its_registry_and_selector() -> None:
    for union in _unions(ExperimentConfig):
        registered = [variants for variants in VARIANTS if set(variants.classes.values()) == set(union)]
        assert len(registered) == 1
        for name, schema in registered[0].classes.items():
            defaults = {field.name: field.default for field in dataclasses.fields(schema)}
            assert defaults[registered[0].selector] == name


def _unions(schema: type) -> set[tuple[type, ...]]:
    found: set[tuple[type, ...]] = set()
    for hint in hints(schema).values():
        inner = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else hint
        parts = [part for part in members(inner) if dataclasses.is_dataclass(part)]
        if len(parts) > 1:
            found.add(tuple(parts))  # type: ignore[arg-type]
        for part in parts:
            found |= _unions(part)  # type: ignore[arg-type]
    return found
