"""Which renderings a data set is made of, and packing them."""

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from configs.schema.data import OpenMojiPack
from datamodules.manifest import Manifest
from datamodules.pack import Sample, pack
from datamodules.sources.openmoji import captions, drawings, rendering
from datamodules.sources.openmoji.concepts import Concept, Role, concepts
from datamodules.sources.openmoji.trees import trees

TEMPLATES = ("a drawing of a {c}.", "an emoji of a {c}.", "a picture of a {c}.")
LICENCE = "CC BY-SA 4.0; class trees: WordNet 3.0 licence, Unicode licence v3"


@dataclass(frozen=True)
class Rendering:
    """One split. `stream` seeds it apart from every other split; `strength` is how hard it is, from 0 to 1."""

    roles: tuple[Role, ...]
    stream: int
    per_concept: int
    strength: tuple[float, float]
    captions: Literal["names", "kinds"] | None = None


RECIPES: dict[str, dict[str, Rendering]] = {
    "open_world": {
        "train": Rendering(("id",), 1, 64, (0.2, 1.0)),
        "val": Rendering(("id",), 2, 8, (0.2, 1.0)),
        "test": Rendering(("id",), 3, 16, (0.2, 1.0)),
        "near_seen": Rendering(("near_seen",), 4, 12, (0.2, 1.0)),
        "near_unseen": Rendering(("near_unseen",), 4, 12, (0.2, 1.0)),
        "far": Rendering(("far",), 4, 12, (0.2, 1.0)),
    },
    "pretraining": {
        "train": Rendering(("id", "near_seen", "far", "other"), 5, 160, (0.0, 1.0), captions="names"),
        "val": Rendering(("id", "near_seen", "far", "other"), 6, 4, (0.0, 1.0), captions="names"),
    },
    "superclasses": {
        "train": Rendering(("id", "near_seen", "far", "other"), 7, 64, (0.0, 1.0), captions="kinds"),
        "val": Rendering(("id", "near_seen", "far", "other"), 8, 4, (0.0, 1.0), captions="names"),
    },
}
CAPTIONS = {"names": captions.name_caption, "kinds": captions.kind_caption}


def pack_openmoji(config: OpenMojiPack, folder: Path) -> Manifest:
    """Render and pack a recipe to `folder`; the same package versions give the same bytes.

    Raises:
        DataError: as `datamodules.pack.pack`.
    """
    recipe = RECIPES[config.recipe]
    captioned = config.recipe != "open_world"
    classes = concepts("id", "near_seen", "far", "other") if captioned else concepts("id")
    own = {split: [c.name for c in concepts(*r.roles)] for split, r in recipe.items() if r.roles[0] != "id"}
    with Pool() as workers:
        return pack(
            folder,
            {split: _samples(split, rendering, workers) for split, rendering in recipe.items()},
            name=f"openmoji-{config.recipe.replace('_', '-')}",
            version=rendering.VERSION,
            class_names=[concept.name for concept in classes],
            templates=TEMPLATES,
            trees={} if captioned else trees(classes),
            licence=LICENCE,
            recipe={
                "attribution": drawings.attribution(),
                "splits": {split: asdict(r) for split, r in recipe.items()},
                "easy": asdict(rendering.EASY),
                "hard": asdict(rendering.HARD),
            },
            shard_samples=config.shard_samples,
            split_class_names=own,
        )


def _samples(split: str, recipe: Rendering, workers: Pool) -> Iterator[Sample]:
    """All renderings of a split, in an order that mixes the concepts."""
    members = list(enumerate(concepts(*recipe.roles)))
    jobs = [(label, concept, number) for number in range(recipe.per_concept) for label, concept in members]
    order = np.random.default_rng([recipe.stream, len(jobs)]).permutation(len(jobs))
    yield from workers.imap(partial(_sample, split, recipe), (jobs[i] for i in order), chunksize=64)


def _sample(split: str, recipe: Rendering, job: tuple[int, Concept, int]) -> Sample:
    label, concept, number = job
    rng = np.random.default_rng([int(rendering.VERSION), recipe.stream, number, *concept.code_points])
    picture = rendering.render(concept.hexcode, rng, recipe.strength)
    text = CAPTIONS[recipe.captions](concept, rng) if recipe.captions else None
    return Sample(f"{split}-{concept.hexcode}-{number:03d}", _png(picture), "png", label, text)


def _png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "png", compress_level=1)
    return stream.getvalue()
