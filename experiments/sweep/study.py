"""What a search knows: the trials that were drawn, by all of its agents, and what became of them. Optuna's side."""

import json
import warnings
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from experiments.sweep.parameter import Choice, Parameter, fixed, rounded
from experiments.sweep.spec import Halving, Sweep

Fate = Literal["finished", "pruned", "failed"]
STATES = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class Study:
    """Of one sweep, in a journal that several processes write. Trials go by their number, 0 being the first one drawn.

    What is drawn is a function of the sweep's name, the number, and the trials that have ended (Bergstra et al. 2011,
    TPE; those at work count as bad, so that no two agents try the same place).
    """

    def __init__(self, folder: Path, sweep: Sweep) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep = sweep
        goal = StudyDirection[(sweep.metric[1] if sweep.metric else "minimize").upper()]
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
            study_name=sweep.name,
            direction=goal,
            pruner=_pruner(sweep.halving),
            load_if_exists=True,
        )

    @property
    def drawn(self) -> int:
        """How many trials were drawn; one that failed and was drawn again counts once."""
        return len(self._trials()) - sum(self._retried(one) for one in self._trials(TrialState.FAIL))

    @property
    def running(self) -> list[int]:
        """Those that have not ended."""
        return [one.number for one in self._trials(TrialState.RUNNING)]

    @property
    def broken(self) -> list[int]:
        """Those that failed and were not drawn again."""
        return [one.number for one in self._trials(TrialState.FAIL) if not self._retried(one)]

    def draw(self, again: int | None = None) -> int:
        """A new trial's number; its parameters are those of the trial `again`, where there is one."""
        if again is not None:
            self._study.enqueue_trial(self._trials()[again].params)
        return self._study.ask().number

    def setting(self, number: int) -> dict[str, Any]:
        """The trial's parameters, drawn with the first call."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            seed = int.from_bytes(sha256(f"{self.sweep.name} {number}".encode()).digest()[:4], "big")
            self._study.sampler = TPESampler(seed=seed, constant_liar=True)
        trial = self._trial(number)
        return {key: _suggest(trial, key, one) for key, one in self.sweep.parameters.items()}

    def hopeless(self, number: int, values: Sequence[float]) -> bool:
        """Whether others were better than a trial with these validations so far."""
        trial = self._trial(number)
        for count in range(len(self._trials()[number].intermediate_values) + 1, len(values) + 1):
            trial.report(values[count - 1], count)
            if trial.should_prune():
                return True
        return False

    def settle(self, number: int, fate: Fate, value: float | None = None) -> None:
        """How the trial ended, and what it measured where it finished."""
        self._study.tell(number, value, STATES[fate])

    def _trial(self, number: int) -> optuna.Trial:
        return optuna.Trial(self._study, self._trials()[number]._trial_id)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    def _retried(self, one: FrozenTrial) -> bool:
        return any(other.number > one.number and other.params == one.params for other in self._trials())


def _pruner(halving: Halving | None) -> BasePruner:
    if halving is None:
        return NopPruner()
    return SuccessiveHalvingPruner(halving.min_iter, halving.eta, min_early_stopping_rate=0)


def _suggest(trial: optuna.Trial, key: str, parameter: Parameter) -> Any:
    """Values travel as JSON: optuna's categories are text or numbers."""
    if isinstance(parameter, Choice):
        texts = [json.dumps(value) for value in parameter.values]
        return parameter.values[0 if fixed(parameter) else texts.index(trial.suggest_categorical(key, texts))]
    if parameter.distribution == "int_uniform":
        return trial.suggest_int(key, int(parameter.low), int(parameter.high))
    log = parameter.distribution == "log_uniform_values"
    return rounded(trial.suggest_float(key, parameter.low, parameter.high, log=log))
