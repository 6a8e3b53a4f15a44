"""Objectives of robust fine-tuning: pure losses of embeddings, one file each."""

from lightning_modules.objectives.agft import AGFT
from lightning_modules.objectives.build import build, wordings
from lightning_modules.objectives.fare import FARE
from lightning_modules.objectives.hierarchical import Hierarchical
from lightning_modules.objectives.objective import Embedded, Needs, Objective, Views
from lightning_modules.objectives.pmg_aft import PMGAFT
from lightning_modules.objectives.saft import SAFT
from lightning_modules.objectives.tecoa import TeCoA
from lightning_modules.objectives.tga_zsr import TGAZSR
from lightning_modules.objectives.trades import TRADES

__all__ = [
    "AGFT", "FARE", "PMGAFT", "SAFT", "TGAZSR", "TRADES", "Embedded", "Hierarchical", "Needs", "Objective", "TeCoA",
    "Views", "build", "wordings",
]  # fmt: skip
