"""What runs have found: read, tabulate, draw. Notebooks and reports are made of these pieces."""

from experiments.analysis.loading import load_curves, load_evidence, load_rows
from experiments.analysis.matrix import Matrix, matrices
from experiments.analysis.row import Row
from experiments.analysis.table import compare, to_csv
from experiments.analysis.transfer import Transfer, transfer_matrix

__all__ = [
    "Matrix",
    "Row",
    "Transfer",
    "compare",
    "load_curves",
    "load_evidence",
    "load_rows",
    "matrices",
    "to_csv",
    "transfer_matrix",
]
