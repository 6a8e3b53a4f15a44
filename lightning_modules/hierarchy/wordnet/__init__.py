"""WordNet 3.0's nouns, from which class trees are made, and adjectives. Princeton's licence is beside them."""

from lightning_modules.hierarchy.wordnet.adjectives import adjectives
from lightning_modules.hierarchy.wordnet.nouns import Synset, hypernym_path, nouns

__all__ = ["Synset", "adjectives", "hypernym_path", "nouns"]
