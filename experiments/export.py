"""The `export` verb: a trained model as a folder, as a program that needs nothing of this project, or on the hub."""

import shutil
import tempfile
from pathlib import Path

from configs.errors import CheckpointError
from experiments.atomic import replacing
from experiments.models.labels import Labels
from experiments.models.legend import Legend
from experiments.models.trained import Trained

HUB, PROGRAM = "hf-hub:", ".pt2"


def export(source: Path, target: str) -> int:
    """Writes the model of a run folder or a model folder to a target, and prints where it is. Returns the exit code.

    Args:
        target: `hf-hub:ORGANISATION/NAME`, a file that ends in .pt2, or else a folder.

    Raises:
        CheckpointError: there is no model, or the target can't be written.
        HubError: the hub can't be reached, or refuses.
        ConfigError: a program is wanted, and nothing says what the classes of the model are called.
    """
    trained = Trained.find(source)
    if target.startswith(HUB):
        from experiments.models.hub import push

        with tempfile.TemporaryDirectory() as folder:
            print(push(target.removeprefix(HUB), lambda: write_folder(trained, Path(folder) / "model")))
    elif Path(target).suffix == PROGRAM:
        write_program(trained, Path(target))
        print(f"{target}: a program for torch.export.load; {Path(target).with_suffix('.json')} says what it answers")
    else:
        print(f"{write_folder(trained, Path(target))}: a folder for open_clip, with README.md")
    return 0


def write_folder(trained: Trained, folder: Path) -> Path:
    """A copy of the model with its card, classes and configuration, as far as its run tells them."""
    if folder.resolve() == trained.folder.resolve():
        raise CheckpointError(f"{folder} is where the model lies; choose another folder to export to")
    from lightning_modules.backbones import export as export_backbone

    backbone = trained.backbone()
    composed, labels = trained.composed, trained.known_labels()
    export_backbone(backbone, folder)
    if trained.run is not None and composed is not None:
        from experiments.models.card import describe_model

        describe_model(folder, trained.run, composed.config, backbone, labels or Labels(()))
    else:  # nothing is known beyond what the folder says of itself
        for name in ("README.md", "classes.json", "config.yaml"):
            if (trained.folder / name).is_file():
                shutil.copyfile(trained.folder / name, folder / name)
    return folder


def write_program(trained: Trained, path: Path) -> None:
    """The program, and beside it what its answers mean."""
    from lightning_modules.deployed import save_program

    deployed, labels = trained.deployed()
    legend = Legend.of(deployed, labels)
    try:
        with replacing(path) as file:
            save_program(deployed, file)
        legend.save(path.with_suffix(".json"))
    except OSError as error:
        raise CheckpointError(f"{path} can't be written ({error}); free some space or choose another place") from error
