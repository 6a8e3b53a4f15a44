"""CLIP that says no."""

from pathlib import Path

import torch
from torch import Tensor

from configs.errors import DataError
from configs.schema import scores as schema
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.score import Comparison, Score, exact


class CLIPN(Score):
    """Each class's text against the 'no' text of the same class (Wang et al. 2023). With the classes'
    probabilities p, and the probability y of yes in a softmax over a class's two logits, all at the model's own scale:

        ctw  y of the predicted class (in-distribution where it is above 1/2)
        atd  sum of p y, one minus the probability of an unknown class
    """

    def __init__(self, setting: schema.CLIPN, reference: Reference) -> None:
        self.form, self.reference = setting.form, reference
        features = _read(Path(setting.features), len(reference.classes))
        self.no = reference.head.texts(features[:, None].to(reference.classes.device))

    def __call__(self, seen: Comparison) -> Tensor:
        scale = self.reference.scale
        no = exact(self.reference.head.similarities(seen.images, self.no))
        yes = torch.sigmoid(scale * (seen.similarities - no))
        if self.form == "ctw":
            return yes.gather(1, seen.similarities.argmax(1, keepdim=True)).squeeze(1)
        return ((scale * seen.similarities).softmax(1) * yes).sum(1)


def _read(path: Path, classes: int) -> Tensor:
    """Embeddings (K, D) of the classes' 'no' texts.

    Raises:
        DataError: no such file, or it holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = list(load_file(path).values())
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path} with CLIPN's 'no' texts can't be read ({error}); check the score's features"
        ) from error
    if len(tensors) != 1 or tensors[0].ndim != 2 or len(tensors[0]) != classes:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise DataError(
            f"{path} must hold one tensor (classes, D) for {classes} classes, and holds {shapes}; write it again"
        )
    return tensors[0].float()
