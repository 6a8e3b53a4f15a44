"""Trains the weights, and validates and keeps their moving average."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from experiments.watch import window_ends
from lightning_modules.ema import MovingAverage, assign, learnt


class Averaging(Callback):
    """Keeps an exponential moving average of what is learnt, which takes the weights' place during a validation, and
    for good once training is over. It is updated after each step of the optimiser, and is in every checkpoint."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._average: MovingAverage
        self._restored: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}  # the trained ones, during a validation

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts from the weights, or where a checkpoint left it."""
        self._average = self._started(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates after a step of the optimiser."""
        if window_ends(trainer, batch_idx):
            self._average.update(learnt(pl_module), trainer.global_step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average in the weights' place."""
        weights = learnt(pl_module)
        self._weights = {name: weight.clone() for name, weight in weights.items()}
        assign(weights, self._average.averages)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights back."""
        assign(learnt(pl_module), self._weights)
        self._weights = {}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in the module, also where a resumed run had no step left to take."""
        if self._restored:
            self._average = self._started(pl_module)
        assign(learnt(pl_module), self._average.averages)

    def state_dict(self) -> dict[str, Any]:
        return self._average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def _started(self, module: LightningModule) -> MovingAverage:
        average = MovingAverage(learnt(module), self.decay)
        if self._restored:
            average.load_state_dict(self._restored)
            self._restored = {}
        return average
