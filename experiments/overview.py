"""report.html over many runs: methods side by side, in what they differ, and how each is had again."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from experiments.analysis import (
    compared,
    cost,
    differing,
    figure,
    load_runs,
    methods,
    over_seeds,
    page,
    pareto,
    pictures,
    trade_off,
)
from experiments.analysis.comparison import Comparison
from experiments.analysis.drawn import drawn
from experiments.analysis.footer import DIRTY
from experiments.analysis.outcome import Outcome
from experiments.analysis.pareto import FRONT
from experiments.analysis.runs import Runs
from experiments.analysis.tabular import FOOT, of_frame, tables
from experiments.atomic import write_text
from experiments.sweep.plan import Plan

FIGURES = ("accuracy/*/leaf", "accuracy/*/levels", "auroc/*/near", "auroc/*/far")
CLEAN = "accuracy/clean/leaf"
PICTURED = 4  # methods whose pictures are shown
OURS = ("seed=", "output=")  # settings of a run that are not its method's


def write_overview(sources: Sequence[str], path: Path) -> Path:
    """Writes a page on all runs of the sources, and returns its path.

    Args:
        sources: as `load_runs` takes them. Of one sweep, the figures are those that it compares.

    Raises:
        UserError: nothing that can be compared; a page that can't be written.
    """
    runs = load_runs(*sources)
    comparison = compared(runs, metrics=_figures(sources))
    try:
        write_text(path, _page(runs, comparison))
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}); name another place with --to") from error
    return path


def _figures(sources: Sequence[str]) -> Sequence[str]:
    """Of the first sweep, without the level of attack that only a sweep knows; the usual ones elsewhere."""
    plans = [Plan.read(Path(source)) for source in sources if (Path(source) / "plan.json").is_file()]
    return next((plan.columns for plan in plans if plan.columns), FIGURES)


def _page(runs: Runs, comparison: Comparison) -> str:
    return page.page(
        f"ImmunoCLIP report: {comparison.title}",
        [
            f"<h1>{page.escape(comparison.title)}</h1>",
            page.paragraph(_extent(runs, comparison), "muted"),
            page.paragraph(_fronts(comparison), "lead"),
            page.section("Side by side", *map(page.grid, tables(comparison)), page.paragraph(FOOT, "muted")),
            page.section(
                "Robustness against its price", *(_traded(comparison, column) for column in _attacked(comparison))
            ),
            page.section("As the attack grows", *_grown(runs)),
            page.section("What the adversary does", *_pictures(runs)),
            page.section("What differs", page.grid(of_frame(differing(runs))), page.paragraph(DIFFERS, "muted")),
            page.section(
                "What to doubt, and what was left out", page.listing([*comparison.doubts, *comparison.exclusions])
            ),
            page.section("What it cost", page.unfolding("A line a run", page.grid(of_frame(cost(runs))))),
            page.section("How to do it again", page.listing([_again(group) for group in _alike(runs)])),
            f"<footer><h2>Provenance</h2>{page.listing(_facts(runs))}</footer>",
        ],
    )


DIFFERS = "A setting with (default) behind it is what the schema has; a dash: the configuration has no such setting."


def _extent(runs: Runs, comparison: Comparison) -> str:
    seeds = sorted({outcome.seed for outcome in runs.outcomes})
    count = len(comparison.methods)
    return (
        f"{count} method{'s' * (count > 1)}, {len(runs.outcomes)} runs, seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}; differences from {comparison.baseline}."
    )


def _attacked(comparison: Comparison) -> list[str]:
    """The columns that are worth drawing against clean accuracy."""
    leaves = [column for column in comparison.columns if column.startswith("accuracy/") and column.endswith("/leaf")]
    return [column for column in leaves if column != CLEAN] if CLEAN in leaves and len(comparison.methods) > 1 else []


def _fronts(comparison: Comparison) -> str:
    """Which methods nobody beats in clean accuracy and under each attack at once."""
    sentences = []
    for column in _attacked(comparison):
        found = pareto(comparison, CLEAN, column)
        best = [str(method) for method in found.index[found[FRONT]]]
        attack = column.split("/")[1]
        sentences.append(f"Clean and under {attack}, no method is better than {' and '.join(best)} in both.")
    return " ".join(sentences)


def _traded(comparison: Comparison, column: str) -> str:
    caption = (
        "Means over seeds with 95 % bootstrap intervals. Joined and filled: methods that no other beats in both; "
        "intervals that overlap tell that seeds may change the order."
    )
    return drawn(trade_off(comparison, CLEAN, column), f"Clean accuracy against {column}", caption)


def _grown(runs: Runs) -> list[str]:
    caption = "Means over seeds with 95 % bootstrap intervals."
    return [
        drawn(over_seeds.accuracy_by_radius(runs), "Leaf accuracy by radius of the attack, by method", caption),
        drawn(over_seeds.accuracy_by_steps(runs), "Leaf accuracy by steps of the attack, by method", caption),
    ]


def _pictures(runs: Runs) -> list[str]:
    """Of the first run of each method that kept some."""
    called, parts = methods(runs), dict[str, str]()
    for outcome in runs.outcomes:
        method = called[outcome.run]
        if method in parts or len(parts) == PICTURED:
            continue
        stages = reversed(list(runs.evidence(outcome.run).values()))
        kept = next((found.pictures for found in stages if found.pictures), None)
        if kept is not None:
            parts[method] = page.picture(figure.png(pictures.grid(kept)), f"Pictures of {method}", outcome.run)
    return list(parts.values())


def _alike(runs: Runs) -> list[list[Outcome]]:
    """The runs of each configuration, which seeds tell apart."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in runs.outcomes:
        groups.setdefault(outcome.run.removesuffix(f"-s{outcome.seed}"), []).append(outcome)
    return list(groups.values())


def _again(group: Sequence[Outcome]) -> str:
    """The command of a configuration, with the code that it was run with."""
    first = group[0]
    seeds = ", ".join(str(seed) for seed in sorted(outcome.seed for outcome in group))
    code = ", ".join(sorted({str(row.provenance.get("git_sha")) for outcome in group for row in outcome.rows}))
    inputs = _inputs(first)
    settings = [one for one in inputs.get("overrides", []) if not one.startswith(OURS)]
    words = ["immunoclip", "train", str(inputs.get("experiment", first.experiment)), *settings]
    dirty = " (with changes that were not committed)" if DIRTY in code else ""
    return f"{shlex.join(words)} seed=SEED, then evaluate; seeds {seeds}; code {code.replace(DIRTY, '')}{dirty}"


def _inputs(outcome: Outcome) -> dict[str, Any]:
    path = outcome.folder / "config.inputs.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _facts(runs: Runs) -> list[str]:
    return [line.removeprefix("- ") for line in runs.footer.splitlines() if not line.startswith("- left out")]
