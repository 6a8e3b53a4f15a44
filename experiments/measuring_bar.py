"""What the bars of all measurements have in common."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from experiments.bar import open_bar


class MeasuringBar(Callback):
    """One bar over images; whoever derives from it opens it on rank 0 and moves it."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._bar: tqdm[Any] | None = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _open(self, images: int) -> None:
        self._bar = open_bar(self.label, images, "image")

    def _advance(self, text: str, images: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(images)
