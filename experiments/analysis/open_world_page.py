"""The report's section on what is not in-distribution."""

from collections.abc import Mapping, Sequence

from experiments.analysis import figure, open_world, page, plots
from experiments.analysis.headline import cost
from experiments.analysis.headline import open_world as movements
from experiments.analysis.loading import Evidence
from experiments.analysis.row import Row
from experiments.analysis.table import lines

CAPTION = (
    "Scores of clean pictures of known classes (filled) and of what is not among them (lines). The less they overlap, "
    "the better unknown things can be rejected. Each panel has its own scale; n in brackets."
)
DEFINITIONS = {
    "auroc": (
        "AUROC",
        "Chance that an in-distribution picture scores higher than an OOD one; 50 % is guessing. The line of a group "
        "of splits is the mean of theirs. In brackets: 95 % bootstrap interval over pictures.",
    ),
    "fpr95_id_pos": (
        "FPR95, ID positive",
        "Share of OOD pictures accepted where 95 % of in-distribution pictures are. Lower is better.",
    ),
    "fpr95_ood_pos": (
        "FPR95, OOD positive",
        "Share of in-distribution pictures rejected where 95 % of OOD ones are. Lower is better.",
    ),
    "open_set_accuracy": (
        "open-set accuracy",
        "Share of all pictures that are known, accepted and of the right class, or unknown and rejected, where 95 % of "
        "the in-distribution validation pictures are accepted.",
    ),
    "silent_error": ("accepted, but of the wrong class", "Share of in-distribution pictures. Lower is better."),
    "h_score": ("H-score", "Harmonic mean of accuracy in-distribution and AUROC."),
    "aurc": (
        "area under the risk-coverage curve",
        "Mean share of wrong answers among the in-distribution pictures that score highest, however many are answered. "
        "Lower is better.",
    ),
}


def open_world_parts(rows: Sequence[Row], evidence: Mapping[str, Evidence], stages: Sequence[str]) -> list[str]:
    """Sentences, the table at a glance, every figure behind a fold, and a histogram a score; nothing where no score was
    taken."""
    scores = list(dict.fromkeys(row.score for row in rows if row.score))
    if not scores:
        return []
    drawn = [(score, plots.score_histograms(evidence, rows, score)) for score in scores]
    scored = [line for line in lines(rows, stages) if line.first.score]
    return [
        page.paragraph(cost(rows)),
        page.listing(movements([row for row in rows if row.score in (None, scores[0])])),
        page.grid(open_world.cells(rows, stages)),
        page.paragraph(open_world.FOOT, "muted"),
        page.unfolding("Every score on every split", page.results(scored, stages)),
        *(
            page.picture(figure.svg(drawing), f"Histograms of the open-world score {score}, by stage", CAPTION)
            for score, drawing in drawn
            if drawing is not None
        ),
    ]


def definitions(rows: Sequence[Row]) -> dict[str, str]:
    """Term -> what it is, of the figures that there are."""
    measured = {row.metric for row in rows if row.score}
    return dict(told for metric, told in DEFINITIONS.items() if metric in measured)
