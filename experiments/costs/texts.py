"""How many texts a run compares images with, as far as its data can say before it is packed."""

from configs.errors import UserError
from configs.schema import ExperimentConfig
from configs.schema.module import RobustFinetuning
from configs.schema.objective import Hierarchical
from datamodules import build_datamodule
from datamodules.classification import ClassificationDataModule
from experiments.costs.cost import Texts
from lightning_modules import hierarchy, objectives
from lightning_modules.hierarchy import Forest


def texts_of(config: ExperimentConfig) -> tuple[Texts | None, Forest | None]:
    """The texts and the class trees; None where the data is not packed, or where a tree or a description is missing,
    which training will say."""
    module, datamodule = config.module, build_datamodule(config.data, config.seed)
    if not isinstance(module, RobustFinetuning) or not isinstance(datamodule, ClassificationDataModule):
        return None, None
    if not datamodule.folder.exists():
        return None, None
    objective, names = module.objective, datamodule.class_names
    try:
        trees = isinstance(objective, Hierarchical)
        forest = hierarchy.build(config.hierarchy, names, datamodule.manifest.trees) if trees else Forest(names, ())
        blocks = objectives.wordings(objective, forest, datamodule.templates)
    except UserError:
        return None, None
    classes = [prompts for block in blocks for prompts in block]
    return Texts(sum(map(len, classes)), len(classes)), forest
