"""What asks an attempt to stop: a signal, or the end of its time."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities import rank_zero_only

from experiments.processes import end_with_parent
from experiments.wall_time import WallTime

TIME_IS_OVER = signal.SIGALRM  # of the timer that a wall time sets
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, TIME_IS_OVER)
PATIENCE_S = 1.0  # in which launchers that pass a Ctrl-C on make two of one
LEFT_S = 30.0  # that launchers leave a process between their first signal and SIGKILL


class Interrupted(BaseException):
    """A signal, or the end of its time, ended the run; what it had saved is whole.

    Not an Exception: it is raised by a signal's handler, anywhere, and no handler of errors may take it for one.
    """

    def __init__(self, signal_number: int, message: str, agreed: bool = False) -> None:
        """
        Args:
            agreed: whether all ranks end alike, at the same step.
        """
        super().__init__(message)
        self.signal_number = signal_number
        self.agreed = agreed

    @property
    def exit_code(self) -> int:
        """What a shell expects: 128 + signal. Where all ranks end alike, rank 0 says so for all: Lightning, torchrun
        and srun end the rest at the first other code than 0, and rank 0 may still be saying what became of the run."""
        return 0 if self.agreed and vars(rank_zero_only).get("rank") else 128 + self.signal_number


class Stop:
    """Signals and the wall time of one attempt. Within a fit they wait for the step; anywhere else they raise at once.

    A second Ctrl-C, more than a second after the first, does not wait any more. Every other signal is of one mind with
    the first, and does not disturb an attempt that is about to end: launchers repeat themselves, and torchrun and SLURM
    send SIGTERM to ranks that have not ended yet.
    """

    def __init__(self, wall: WallTime | None = None) -> None:
        self.wall = wall or WallTime()
        self.signal_number = 0
        self.agreed = False  # by all ranks, at the same step
        self._since = -math.inf
        self._postponed = False
        self._process = 0  # that listens

    @contextmanager
    def listening(self, last: Callable[[int], None] = lambda _: None) -> Iterator[None]:
        """Handles SIGNALS within the block, in the main thread; nothing elsewhere. Blocks may be nested.

        Args:
            last: what the outermost block does with the number of the signal that interrupted it.

        Raises:
            Interrupted: at a signal, or at the end of the wall time.
        """
        if self.heard or threading.current_thread() is not threading.main_thread():
            yield
            return
        _end_with_rank_zero()
        before = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            self._process = os.getpid()
            for number in SIGNALS:
                signal.signal(number, self._handle)
            if self.wall.left < math.inf:
                signal.setitimer(signal.ITIMER_REAL, max(0.001, self.wall.left))
            with _lightning_without_signals():
                yield
        except Interrupted as interruption:
            last(interruption.signal_number)
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._process = 0

    @property
    def heard(self) -> bool:
        """Whether this process listens."""
        return self._process == os.getpid()

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """Within the block a signal is only noted, for whoever looks at `signal_number` after each step.

        Raises Interrupted at the end of the block for a signal that came too late for that.
        """
        self._postponed = True
        try:
            yield
        finally:
            self._postponed = False
        if self.signal_number:
            raise self._at_once()

    def request(self, number: int) -> None:
        """Stops as at this signal; from any thread."""
        if self.heard and not self._postponed:
            os.kill(os.getpid(), number)
        else:
            self._note(number)

    def interruption(self, step: int, checkpoint: Path) -> Interrupted:
        """What a fit ends with."""
        saved = f"{checkpoint} is saved" if checkpoint.exists() else "nothing was saved yet"
        told = f"{self._name()} at step {step}: {saved}; start the same command again to resume"
        self._since = time.monotonic()
        return Interrupted(self.signal_number, told, self.agreed)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.heard:  # a forked worker, which goes on as long as its parent wants it
            if number == signal.SIGTERM:  # which is how a parent says so, multiprocessing's pools among them
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        first = not self.signal_number
        repeated = time.monotonic() - self._since < (PATIENCE_S if number == signal.SIGINT else LEFT_S)
        self._note(number)
        if not self._postponed and not repeated:
            raise self._at_once()
        if number == signal.SIGINT and not first and not repeated:
            raise KeyboardInterrupt

    def _note(self, number: int) -> None:
        if not self.signal_number:
            self.signal_number, self._since = number, time.monotonic()

    def _at_once(self) -> Interrupted:
        told = f"{self._name()}: what was complete is kept; start the same command again to go on"
        self._since = time.monotonic()
        return Interrupted(self.signal_number, told)

    def _name(self) -> str:
        if self.signal_number == TIME_IS_OVER and self.wall.cause:
            return f"the time that {self.wall.cause} leaves is over"
        return signal.Signals(self.signal_number).name


@contextmanager
def _lightning_without_signals() -> Iterator[None]:
    """Lightning's handler of SIGTERM would take ours away, broadcast in the middle of whatever the ranks are at, and
    end without saving; its ranks would ask each other about it at every batch. There is no switch for it."""
    handlers, ask = _SignalConnector.register_signal_handlers, _TrainingEpochLoop._broadcast_sigterm_tensor
    _SignalConnector.register_signal_handlers = _nothing  # type: ignore[method-assign]
    _TrainingEpochLoop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]
    try:
        yield
    finally:
        _SignalConnector.register_signal_handlers = handlers  # type: ignore[method-assign]
        _TrainingEpochLoop._broadcast_sigterm_tensor = ask  # type: ignore[method-assign]


def _nothing(self: Any) -> None:
    """In place of a method."""


def _started_by_lightning() -> bool:
    """Whether this is a further rank that rank 0 started; torchrun sets RANK, SLURM its own."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 and not {"RANK", "SLURM_PROCID"} & os.environ.keys()


def _end_with_rank_zero() -> None:
    """On Linux: a rank that rank 0 started ends with it. Else it would hold its device on, waiting in a collective."""
    if _started_by_lightning():
        end_with_parent(signal.SIGKILL)
