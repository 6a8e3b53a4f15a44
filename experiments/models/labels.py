"""What a model's classes are called, above the leaves too, and in which words it is asked about them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import DataError
from datamodules.manifest import check_class_names, read_lines
from experiments.atomic import write_text
from lightning_modules.hierarchy import Forest, Tree

if TYPE_CHECKING:
    from configs.schema import ExperimentConfig
    from datamodules.classification import ClassificationDataModule

FILE = "classes.json"
TEMPLATES = ("a photo of a {c}",)  # where nothing else is known: CLIP's own (Radford et al. 2021, section 3.1.4)


@dataclass(frozen=True)
class Labels:
    """Class names by label, prompts with {c}, and class trees by name as a manifest has them.

    data  what the classes were learnt from and under which licence, in words; empty where that is not known.
    """

    class_names: tuple[str, ...]
    templates: tuple[str, ...] = TEMPLATES
    trees: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: str = ""

    @property
    def forest(self) -> Forest:
        """The trees over the classes."""
        return Forest(self.class_names, tuple(Tree.from_dict(name, tree) for name, tree in self.trees.items()))

    def renamed(self, class_names: Sequence[str]) -> "Labels":
        """The same prompts for these classes; the trees stay where the classes are the same."""
        return self if self.class_names == tuple(class_names) else Labels(tuple(class_names), self.templates)

    def save(self, folder: Path) -> None:
        """Writes classes.json."""
        write_text(folder / FILE, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Labels":
        """What `save` wrote. DataError where it can't be read."""
        try:
            content = json.loads((folder / FILE).read_text("utf-8"))
            names, templates = tuple(content["class_names"]), tuple(content["templates"])
            found = cls(names, templates, content["trees"], str(content["data"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / FILE} is no list of classes ({error!r}); export the model again") from error
        check_class_names(found.class_names, str(folder / FILE))
        return found

    @classmethod
    def of(cls, config: "ExperimentConfig", data: "ClassificationDataModule") -> "Labels":
        """Those of an experiment. DataError where a tree can't be made."""
        from lightning_modules.hierarchy import build

        forest = build(config.hierarchy, data.class_names, data.manifest.trees)
        manifest = data.manifest
        told = [f"{manifest.name} {manifest.version}", manifest.licence, str(manifest.recipe.get("attribution", ""))]
        trees = {tree.name: tree.to_dict() for tree in forest.trees}
        return cls(data.class_names, data.templates, trees, ". ".join(part for part in told if part))


def read_class_names(path: Path) -> tuple[str, ...]:
    """One name a line. DataError where there is none, or one comes twice."""
    names = read_lines(path)
    if not names:
        raise DataError(f"{path} has no class names; write one a line")
    check_class_names(names, str(path))
    return names
