"""A trained model, found by the folder of its run or by its own."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.compose import Composed, compose
from configs.errors import CheckpointError, ConfigError, DataError
from configs.schema.model import ModelConfig
from experiments.models.labels import FILE, Labels, read_class_names
from lightning_modules.open_world.immunity import Immunity

if TYPE_CHECKING:
    from lightning_modules.backbones import Backbone
    from lightning_modules.deployed import Deployed

CONFIG, INPUTS = "config.yaml", "config.inputs.json"  # of a run
_MODEL = "open_clip_config.json"


@dataclass(frozen=True)
class Trained:
    """A model folder, and the folder of its run around it, where that is one."""

    folder: Path
    run: Path | None

    @classmethod
    def find(cls, path: Path) -> "Trained":
        """The model of a run folder or a model folder.

        Raises:
            CheckpointError: there is none.
        """
        path = Path(str(path).removeprefix("local-dir:"))
        if (path / "model" / _MODEL).is_file():
            return cls(path / "model", path)
        if (path / _MODEL).is_file():
            around = path.resolve().parent
            return cls(path, around if (around / INPUTS).is_file() else None)
        if (path / CONFIG).is_file():
            raise CheckpointError(f"{path} holds no trained model; train its experiment, or resume the run, first")
        what = "no run's folder, model's folder (with open_clip_config.json) or exported program (.pt2)"
        raise CheckpointError(f"{path} is {what if path.exists() else 'not there'}; name the folder of a trained run")

    @property
    def composed(self) -> Composed | None:
        """The configuration that made it; None where no run is known."""
        return compose(self.run / CONFIG) if self.run else None

    def backbone(self) -> "Backbone":
        """The model. CheckpointError where it can't be read."""
        from lightning_modules.backbones import load_backbone

        return load_backbone(ModelConfig(name=f"local-dir:{self.folder}"))

    def labels(self, immunity: Immunity | None, classes: Path | None = None) -> Labels:
        """What its classes are called: as a file of names says, as the folder does, as the data of its run does, or as
        those are called that it was vaccinated for.

        Raises:
            ConfigError: nothing says so.
            DataError: a file of names, or the data of the run, can't be read.
        """
        known = self.known_labels(optional=classes is not None or immunity is not None)
        if classes is not None:
            return (known or Labels(())).renamed(read_class_names(classes))
        if known is not None:
            return known
        if immunity is not None:
            return Labels(immunity.class_names)
        raise ConfigError(f"{self.folder} has no class names; give a file with one a line by --classes FILE")

    def deployed(self, classes: Path | None = None) -> tuple["Deployed", Labels]:
        """The classifier, and what its classes are called; errors as above."""
        from lightning_modules.deployed import Deployed

        backbone = self.backbone()
        labels = self.labels(backbone.immunity, classes)
        return Deployed(backbone, labels.forest, labels.templates), labels

    def known_labels(self, optional: bool = True) -> Labels | None:
        """As the folder says, or the data of its run does; None where neither does.

        Args:
            optional: whether a run whose data can't be opened counts as one that says nothing.
        """
        if (self.folder / FILE).is_file():
            return Labels.load(self.folder)
        if self.run is None:
            return None
        from datamodules import build_datamodule
        from datamodules.classification import ClassificationDataModule

        try:
            composed = self.composed
            assert composed is not None
            data = build_datamodule(composed.config.data, composed.config.seed)
            return Labels.of(composed.config, data) if isinstance(data, ClassificationDataModule) else None
        except (ConfigError, DataError) as error:
            if not optional:
                raise
            print(f"Without class trees, as the run's configuration or data can't be read: {error}", file=sys.stderr)
            return None
