"""Captions for pretraining: of the drawing's name, and of the kinds of thing that it is."""

import numpy as np

from datamodules.sources.openmoji.concepts import Concept
from datamodules.sources.openmoji.trees import hypernyms

TEMPLATES = (
    "a drawing of a {c}.",
    "an emoji of a {c}.",
    "a picture of a {c}.",
    "a small {c}.",
    "the {c}.",
    "{c}",
)
KIND_SHARE = 0.25  # of the captions with a name also say the superclass
KIND_ALONE_SHARE = 0.5  # of the captions that teach superclasses say nothing else, as "a drawing of a bird."


def name_caption(concept: Concept, rng: np.random.Generator) -> str:
    """A random caption that names the concept."""
    text = TEMPLATES[rng.integers(len(TEMPLATES))].format(c=concept.name)
    if rng.random() < KIND_SHARE:
        text = f"{text.rstrip('.')}, a kind of {concept.subgroup}."
    return text


def kind_caption(concept: Concept, rng: np.random.Generator) -> str:
    """A random caption that names a superclass alone, or else the concept. Of a name alone, a model doesn't learn what
    a bird is: with `name_caption` only, prompts of superclasses are at chance."""
    if rng.random() >= KIND_ALONE_SHARE:
        return name_caption(concept, rng)
    kinds = [concept.subgroup, concept.group, *(hypernyms(concept.wnid) if concept.wnid else ())]
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(c=kinds[rng.integers(len(kinds))])
