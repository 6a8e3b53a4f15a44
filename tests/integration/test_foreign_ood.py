"""OOD sets that lie in folders of their own: read by name like a split, counted, named and a part of the digest."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import packed, png, samples
from lightning.pytorch import LightningModule, Trainer

from configs.compose import compose
from configs.errors import DataError, FieldError
from configs.layers import CONFIGS, EXPERIMENTS
from configs.schema.antibodies import LLMBank
from configs.schema.data import OpenWorldData
from datamodules import build_datamodule
from datamodules.manifest import check_class_names, read_lines
from datamodules.open_world import OpenWorldDataModule
from datamodules.pack import Sample
from experiments.cli import main
from experiments.probe_data import ProbeData
from lightning_modules.probes import Probe
from tests.conftest import foreign
from tests.integration.measured import evaluate, experiment, figures

BENCHMARKS = {
    "imagenet_openood": (["ssb_hard", "ninco"], ["inaturalist", "textures", "openimage_o"]),
    "imagenet_mos": ([], ["inaturalist", "sun", "places", "textures"]),
    "imagenet_o": (["imagenet_o"], []),
    "cifar10_open": (["cifar100", "tiny_imagenet"], ["mnist", "svhn", "textures", "places365"]),
    "cifar100_open": (["cifar10", "tiny_imagenet"], ["mnist", "svhn", "textures", "places365"]),
}
RECIPES = (
    "immuno_vit_b16_imagenet",
    "immuno_vit_b16_imagenet_mos",
    "immuno_vit_b16_imagenet_o",
    "immuno_robust_vit_b32_imagenet",
)
NAMES = ("axe", "bow")


def stray(count: int, side: int = 12) -> Iterator[Sample]:
    """Pictures of other things, of another size."""
    for number in range(count):
        yield Sample(f"stray-{number}", png(90_000 + number, side), "png", number % len(NAMES))


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    packed(tmp_path / "zoo", {"train": 12, "val": 4, "test": 5, "near": 4})
    packed(tmp_path / "tools", {}, splits={"test": stray(7)}, class_names=NAMES)
    return tmp_path


def open_world(root: Path, **changes: Any) -> OpenWorldDataModule:
    settings: dict[str, Any] = {
        "near_ood": ["near"],
        "far_ood": ["tools"],
        "ood_folders": {"tools": str(root / "tools")},
    }
    config = OpenWorldData(folder=str(root / "zoo"), batch_size=4, workers=0, **(settings | changes))
    module = build_datamodule(config, seed=0)
    assert isinstance(module, OpenWorldDataModule)
    return module


def test_a_set_in_a_folder_of_its_own_is_read_like_a_split(zoo: Path) -> None:
    module = open_world(zoo, image_size=6)
    assert module.ood_splits == {"near": ["near"], "far": ["tools"]}
    for split, count, is_ood in (("test", 5, False), ("near", 4, True), ("tools", 7, True)):
        loader = module.eval_loader(split, 4)
        batches = list(loader)
        valid = torch.cat([batch["valid"] for batch in batches])
        assert module.samples(split) == loader.samples == int(valid.sum()) == count
        assert all(batch["image"].shape[1:] == (3, 6, 6) for batch in batches)
        assert all(batch["is_ood"].tolist() == [is_ood] * 4 for batch in batches)
        assert all((batch["label"] == -1).tolist() == [is_ood] * 4 for batch in batches)
        keys = [key for batch in batches for key, there in zip(batch["key"], batch["valid"], strict=True) if there]
        assert keys == [f"{'stray' if split == 'tools' else split}-{number}" for number in range(count)]
    assert module.sample("tools", 3)["image"].shape == (3, 3, 6, 6)


def test_a_folder_stands_for_its_name_even_where_the_data_set_has_such_a_split(zoo: Path) -> None:
    module = open_world(zoo, far_ood=[], ood_folders={"near": str(zoo / "tools")})
    assert (module.samples("near"), module.concepts("near")) == (7, NAMES)


def test_concepts_are_known_where_something_names_them(zoo: Path) -> None:
    packed(zoo / "heap", {}, splits={"test": (Sample("s", png(1), "png", 0),)}, class_names=["images"])
    packed(
        zoo / "own", {}, splits={"test": stray(4)}, class_names=["x", "y"], split_class_names={"test": ["axe", "bow"]}
    )
    folders = {name: str(zoo / name) for name in ("tools", "heap", "own")}
    module = open_world(zoo, far_ood=list(folders), ood_folders=folders)
    assert module.concepts("test") == module.class_names == ("ant", "bee", "cow")
    assert (module.concepts("tools"), module.concepts("own")) == (NAMES, NAMES)
    assert module.concepts("heap") is None  # "images" is no concept
    assert module.concepts("near") is None  # in the data set, without names of its own


def test_the_digest_covers_what_is_read_and_nothing_else(zoo: Path) -> None:
    assert open_world(zoo, far_ood=[], ood_folders={}).digest == open_world(zoo).manifest.digest
    told = open_world(zoo).digest
    assert told != open_world(zoo).manifest.digest
    variants: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "moved": ({"test": stray(7)}, NAMES),
        "more": ({"test": stray(7), "train": samples("extra", 3)}, NAMES),
        "changed": ({"test": stray(6)}, NAMES),
        "renamed": ({"test": stray(7)}, ("axe", "arrow")),
    }
    digests = {}
    for name, (splits, names) in variants.items():
        packed(zoo / name, {}, splits=splits, class_names=(*names, "cow"))
        digests[name] = open_world(zoo, ood_folders={"tools": str(zoo / name)}).digest
    assert digests["moved"] == digests["more"]
    assert len({told, *digests.values()}) == 4  # `told` has two classes, not three


def test_a_published_layout_is_indexed_before_the_ranks_read_it(zoo: Path) -> None:
    published = zoo / "published"
    (zoo / "tools").rename(published)
    (published / "manifest.json").unlink()
    (published / "test" / "nshards.txt").write_text("2\n")
    (published / "classnames.txt").write_text("axe\nbow\n")
    module = open_world(zoo, ood_folders={"tools": str(published)})
    module.prepare_data()
    assert (published / ".immunoclip" / "manifest.json").is_file()
    assert (module.samples("tools"), module.concepts("tools")) == (7, NAMES)
    assert module.describe()["samples"] == {"near": 4, "test": 5, "train": 12, "val": 4, "tools": 7}


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("nowhere", "there is no data set at .*nowhere: correct data.ood_folders.tools, or leave 'tools' out"),
        ("empty", "empty has neither manifest.json nor classnames.txt: correct data.ood_folders.tools"),
        ("untested", "untested, which data.ood_folders.tools names, has no split 'test' but train, val: pack one"),
    ],
)
def test_a_folder_that_can_not_be_read_stops_every_way_in(zoo: Path, folder: str, says: str) -> None:
    (zoo / "empty").mkdir()
    packed(zoo / "untested", {"train": 2, "val": 2})
    module = open_world(zoo, ood_folders={"tools": str(zoo / folder)})
    for way_in in (module.prepare_data, module.setup, lambda: module.eval_loader("tools", 4)):
        with pytest.raises(DataError, match=says):
            way_in()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ood_folders": {"tool": "t"}}, "has 'tool', which near_ood and far_ood lack; name it there"),
        ({"near_ood": ["tools"]}, "far_ood names 'tools' twice, or"),
        ({"far_ood": ["tools", "tools"]}, "far_ood names 'tools' twice, or"),
        ({"ood_folders": {"tools": "t", "near": "t"}}, "has t for 'near' and for 'tools'; give each its own"),
        ({"folder": "t"}, "has t for 'tools' and for 'folder'; give each its own"),
    ],
)
def test_contradictions_are_found_in_the_configuration(changes: dict[str, Any], says: str) -> None:
    settings = {"folder": "f", "near_ood": ["near"], "far_ood": ["tools"], "ood_folders": {"tools": "t"}}
    OpenWorldData(**settings)  # type: ignore[arg-type]
    with pytest.raises(FieldError) as error:
        OpenWorldData(**(settings | changes))
    assert says in str(error.value)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_has_the_published_sets_each_in_a_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OOD_SETS", "/sets")
    data = compose(CONFIGS / "data" / f"{name}.yaml").config.data
    assert isinstance(data, OpenWorldData)
    assert (data.near_ood, data.far_ood) == BENCHMARKS[name]
    assert set(data.ood_folders) == {*data.near_ood, *data.far_ood}
    elsewhere = {split for split, folder in data.ood_folders.items() if folder != f"/sets/{split}"}
    assert elsewhere <= {"cifar10", "cifar100"}
    assert data.val_split != data.test_split  # nothing is chosen on what is measured


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_files_and_banks_that_are_there(name: str) -> None:
    config = compose(name).config
    data, open_world = config.data, config.evaluation.open_world
    assert isinstance(data, OpenWorldData)
    assert data.class_names is not None
    assert data.templates is not None
    assert open_world is not None
    names = read_lines(CONFIGS.parent / data.class_names)
    check_class_names(names, data.class_names)
    assert len(names) == 1000
    (template,) = read_lines(CONFIGS.parent / data.templates)
    assert "{c}" in template
    banks = {getattr(score, "bank", None) for score in open_world.scores.values()} - {None}
    assert banks == {"llm", "mined"} <= set(config.antibodies)
    files = [source.file for source in config.antibodies.values() if isinstance(source, LLMBank)]
    assert all((CONFIGS.parent / file).is_file() for file in files)


def test_settings_beside_published_figures_compose() -> None:
    readme = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.partition("## What is not in-distribution")[2].splitlines() if line.startswith("|")]
    settings = {given for row in rows for given in re.findall(r"`([^`]*=[^`]*)`", row)}
    overrides = [each for given in sorted(settings) for each in shlex.split(given)]
    assert len(overrides) == 6
    scores = compose(RECIPES[0], overrides).config.evaluation.open_world
    assert scores is not None
    assert {"csp", "clipn"} <= set(scores.scores)


def test_pictures_are_packed_as_the_benchmarks_say(zoo: Path) -> None:
    """`images` is a link, as for sets that are published as one folder."""
    (zoo / "download" / "images").mkdir(parents=True)
    for number in range(3):
        (zoo / "download" / "images" / f"{number}.png").write_bytes(png(number))
    (zoo / "root" / "test").mkdir(parents=True)
    (zoo / "root" / "test" / "images").symlink_to(zoo / "download" / "images", target_is_directory=True)
    target = zoo / "sets" / "sun"
    pack = f"data.pack={{root: {zoo / 'root'}, source: image_folder}}"
    assert main(["pack", "zero_shot", f"data.folder={target}", pack]) == 0
    module = open_world(zoo, far_ood=["sun"], ood_folders={"sun": str(target)})
    assert (module.samples("sun"), module.concepts("sun")) == (3, None)


def test_figures_are_the_same_in_a_folder_of_its_own(tiny_vit: str, tiny_dataset: Path, tmp_path: Path) -> None:
    """The provenance is not: other files were read."""
    names = {"far": ("noise", "stripes")}
    packed(tmp_path / "far", {}, splits={"test": foreign("far", 14, names["far"])}, class_names=names["far"])
    sets: dict[str, Any] = {"kind": "open_world", "near_ood": ["near"], "far_ood": ["far"]}
    inside = evaluate(experiment(tmp_path / "a" / "tiny.yaml", tiny_vit, tiny_dataset, {}, **sets))
    sets |= {"far_ood": ["noise"], "ood_folders": {"noise": str(tmp_path / "far")}}
    outside = evaluate(experiment(tmp_path / "b" / "tiny.yaml", tiny_vit, tiny_dataset, {}, **sets))
    renamed = [row | {"split": "noise"} if row["split"] == "far" else row for row in figures(inside)]
    assert renamed == figures(outside)
    assert {"near", "noise"} < {row["split"] for row in outside}
    digests = {row["manifest_digest"] for row in (*inside, *outside)}
    assert len(digests) == 2


class Reader(LightningModule):
    """Writes down which samples its rank was given."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.out = out
        self.seen: list[str] = []

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.seen += [key for key, valid in zip(batch["key"], batch["valid"], strict=True) if valid]

    def on_test_end(self) -> None:
        (self.out / f"{self.global_rank}.json").write_text(json.dumps(self.seen))


def test_two_ranks_share_a_foreign_set(zoo: Path) -> None:
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", logger=False, enable_progress_bar=False)
    trainer.test(Reader(zoo), ProbeData(open_world(zoo), [Probe("far", "tools", 7)], 4))
    ranks = [json.loads((zoo / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks == [[f"stray-{number}" for number in range(3)], [f"stray-{number}" for number in range(3, 7)]]
