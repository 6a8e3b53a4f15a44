"""Scores that learn from test images, on streams in which in-distribution and OOD images come mixed."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.detection.table import Embedded, Samples
from lightning_modules.open_world import Scores

BATCH = 256  # images that such a score sees at once


@torch.no_grad()
def mixed(scores: Scores, inside: Embedded, outside: Embedded, seed: int) -> Mapping[str, tuple[Samples, Samples]]:
    """Score -> in-distribution and OOD samples, of one stream that is begun anew.

    Their order is drawn by the seed. The figures depend on it, but not on how many ranks embedded the images. There is
    no threshold: what a score learns, and so its scale, depends on how many of the images are OOD.
    """
    scores.reset()
    embeddings = torch.cat([inside.embeddings, outside.embeddings])
    places = torch.arange(len(embeddings), device=embeddings.device)
    order = noise.derive(seed, 2, places).argsort()
    parts = [scores(part) for part in torch.split(embeddings[order], BATCH)]
    classes, never = scores.classes(inside.embeddings), torch.zeros_like(outside.labels, dtype=torch.bool)
    found = {}
    for name, right in classes.items():
        values: Tensor = torch.cat([part[name].double() for part in parts])[order.argsort()]
        known, unknown = values.tensor_split([len(inside.labels)])
        found[name] = (Samples(known, right == inside.labels, None), Samples(unknown, never, None))
    return found
