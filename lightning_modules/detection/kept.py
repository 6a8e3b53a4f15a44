"""What is kept of an open-world measurement beside its figures: for the eye, sample by sample."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from configs.schema.scores import SDis
from lightning_modules.detection.clean_look import CleanLook, Part
from lightning_modules.detection.panel import Panel
from lightning_modules.detection.table import Observed, worst

Arrays = Iterator[tuple[str, Tensor]]


def kept(look: CleanLook, attacked: Mapping[Part, Observed]) -> dict[str, Any]:
    """Arrays by name, of N samples in the order of the split; of n evenly spread ones under attack.

    scores/SCORE/SPLIT           float64 (N,), of clean images.
    attacked_scores/SCORE/SPLIT  float64 (n, 2): of the clean image, and the worst that was found.
    antibodies/SPLIT             int64 (N,): the place of the antibody that a clean image is nearest to.
    attacked_antibodies/SPLIT    int64 (n, 2): the same of the clean image, and of the worst by the vaccinated model's
                                 own score.
    captions, owners             texts of the antibodies, and of the classes that they are taken for; "" for none.

    The last four of vaccinated models alone.
    """
    scores = dict([*_clean(look), *_attacked(look.panel, attacked)])
    immunity = look.panel.reference.immunity
    if immunity is None or not immunity.captions:
        return _on_host(scores)
    places = dict([*_nearest(look), *_nearest_attacked(look.panel, attacked)])
    owners = ["" if owner < 0 else immunity.class_names[owner] for owner in immunity.owners.tolist()]
    return {**_on_host(scores | places), "captions": immunity.captions, "owners": owners}


def _on_host(found: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: values.cpu().numpy() for name, values in found.items()}


def _clean(look: CleanLook) -> Arrays:
    for score, contests in look.contests.items():
        yield f"scores/{score}/{look.parts[1].split}", contests[0].inside.values
        for contest in contests:
            yield f"scores/{score}/{contest.split}", contest.outside.values


def _attacked(panel: Panel, attacked: Mapping[Part, Observed]) -> Arrays:
    for part, observed in attacked.items():
        outside, images = part.group is not None, range(observed.values.shape[1])
        for place, name in enumerate(panel.names):
            both = [worst(observed, place, chosen, outside).values for chosen in ([0], images)]
            yield f"attacked_scores/{name}/{part.split}", torch.stack(both, 1)


def _nearest(look: CleanLook) -> Arrays:
    for part, table in zip(look.parts[1:], look.tables[1:], strict=True) if look.panel.names else ():
        yield f"antibodies/{part.split}", table.compute().antibody[:, 0]


def _nearest_attacked(panel: Panel, attacked: Mapping[Part, Observed]) -> Arrays:
    own = next((place for place, name in enumerate(panel.names) if isinstance(panel.settings[name], SDis)), None)
    for part, observed in attacked.items() if own is not None else ():
        values = observed.values[:, :, own]
        image = values.argmin(1) if part.group is None else values.argmax(1)
        yield f"attacked_antibodies/{part.split}", observed.antibody.gather(1, _pair(image))


def _pair(image: Tensor) -> Tensor:
    """The clean image and another one, (n, 2), of (n,)."""
    return torch.stack([torch.zeros_like(image), image], 1)
