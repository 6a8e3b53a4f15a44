"""The engine `local`: trials as processes of this machine, some at a time. Other agents may work on the same sweep."""

from collections.abc import Sequence

from experiments.sweep.assignment import Assignment
from experiments.sweep.claim import Claim
from experiments.sweep.crew import Commands, Crew, say, train_and_evaluate
from experiments.sweep.ledger import Ledger
from experiments.sweep.trial import Trial, titles


def describe(assignment: Assignment) -> str:
    """What `run` would do."""
    return assignment.listing(assignment.trials)


def run(assignment: Assignment) -> int:
    """Runs what is not finished, `jobs` trials at a time, and waits for those that other agents run.

    Returns 0 where all are finished, 1 where a trial failed, 128 + signal after Ctrl-C or SIGTERM.
    """
    return Agent(assignment.ledger, assignment.trials, assignment.jobs).run()


class Agent(Crew):
    """Works on a list of trials. It tries each of them once, and ends when all have ended."""

    def __init__(
        self, ledger: Ledger, trials: Sequence[Trial], jobs: int, commands: Commands = train_and_evaluate
    ) -> None:
        super().__init__(ledger, jobs, commands)
        self.total, self.titles = len(trials), titles(trials)
        self.earlier = len(ledger.events())  # what failed before is tried again; what fails from now on is not
        last = ledger.last()
        self.waiting = [trial for trial in trials if not ledger.finished(trial, last)]
        self._told: set[str] = set()

    def run(self) -> int:
        """As the module's `run`."""
        if len(self.waiting) < self.total:
            say(f"{self.total - len(self.waiting)} of {self.total} trials are finished already")
        return super().run()

    def more(self) -> bool:
        """Whether any is waiting, here or with another agent."""
        return bool(self.waiting)

    def fill(self, free: Sequence[int]) -> None:
        """Begins the first trials of the list that no other agent has or has ended."""
        self._settle()
        slots = list(free)
        for trial in list(self.waiting):
            if not slots:
                return
            claim = self.ledger.claim(trial)
            if not claim.take():
                self._tell_holder(trial, claim)
                continue
            self._settle()
            if trial not in self.waiting:  # ended between the look into the ledger and the claim
                claim.release()
                continue
            self.waiting.remove(trial)
            self.begin(trial, claim, slots.pop(0))

    def tell(self, trial: Trial, what: str) -> None:
        """With the number of trials that have ended."""
        ended = self.total - len(self.waiting) - len(self.running)
        say(f"[{ended}/{self.total}] {self.titles[trial.identity]}: {what}")

    def _settle(self) -> None:
        """Takes off the list what other agents have brought to an end since this one began."""
        last, recent = self.ledger.last(), self.ledger.events()[self.earlier :]
        failed = {event.trial for event in recent if event.state == "failed" and event == last[event.trial]}
        for trial in list(self.waiting):
            if self.ledger.finished(trial, last) or trial.identity in failed:
                self.waiting.remove(trial)
                if trial.identity in failed:
                    self.failed.append(trial)
                self.tell(trial, f"{last[trial.identity].state} by another agent")

    def _tell_holder(self, trial: Trial, claim: Claim) -> None:
        """Once, that another process has the trial."""
        if trial.identity not in self._told:
            self._told.add(trial.identity)
            self.tell(trial, f"is run by {claim.holder} ({claim.path}); this command waits for it")
