"""What runs have found: read, tabulate, draw. Notebooks and reports are made of these pieces."""

from experiments.analysis.compared import compared, methods
from experiments.analysis.comparison import Comparison
from experiments.analysis.cost import cost
from experiments.analysis.differing import differing
from experiments.analysis.loading import load_curves, load_evidence, load_rows
from experiments.analysis.matrix import Matrix, matrices
from experiments.analysis.pareto import pareto, trade_off
from experiments.analysis.row import Row
from experiments.analysis.runs import Runs, load_runs
from experiments.analysis.sweeps import compare_sweeps
from experiments.analysis.table import compare
from experiments.analysis.tabular import to_csv, to_latex, to_markdown
from experiments.analysis.transfer import Transfer, transfer_matrix

__all__ = [
    "Comparison",
    "Matrix",
    "Row",
    "Runs",
    "Transfer",
    "compare",
    "compare_sweeps",
    "compared",
    "cost",
    "differing",
    "load_curves",
    "load_evidence",
    "load_rows",
    "load_runs",
    "matrices",
    "methods",
    "pareto",
    "to_csv",
    "to_latex",
    "to_markdown",
    "trade_off",
    "transfer_matrix",
]
