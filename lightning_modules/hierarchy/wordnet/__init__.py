"""WordNet 3.0's nouns, from which class trees are made. Princeton's licence is beside the table."""

from lightning_modules.hierarchy.wordnet.nouns import Synset, hypernym_path, nouns

__all__ = ["Synset", "hypernym_path", "nouns"]
