"""The progress of a measurement."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from experiments.measuring_bar import MeasuringBar
from lightning_modules.evaluation import Evaluation
from lightning_modules.probes import Tally


class ProbeBar(MeasuringBar):
    """Over the images of all probes, naming the probe that runs. Of an attack it tells the robust
    accuracy and the number of samples so far, and the time that the rest of them takes at this pace."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self._ranks = 1
        self._began = 0.0
        self._known = 0  # samples of the running attack that an earlier attempt settled

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar."""
        if trainer.is_global_zero and isinstance(pl_module, Evaluation):
            self._ranks = trainer.world_size
            self._open(sum(self._share(tally) for tally in pl_module.tallies))
            pl_module.watcher = self._show
            if self._bar is not None and pl_module.examination is not None:
                self._bar.set_postfix_str("looking for signs that attacks fail")

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Names the probe, and starts the clock of an attack."""
        if self._bar is not None and batch_idx == 0:
            assert isinstance(pl_module, Evaluation)
            probe = pl_module.tallies[dataloader_idx].probe
            self._began, self._known = time.monotonic(), 0
            self._bar.set_postfix_str(f"{probe.name} on {probe.split}", refresh=False)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advances by a batch of clean images; those under attack advance one by one."""
        if self._bar is not None:
            assert isinstance(pl_module, Evaluation)
            if pl_module.tallies[dataloader_idx].probe.attack is None:
                self._bar.update(int(batch["valid"].sum()))

    def _show(self, tally: Tally, settled: int, news: bool) -> None:
        """Some more samples of an attack are settled."""
        if self._bar is None:
            return
        if not news:
            self._known += settled
        fresh = tally.settled - self._known
        left = self._share(tally) - tally.settled
        text = (
            f"{tally.probe.name} on {tally.probe.split}: robust {tally.standing / tally.settled:.1%} of {tally.settled}"
        )
        if fresh and left:
            seconds = (time.monotonic() - self._began) / fresh * left
            text += f", {self._bar.format_interval(seconds)} left"
        self._advance(text, settled)

    def _share(self, tally: Tally) -> int:
        """Samples of a probe on rank 0, see `EvalPlan`."""
        return tally.probe.samples // self._ranks
