"""What an engine is asked to run."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.sweep.claim import exclusive
from experiments.sweep.expand import pinned
from experiments.sweep.ledger import Ledger
from experiments.sweep.plan import Plan
from experiments.sweep.spec import Sweep
from experiments.sweep.trial import Trial, titles


@dataclass(frozen=True)
class Assignment:
    """A sweep, and how it is to be run.

    overrides  key=value, for all trials.
    trials     all of them, in order; none where the engine draws them one after the other.
    jobs       trials at a time.
    """

    sweep: Sweep
    overrides: tuple[str, ...]
    trials: tuple[Trial, ...]
    jobs: int
    ledger: Ledger

    @property
    def pinned(self) -> Sweep:
        """The sweep with the overrides among its parameters."""
        return pinned(self.sweep, self.overrides)

    @property
    def plan(self) -> Plan:
        """For plan.json."""
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        sweep = self.sweep
        return Plan(sweep.name, command, sweep.metric, sweep.baseline, sweep.columns, self.trials)

    def begin(self) -> None:
        """Writes plan.json. Trials that the engine drew before stay in it."""
        folder = self.ledger.folder
        with exclusive(folder):
            replace(self.plan, trials=self.trials or self.drawn).write(folder)

    @property
    def drawn(self) -> tuple[Trial, ...]:
        """The trials of plan.json."""
        folder = self.ledger.folder
        return Plan.read(folder).trials if (folder / "plan.json").exists() else ()

    def listing(self, trials: Sequence[Trial]) -> str:
        """The trials and what became of them, a line each."""
        last = self.ledger.last()
        states = {one.identity: last[one.identity].state if one.identity in last else "to do" for one in trials}
        told = titles(trials)
        lines = [f"{len(trials)} trials, in {self.ledger.folder}"]
        for one in trials:
            lines.append(f"{one.identity}  {states[one.identity]:<11}  {one.folder}  {told[one.identity]}")
        return "\n".join(lines)
