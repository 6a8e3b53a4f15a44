"""What a search found: its best trials. Pairing them by seed would say nothing: each has settings of its own."""

from collections.abc import Callable
from operator import itemgetter

from experiments.sweep.assignment import Assignment
from experiments.sweep.objective import measured
from experiments.sweep.parameter import fixed
from experiments.sweep.spec import EXPERIMENT, Sweep
from experiments.sweep.trial import Trial, label

SHOWN = 5  # best trials

Objective = Callable[[Trial, str], float]


def best(assignment: Assignment, objective: Objective = measured) -> str:
    """The best trials, a line each, whichever engine drew them.

    Raises UserError where one was not measured on the validation split.
    """
    sweep, ledger, drawn = assignment.pinned, assignment.ledger, assignment.drawn
    name, goal = sweep.metric or ("", "")
    last = ledger.last()
    found = [(objective(trial, name), trial) for trial in drawn if ledger.finished(trial, last)]
    found.sort(key=itemgetter(0), reverse=goal == "maximize")
    lines = [f"  {value:.6g}  {title(sweep, trial)}  {trial.folder}" for value, trial in found[:SHOWN]]
    return "\n".join([f"{len(found)} of {len(drawn)} trials finished; {name} of the best:", *lines])


def title(sweep: Sweep, trial: Trial) -> str:
    """A trial by the parameters that are searched for."""
    free = [key for key, one in sweep.parameters.items() if not fixed(one)] or [EXPERIMENT]
    return ", ".join(label(key, trial.parameters[key]) for key in free)
