"""What many tests share: a packed data set of coloured shapes, small models in open_clip's layout, an experiment."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from configs.schema.model import ModelConfig
from datamodules.pack import Sample, pack
from lightning_modules.backbones import export, load_backbone
from lightning_modules.backbones.tokenizer import MERGES_FILE, truncate_merges

SIZE = 32
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
SHAPES = ("square", "disc")
CLASS_NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
TREE = {
    "levels": [list(CLASS_NAMES), list(COLOURS), ["shape"]],
    "parents": [[index // len(SHAPES) for index in range(len(CLASS_NAMES))], [0] * len(COLOURS)],
}
VOCABULARY = 1024

ExperimentFile = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    """One intra-op thread: tests share their cores, and sums are then in one order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 training, 26 validation and 31 test pictures of 6 classes, 32 px; 14 pictures each of near and far OOD."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    others = {"near": ("yellow square", "white disc"), "far": ("noise", "stripes")}
    pack(
        folder,
        {name: shapes(name, count) for name, count in {"train": 96, "val": 26, "test": 31}.items()}
        | {name: foreign(name, 14, names) for name, names in others.items()},
        name="shapes",
        version="1",
        class_names=CLASS_NAMES,
        templates=("a {c}", "a picture of a {c}"),
        trees={"colours": TREE},
        licence="CC0",
        recipe={"size": SIZE},
        shard_samples=12,
        split_class_names=others,
        progress=False,
    )
    return folder


def shapes(split: str, count: int) -> Iterator[Sample]:
    """Coloured shapes at random places on a noisy ground; labels in turn, a caption each."""
    random = np.random.default_rng(sum(split.encode()))
    for index in range(count):
        label = index % len(CLASS_NAMES)
        colour, shape = CLASS_NAMES[label].split()
        picture = Image.fromarray(random.integers(80, 176, (SIZE, SIZE, 3), dtype=np.uint8))
        left, top, side = random.integers(2, 14), random.integers(2, 14), random.integers(10, 16)
        box = (int(left), int(top), int(left + side), int(top + side))
        draw = ImageDraw.Draw(picture)
        (draw.rectangle if shape == "square" else draw.ellipse)(box, fill=COLOURS[colour])
        yield Sample(f"{split}-{index:04d}", png(picture), "png", label, f"a {CLASS_NAMES[label]}")


def foreign(split: str, count: int, names: tuple[str, ...]) -> Iterator[Sample]:
    """Pictures of what the classes do not hold."""
    random = np.random.default_rng(sum(split.encode()))
    for index in range(count):
        picture = Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        yield Sample(f"{split}-{index:04d}", png(picture), "png", index % len(names))


def png(picture: Image.Image) -> bytes:
    """Encoded bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`model.name` of a two-layer ViT CLIP at 32 px with random weights, 0.1 M parameters."""
    tower = {"image_size": SIZE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    return tiny_model(tmp_path_factory.mktemp("vit"), tower)


@pytest.fixture(scope="session")
def tiny_resnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`model.name` of a small ResNet CLIP at 32 px, which has batch normalisation, with random weights."""
    return tiny_model(tmp_path_factory.mktemp("resnet"), {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 8})


def tiny_model(folder: Path, tower: dict[str, object]) -> str:
    """Writes a random model with this image tower; returns its `model.name`."""
    text = {"context_length": 16, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": 1}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": tower, "text_cfg": text}, "preprocess_cfg": {"size": SIZE}}
    blank, model = folder / "blank", folder / "model"
    blank.mkdir()
    (blank / "open_clip_config.json").write_text(json.dumps(config))
    truncate_merges(blank / MERGES_FILE, VOCABULARY)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        export(load_backbone(ModelConfig(f"local-dir:{blank}", pretrained="none")), model)
    return f"local-dir:{model}"


@pytest.fixture
def experiment_file(tmp_path: Path, tiny_dataset: Path, tiny_vit: str) -> ExperimentFile:
    """Writes an experiment that trains `tiny_vit` on `tiny_dataset`, under `tmp_path`; keywords replace sections."""
    return writer(tmp_path, tiny_dataset, tiny_vit)


def writer(folder: Path, dataset: Path, model: str) -> ExperimentFile:
    """Of experiments in a folder, see `experiment_file`."""

    def write(name: str = "tiny", **sections: object) -> Path:
        content = {
            "output": str(folder / "outputs"),
            "model": {"name": model},
            "data": {"kind": "classification", "folder": str(dataset), "batch_size": 8, "workers": 0},
            "module": {"kind": "robust_finetuning", "objective": {"kind": "tecoa"}},
            "attack": {"kind": "pgd", "eps_255": 8.0, "step_255": 4.0, "steps": 2},
            "optim": {"lr": 0.003, "warmup_steps": 2},
            "trainer": {"steps": 20, "accelerator": "cpu", "checkpoint_every": 5, "log_every": 1, "threads": 1},
            "logging": {"wandb": "disabled"},
        } | sections
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(content))  # JSON is YAML
        return path

    return write
