"""What the engine asks of an attack method."""

from typing import ClassVar, NamedTuple, Protocol, TypeVar

from torch import Tensor

from lightning_modules.attacks.attack import LossFn
from lightning_modules.attacks.walks import Samples, Walks

W = TypeVar("W", bound=Walks)


class Answer(NamedTuple):
    """What the model says about `walks.pixels`. All detached.

    outputs   (B, K).
    losses    float32 (B,): the method's loss.
    gradient  float32 (B, C, H, W) of each loss, 0 where it is not a number; None where the method asked for none, and
              after the last query of a trial, where nothing follows.
    """

    outputs: Tensor
    losses: Tensor
    gradient: Tensor | None


class Method(Protocol[W]):
    """One attack, written so that all its state is per sample: samples at different iterations share a batch.

    A sample's walk depends on its own row of `Samples` only, never on the others in the batch, on global random state
    or on the time at which it entered. Nothing here synchronises with the host.

    needs_gradient  for each question of a round, whether it wants the gradient of `loss` too. Samples enter at the
                    beginning of a round, so that all those in a batch want the same.
    targeted        whether it reads `Samples.outputs`.
    """

    needs_gradient: ClassVar[tuple[bool, ...]]
    targeted: ClassVar[bool]

    @property
    def queries(self) -> int:
        """Most questions of one trial, in whole rounds or less."""
        ...

    def trials(self, classes: int) -> int:
        """How often a sample is tried while it stands: restarts, target classes or both."""
        ...

    def begin(self, samples: Samples) -> W:
        """The walks of new trials (`samples.trial`), with the first pixels to ask about. What `advance` writes into is
        theirs alone."""
        ...

    def loss(self, outputs: Tensor, walks: W, loss_fn: LossFn) -> Tensor:
        """float32 (B,), differentiable in outputs (B, K): the caller's loss, or the method's own. A method that needs
        several gradients of a sample returns (B, L), and is answered with (B, L, C, H, W)."""
        ...

    def advance(self, walks: W, answer: Answer) -> None:
        """Takes in an answer and sets the next `walks.pixels`, in place; the answer's gradient may be overwritten. It
        leaves what is over as it is: an engine may go on for some questions before it looks."""
        ...

    def over(self, walks: W) -> Tensor:
        """bool (B,): trials that have no further question."""
        ...

    def inside(self, walks: W) -> Tensor | None:
        """bool (B,): whether `walks.pixels` keeps the budget, so that falling there counts; None where all do."""
        ...

    def best(self, walks: W) -> tuple[Tensor, Tensor]:
        """The strongest pixels that keep the budget, float32 (B, C, H, W), and their losses (B,)."""
        ...
