"""Many runs as one table, wherever they are."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.errors import UserError
from experiments.analysis.finding import Figure, figures
from experiments.analysis.footer import footer
from experiments.analysis.loading import Evidence, load_evidence
from experiments.analysis.outcome import Outcome
from experiments.analysis.row import where
from experiments.analysis.source import places

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "run", "experiment", "config_hash", "seed", "stage", "name", "metric", "attack", "eps_255", "score", "tree",
    "level", "split", "dataset", "value", "n", "suspect",
)  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """What runs have found.

    outcomes    one a run, whose figures count.
    unfinished  runs whose figures do not; `with_unfinished` has them too.
    excluded    a sentence for every run, or part of one, that was left out.
    """

    outcomes: Sequence[Outcome]
    unfinished: Sequence[Outcome] = ()
    excluded: Sequence[str] = ()

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One line a figure: what it is of, its `name` (METRIC/ATTACK/PLACE), its `value`, and what speaks against it.

        `value` is a share in [0, 1] for accuracies and detection metrics; `suspect` holds reasons, empty for most.
        """
        import pandas as pd

        lines = [
            (*_identity(outcome), stage, *_measured(figure))
            for outcome in self.outcomes
            for stage in dict.fromkeys(row.stage for row in outcome.rows)
            for figure in figures(where(outcome.rows, stage=stage))
        ]
        return pd.DataFrame(lines, columns=list(COLUMNS)).astype({"level": "Int64"})

    @cached_property
    def curves(self) -> "pd.DataFrame":
        """What training logged: run, step, name (column of metrics.csv), value."""
        import pandas as pd

        logged = [(one.run, name, *curve) for one in self.outcomes for name, curve in one.curves.items()]
        lengths = [len(steps) for _, _, steps, _ in logged]
        return pd.DataFrame(
            {
                "run": np.repeat([run for run, *_ in logged], lengths),
                "step": np.concatenate([np.zeros(0), *(steps for *_, steps, _ in logged)]).astype(int),
                "name": np.repeat([name for _, name, *_ in logged], lengths),
                "value": np.concatenate([np.zeros(0), *(values for *_, values in logged)]),
            }
        )

    @cached_property
    def settings(self) -> "pd.DataFrame":
        """The resolved configurations: a line a run, a column a dotted key; NaN where a run does not have the key."""
        import pandas as pd

        lines = {outcome.run: flat(outcome.config) for outcome in self.outcomes}
        columns = list(dict.fromkeys(key for line in lines.values() for key in line))
        return pd.DataFrame.from_dict(lines, orient="index", columns=columns, dtype=object).rename_axis("run")

    @cached_property
    def footer(self) -> str:
        """Provenance in Markdown: runs, seeds, code, data, packages, hardware, and what was left out."""
        return footer(self.outcomes, self.excluded)

    def evidence(self, run: str) -> Mapping[str, Evidence]:
        """Stage -> what a run kept beside its figures.

        Raises:
            UserError: there is no such run, or its evidence is damaged.
        """
        return load_evidence(self.of(run).folder)

    def of(self, run: str) -> Outcome:
        """One of the runs. Raises UserError where there is none of that name."""
        found = next((outcome for outcome in self.outcomes if outcome.run == run), None)
        if found is None:
            raise UserError(f"there is no run {run} here; choose from {', '.join(one.run for one in self.outcomes)}")
        return found

    def with_unfinished(self) -> "Runs":
        """The same with what unfinished runs measured; `excluded` still names them."""
        return dataclasses.replace(self, outcomes=[*self.outcomes, *self.unfinished], unfinished=())


def load_runs(*sources: str | Path) -> Runs:
    """Reads runs from anywhere into one table.

    Of a run that is found twice, the finished copy that was written last counts, and of a repeated measurement the
    newest.

    Args:
        sources: each a run's folder, a folder above runs (all below count, those of sweeps too), a sweep's folder, a
            pattern such as `outputs/*_openmoji`, or `wandb://entity/project?group=NAME&tag=TAG`.

    Raises:
        UserError: a source that is not there, or that holds no run.
    """
    if not sources:
        raise UserError("name what to load, such as outputs or wandb://entity/project?group=NAME")
    found = places(sources)
    excluded = list(dict.fromkeys(sentence for place in found for sentence in place.excluded))
    newest: dict[str, Outcome] = {}
    for folder in {folder.resolve(): folder for place in found for folder in place.folders}.values():
        try:
            outcome = Outcome.read(folder)
        except UserError as error:
            excluded.append(str(error))
            continue
        other = newest.get(outcome.run)
        if other is not None:
            outcome, older = sorted((outcome, other), key=lambda one: (not one.missing, one.updated), reverse=True)
            excluded.append(f"{older.run}, copy {older.folder}: {outcome.folder} counts")
        newest[outcome.run] = outcome
    unfinished = [outcome for outcome in newest.values() if outcome.missing]
    excluded += [f"{outcome.run}: {outcome.missing}" for outcome in unfinished]
    return Runs([outcome for outcome in newest.values() if not outcome.missing], unfinished, excluded)


def flat(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted key -> value. An empty section is a value itself."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        dotted = f"{path}.{key}" if path else str(key)
        found |= flat(value, dotted) if isinstance(value, Mapping) and value else {dotted: value}
    return found


def _identity(outcome: Outcome) -> tuple[object, ...]:
    return outcome.run, outcome.experiment, outcome.config_hash, outcome.seed


def _measured(figure: Figure) -> tuple[object, ...]:
    row = figure.row
    return (
        figure.name, row.metric, row.attack_name or "clean", row.eps_255, row.score, row.tree, row.level, row.split,
        row.dataset, row.value, row.n, "; ".join(row.suspect),
    )  # fmt: skip
