"""Objectives of robust fine-tuning: pure losses of embeddings, one file each."""

from lightning_modules.objectives.build import build, wordings
from lightning_modules.objectives.fare import FARE
from lightning_modules.objectives.hierarchical import Hierarchical
from lightning_modules.objectives.objective import Embedded, Needs, Objective, Views
from lightning_modules.objectives.tecoa import TeCoA

__all__ = ["FARE", "Embedded", "Hierarchical", "Needs", "Objective", "TeCoA", "Views", "build", "wordings"]
