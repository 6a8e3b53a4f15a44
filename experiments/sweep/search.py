"""The engine `optuna`: a search for the best trial, in which bad trials end early.

Several agents may work on it: each trial is one agent's, and one whose agent died is continued by another.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from configs.errors import UserError
from experiments.sweep.assignment import Assignment
from experiments.sweep.claim import Claim, exclusive
from experiments.sweep.crew import Commands, Crew, Job, say, train_and_evaluate
from experiments.sweep.expand import composed_trial
from experiments.sweep.ledger import TrialState
from experiments.sweep.objective import measured, validated
from experiments.sweep.parameter import Choice, fixed
from experiments.sweep.ranking import Objective, title
from experiments.sweep.trial import Trial

if TYPE_CHECKING:
    from experiments.sweep.study import Study

FOLDER = "search"  # in the sweep's: the study's journal


def describe(assignment: Assignment) -> str:
    """What `run` would do."""
    sweep = assignment.pinned
    name, goal = sweep.metric or ("", "")
    lines = [f"{sweep.run_cap} trials at most, drawn one after the other, to {goal} {name} on the validation split"]
    for key, one in sweep.parameters.items():
        if not fixed(one):
            lines.append(f"  {key}: {list(one.values) if isinstance(one, Choice) else f'{one.low} .. {one.high}'}")
    return "\n".join([*lines, assignment.listing(assignment.drawn)])


def run(assignment: Assignment) -> int:
    """Searches until `run_cap` trials have ended.

    Returns 0 where none failed, 1 where one did, 128 + signal after Ctrl-C or SIGTERM.

    Raises:
        UserError: optuna is not installed; the metric is not measured, or not on the validation split.
    """
    if find_spec("optuna") is None:
        raise UserError("the engine optuna needs optuna; pip install immunoclip[optuna]")
    from experiments.sweep.study import Study

    return Search(assignment, Study(assignment.ledger.folder / FOLDER, assignment.pinned)).run()


class Search(Crew):
    """One agent of a search. What failed before it began is tried once more."""

    def __init__(
        self,
        assignment: Assignment,
        study: "Study",
        commands: Commands = train_and_evaluate,
        objective: Objective = measured,
    ) -> None:
        super().__init__(assignment.ledger, assignment.jobs, commands)
        self.assignment, self.sweep, self.study, self.objective = assignment, assignment.pinned, study, objective
        self.cap, self.metric = self.sweep.run_cap or 0, (self.sweep.metric or ("", ""))[0]
        self.broken = study.broken
        self.numbers: dict[str, int] = {}  # identity of a trial at work here -> the study's number
        self.place = self.ledger.folder / FOLDER

    def more(self) -> bool:
        """Whether there is a trial to draw, or one of another agent's to wait for."""
        others = set(self.study.running) - set(self.numbers.values())
        return bool(others or self.broken) or self.study.drawn < self.cap

    def fill(self, free: Sequence[int]) -> None:
        """Continues what dead agents left, then draws."""
        for slot in free:
            with exclusive(self.place):  # whoever draws a trial also claims it, before others look
                found = self._orphan() or self._draw()
            if found is None:
                return
            self.begin(*found, slot)

    def unwanted(self, job: Job) -> bool:
        """Whether others were better after as many validations."""
        if self.sweep.halving is None or not job.rest:  # trained already
            return False
        values = validated(job.trial, self.sweep.halving.watch)
        return self.study.hopeless(self.numbers[job.trial.identity], values)

    def ended(self, trial: Trial, state: TrialState) -> None:
        """Lets the study know, but of a trial that goes on later."""
        number = self.numbers.pop(trial.identity)
        if state != "interrupted":
            self._settle(number, trial, state)

    def tell(self, trial: Trial, what: str) -> None:
        """With the number of trials drawn so far."""
        say(f"[{self.study.drawn}/{self.cap}] {title(self.sweep, trial)}: {what}")

    def _draw(self) -> tuple[Trial, Claim] | None:
        """A new trial, or one that failed before; None where there is none."""
        while self.broken or self.study.drawn < self.cap:
            number = self.study.draw(again=self.broken.pop(0) if self.broken else None)
            found = self._claimed(number)
            if found:
                return found
        return None

    def _orphan(self) -> tuple[Trial, Claim] | None:
        """A trial that an agent drew, and that nobody works on."""
        for number in self.study.running:
            if number not in self.numbers.values() and (found := self._claimed(number)):
                return found
        return None

    def _claimed(self, number: int) -> tuple[Trial, Claim] | None:
        """The trial with its claim; None where another process has it, and where it has ended: then the study knows."""
        trial = self._trial(number)
        claim = self.ledger.claim(trial)
        if trial.identity in self.numbers or not claim.take():
            return None
        last = self.ledger.last()
        state = last[trial.identity].state if trial.identity in last else None
        if state == "pruned" or self.ledger.finished(trial, last):
            claim.release()
            self._settle(number, trial, "pruned" if state == "pruned" else "finished")
            return None
        self.numbers[trial.identity] = number
        self.assignment.plan.add(trial, self.ledger.folder)
        return trial, claim

    def _settle(self, number: int, trial: Trial, state: TrialState) -> None:
        if state == "finished":
            self.study.settle(number, "finished", self.objective(trial, self.metric))
        else:
            self.study.settle(number, "pruned" if state == "pruned" else "failed")

    def _trial(self, number: int) -> Trial:
        return composed_trial(self.sweep, self.study.setting(number))
