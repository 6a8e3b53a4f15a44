"""Semantic antibodies: texts of what is not there, where they come from, and which of them are kept."""

from lightning_modules.antibodies.antibody import Antibody
from lightning_modules.antibodies.bank import Bank, Difference, diff
from lightning_modules.antibodies.bank_file import read_bank, write_bank
from lightning_modules.antibodies.build import build, points
from lightning_modules.antibodies.folder import write_folder
from lightning_modules.antibodies.overlap import Overlap, overlap
from lightning_modules.antibodies.report import report
from lightning_modules.antibodies.selection import Selection, select

__all__ = [
    "Antibody",
    "Bank",
    "Difference",
    "Overlap",
    "Selection",
    "build",
    "diff",
    "overlap",
    "points",
    "read_bank",
    "report",
    "select",
    "write_bank",
    "write_folder",
]
