"""Captions for pretraining: most name the drawing, some also say what kind of thing it is."""

import numpy as np

from datamodules.sources.openmoji.concepts import Concept

TEMPLATES = (
    "a drawing of a {c}.",
    "an emoji of a {c}.",
    "a picture of a {c}.",
    "a small {c}.",
    "the {c}.",
    "{c}",
)
KIND_SHARE = 0.25  # of the captions also name the superclass, so that superclass prompts mean something


def caption(concept: Concept, rng: np.random.Generator) -> str:
    """A random caption of this concept."""
    text = TEMPLATES[rng.integers(len(TEMPLATES))].format(c=concept.name)
    if rng.random() < KIND_SHARE:
        text = f"{text.rstrip('.')}, a kind of {concept.subgroup}."
    return text
