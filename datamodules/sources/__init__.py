"""Where data sets come from: what can be packed, and foreign layouts that are read as they are."""

from pathlib import Path

from configs.schema.data import ImageFolderPack, OpenMojiPack, Pack
from datamodules import manifest as manifests
from datamodules.manifest import Manifest


def build(config: Pack, folder: Path, *, replace: bool = True) -> Manifest:
    """Pack the data set that `config` describes into `folder`. One process does it, others wait.

    Args:
        replace: False keeps a data set that is already there.

    Raises:
        DataError: the source can't be read, or the folder can't be written.
    """
    from datamodules.pack import exclusive

    with exclusive(folder):
        if not replace and (folder / manifests.FILE).is_file():
            return Manifest.load(folder)
        return _pack(config, folder)


def _pack(config: Pack, folder: Path) -> Manifest:
    match config:
        case OpenMojiPack():
            from datamodules.sources.openmoji import pack_openmoji

            return pack_openmoji(config, folder)
        case ImageFolderPack():
            from datamodules.sources.image_folder import pack_image_folder

            return pack_image_folder(config, folder)
