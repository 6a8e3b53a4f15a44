"""Datamodules under Lightning: a fit that is cut short and resumed reads what an uninterrupted one reads."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import config, packed, samples
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from configs.errors import DataError
from configs.schema.data import ClassificationData, ImageFolderPack, ImageTextData, OpenWorldData
from datamodules import build_datamodule
from datamodules.base import PlannedDataModule


class Cut(Exception):
    """Ends a fit."""


class Recorder(LightningModule):
    """One weight, and a memory for keys."""

    def __init__(self, fail_at: int | None = None, asks_for_length: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.fail_at = fail_at
        self.asks_for_length = asks_for_length
        self.trained: list[list[str]] = []
        self.validated: list[str] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        assert batch["image"].dtype == torch.float32
        assert 0 <= batch["image"].min() <= batch["image"].max() <= 1
        if self.fail_at == len(self.trained):
            raise Cut
        self.trained.append(batch["key"])
        return (self.weight - batch["image"].mean()) ** 2

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.validated += [key for key, valid in zip(batch["key"], batch["valid"], strict=True) if valid]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.asks_for_length:  # makes Lightning build the loaders before it restores their state
            assert self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saver(Callback):
    """Saves after so many batches and ends the fit; or saves when a step fails."""

    def __init__(self, path: Path, after: int | None = None) -> None:
        self.path = path
        self.after = after

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Recorder)
        if self.after == len(pl_module.trained):
            trainer.save_checkpoint(self.path)
            raise Cut

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.after is None:
            trainer.save_checkpoint(self.path)


def fit(folder: Path, model: Recorder, *, saver: Saver | None = None, resume: Path | None = None, **data: Any) -> None:
    accumulate = 2
    trainer = Trainer(
        max_steps=8,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=accumulate,
        callbacks=[saver] if saver else [],
    )
    module = build_datamodule(config(folder, **data), seed=1, accumulate=accumulate)
    trainer.fit(model, module, ckpt_path=resume, weights_only=False)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "zoo"
    packed(folder, {"train": 27, "val": 7, "test": 5, "near": 4})
    return folder


@pytest.fixture(scope="module")
def uninterrupted(zoo: Path) -> list[list[str]]:
    model = Recorder()
    fit(zoo, model)
    assert len(model.trained) == 16  # 6 an epoch
    assert model.validated == [f"val-{number}" for number in range(7)] * (len(model.validated) // 7)
    return model.trained


@pytest.mark.parametrize(
    ("after", "workers", "asks"),
    [(2, 0, False), (4, 2, True), (6, 0, False), (8, 0, True), (10, 1, False), (12, 2, True)],
)
def test_a_resumed_fit_reads_on(
    tmp_path: Path, zoo: Path, uninterrupted: list[list[str]], after: int, workers: int, asks: bool
) -> None:
    first, second = Recorder(asks_for_length=asks), Recorder(asks_for_length=asks)
    with pytest.raises(Cut):
        fit(zoo, first, saver=Saver(tmp_path / "cut.ckpt", after))
    fit(zoo, second, resume=tmp_path / "cut.ckpt", workers=workers)
    assert first.trained == uninterrupted[:after]
    assert second.trained == uninterrupted[after:]


def test_a_step_that_failed_is_done_again(tmp_path: Path, zoo: Path, uninterrupted: list[list[str]]) -> None:
    first, second = Recorder(fail_at=8), Recorder()
    with pytest.raises(Cut):
        fit(zoo, first, saver=Saver(tmp_path / "cut.ckpt"))
    fit(zoo, second, resume=tmp_path / "cut.ckpt")
    assert first.trained + second.trained == uninterrupted


def test_twice_resumed(tmp_path: Path, zoo: Path, uninterrupted: list[list[str]]) -> None:
    models = [Recorder(fail_at=4), Recorder(), Recorder()]
    with pytest.raises(Cut):
        fit(zoo, models[0], saver=Saver(tmp_path / "0.ckpt"))
    with pytest.raises(Cut):
        fit(zoo, models[1], saver=Saver(tmp_path / "1.ckpt", after=6), resume=tmp_path / "0.ckpt")
    fit(zoo, models[2], resume=tmp_path / "1.ckpt")
    assert [keys for model in models for keys in model.trained] == uninterrupted


def test_a_resumed_fit_with_another_seed_is_refused(tmp_path: Path, zoo: Path) -> None:
    with pytest.raises(Cut):
        fit(zoo, Recorder(), saver=Saver(tmp_path / "cut.ckpt", 4))
    with pytest.raises(DataError, match="another data plan"):
        fit(zoo, Recorder(), resume=tmp_path / "cut.ckpt", batch_size=2)


def test_a_missing_folder_is_packed_once(tmp_path: Path) -> None:
    for sample in samples("train", 8):
        path = tmp_path / "source" / f"class{sample.label}" / f"{sample.key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.image)
    pack = ImageFolderPack(root=str(tmp_path / "source"), shard_samples=4)
    for _ in range(2):
        module = build_datamodule(config(tmp_path / "zoo", pack=pack), seed=0)
        module.prepare_data()
        assert module.manifest.samples("train") == 8
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
    with pytest.raises(DataError, match=r"data\.pack"):
        build_datamodule(config(tmp_path / "nowhere"), seed=0).prepare_data()


def open_world(folder: Path, **changes: Any) -> PlannedDataModule:
    return build_datamodule(OpenWorldData(folder=str(folder), batch_size=4, workers=0, **changes), seed=0)


def test_open_world_batches_say_what_is_foreign(zoo: Path) -> None:
    module = open_world(zoo, near_ood=["near"])
    for split, is_ood in [("test", False), ("near", True), ("train", False)]:
        for batch in module.eval_loader(split, 4):
            assert batch["is_ood"].tolist() == [is_ood] * 4
            assert (batch["label"] == -1).tolist() == [is_ood] * 4


def test_an_unknown_ood_split(zoo: Path) -> None:
    with pytest.raises(DataError, match="no split 'nothing': it has near, test, train, val"):
        open_world(zoo, far_ood=["nothing"]).setup()


def test_pairs_have_text(zoo: Path, tmp_path: Path) -> None:
    module = build_datamodule(ImageTextData(folder=str(zoo), batch_size=4, workers=0), seed=0)
    for batch in module.train_dataloader():
        assert batch["text"] == [f"train picture {index}" for index in batch["index"].tolist()]
    unlabelled = [type(sample)(sample.key, sample.image, "png", 0) for sample in samples("train", 8)]
    packed(tmp_path / "mute", {}, splits={"train": unlabelled})
    with pytest.raises(DataError, match=r"sample 'train-0' in .* has no text: .* 8 samples"):
        build_datamodule(ImageTextData(folder=str(tmp_path / "mute"), batch_size=4), seed=0).train_dataloader()


def test_names_and_templates_from_files(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("Ameise\nBiene\nKuh\n")
    (tmp_path / "templates").write_text("ein Bild: {c}\n")

    def module(**changes: Any) -> Any:
        return build_datamodule(ClassificationData(folder=str(zoo), **changes), seed=0)

    german = module(class_names=str(tmp_path / "names"), templates=str(tmp_path / "templates"))
    german.setup()
    assert (german.class_names, german.templates) == (("Ameise", "Biene", "Kuh"), ("ein Bild: {c}",))
    (tmp_path / "names").write_text("Ameise\nBiene\n")
    with pytest.raises(DataError, match="2 class names for 3 classes"):
        module(class_names=str(tmp_path / "names")).setup()
    (tmp_path / "templates").write_text("ein Bild\n")
    with pytest.raises(DataError, match=r"has no \{c\}"):
        module(templates=str(tmp_path / "templates")).setup()


def test_a_subset_is_spread_over_the_split(zoo: Path) -> None:
    loader = build_datamodule(config(zoo), seed=0).eval_loader("train", 4, samples=3)
    (batch,) = loader
    assert loader.samples == int(batch["valid"].sum()) == 3
    assert batch["index"][batch["valid"]].tolist() == [0, 9, 18]
    with pytest.raises(DataError, match="at least one"):
        build_datamodule(config(zoo), seed=0).eval_loader("train", 4, samples=0)
