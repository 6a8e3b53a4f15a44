"""The data of an experiment whose classes are looked at."""

from typing import TYPE_CHECKING

from configs.errors import ConfigError

if TYPE_CHECKING:
    from configs.compose import Composed
    from datamodules.classification import ClassificationDataModule


def with_classes(composed: "Composed") -> "ClassificationDataModule":
    """The datamodule; the data set is packed where that was not done yet.

    Raises:
        ConfigError: the data has no classes.
        DataError: there is no data set.
    """
    from datamodules import build_datamodule
    from datamodules.classification import ClassificationDataModule

    data = build_datamodule(composed.config.data, composed.config.seed)
    if not isinstance(data, ClassificationDataModule):
        raise ConfigError(f"data.kind={composed.config.data.kind} has no classes; choose an experiment that has some")
    data.prepare_data()
    return data
