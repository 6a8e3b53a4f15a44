"""Whether the robustness of a model may be believed: signs that attacks on it fail for other reasons than robustness.

The signs are those of Carlini et al. 2019 ("On evaluating adversarial robustness", sec. 3 and 5), Croce & Hein 2020
(AutoAttack's flags) and Pintor et al. 2021 ("Indicators of attack failure"). All of them are one-sided: a sign that
shows speaks against a number, but a model that shows none may still yield to an attack made for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from configs.errors import ConfigError
from configs.schema.attack import AnyNorm
from lightning_modules.attacks import signs
from lightning_modules.attacks.apgd import APGD
from lightning_modules.attacks.apgd_l1 import L1APGD
from lightning_modules.attacks.attack import FallenFn, LossFn, ModelFn, misclassified
from lightning_modules.attacks.engine import Engine
from lightning_modules.attacks.losses import cross_entropy, margin
from lightning_modules.attacks.method import Method
from lightning_modules.attacks.outcome import Outcome
from lightning_modules.attacks.signs import Check
from lightning_modules.attacks.square import Square
from lightning_modules.attacks.walks import Samples

HUGE_EPS = 0.5
"""L-inf radius within which every picture can be made plain grey: only the model's answer to grey could stand."""

CLEAR_MARGIN = 5.0
"""Margin of rescaled logits on the clean picture: from about 17 on softmax saturates in float32, and far below 1 it
spreads the gradient over classes that are no danger."""


@dataclass(frozen=True)
class Beliefs:
    """What an examination found.

    samples  that were looked at.
    correct  how many of them the model has right when clean; the checks that attack look at these, and are missing
             where there are none.
    checks   those that were made, in order.
    """

    samples: int
    correct: int
    checks: tuple[Check, ...]

    @property
    def suspect(self) -> list[str]:
        """Reasons against the model's robustness numbers, in plain words; empty where no sign shows."""
        return [check.reason for check in self.checks if check.reason]

    def fields(self) -> dict[str, Any]:
        """For the `checks` of a result row: values by name, `examined`, `correct`, and the list `suspect`."""
        values = {check.name: check.value for check in self.checks}
        return {"examined": self.samples, "correct": self.correct, **values, "suspect": self.suspect}


@torch.no_grad()
def examine(
    model_fn: ModelFn,
    pixels: Tensor,
    labels: Tensor,
    seeds: Tensor,
    eps: float,
    norm: AnyNorm,
    *,
    logit_scale: float | None = None,
    undefended_fn: ModelFn | None = None,
    samples: int = 64,
    steps: int = 20,
    queries: int = 200,
    slots: int = 64,
) -> Beliefs:
    """Looks for signs that attacks on a model fail for other reasons than robustness.

    Checks, by the name of their value:

    - `randomised`: largest distance between two answers to the same pixels, over their length. Misses noise that is
      drawn from a fixed seed or once per process.
    - `softmax`: share of samples whose outputs are a probability distribution; doubtful when all are. Misses other
      squashed outputs. Log-probabilities do no harm.
    - `zero_gradient`: mean share of pixels whose cross-entropy gradient at APGD's random start is exactly 0, also where
      the model cuts its graph; doubtful above a half. Says nothing on gradients that are wrong but not 0.
    - `blind`: share of samples whose gradient is 0 in every pixel.
    - `rescaled`: share that APGD fells where cross-entropy sees each sample's logits times a factor that makes the
      clean margin 5, less the share that falls where it sees them as they are. Then saturated or vanishing logits hide
      the gradient; numbers from scale-free losses may still hold. Doubtful by an exact sign test at 1 %.
    - `unit_scale`: the same for logits over `logit_scale`, which for CLIP are cosines. Only where it is given.
    - `black_box`: share that falls to Square, which asks for no gradient, and not to APGD with any of three losses:
      cross-entropy as it is, on the rescaled logits, and the margin. For these samples gradients misled, or `steps`
      were too few. A few hundred queries miss most of what thousands would show.
    - `transfer`: share that falls to what APGD makes of `undefended_fn`, and not to the same three. Misses what the
      undefended model does not share with this one. Only where one is given.
    - `huge_eps`: share that APGD leaves standing in a ball that reaches plain grey from every picture. Robustness is
      impossible there, except where the label is the model's answer to nearly everything.

    Shares are of the samples that the model has right when clean. `blind`, `black_box`, `transfer` and `huge_eps` raise
    doubt where more than 0.2 points of them must show the sign, at 1 %: from 2 of 64 on, see `signs.SIGNIFICANCE`.
    On few correct samples the checks can show little; on a randomised model each of the others is one draw.

    Args:
        model_fn: see `ModelFn`; logits (B, K).
        pixels: float (N, C, H, W) in [0, 1], of which the first `samples` are used.
        labels: int64 (N,).
        seeds: int64 (N,), see `noise.derive`.
        eps: radius of the numbers in question, in units of the pixel range [0, 1].
        logit_scale: what the model multiplies its cosines with.
        undefended_fn: a model of the same classes before it was made robust.
        steps: of each APGD, of which there are at most 6, or 8 with both options; the fallen leave at once.
        queries: of Square, per sample.
        slots: largest batch of the models.

    Raises:
        ConfigError: no samples, or `logit_scale` is not positive.
    """
    if not len(pixels) or samples < 1:
        raise ConfigError("the belief checks got no samples to look at; give them at least one")
    if logit_scale is not None and not logit_scale > 0:
        raise ConfigError(f"logit_scale must be positive, got {logit_scale}; the belief checks divide the logits by it")
    clean, labels, seeds = pixels[:samples].detach().float(), labels[:samples], seeds[:samples]
    outputs, again = (_ask(model_fn, clean, slots) for _ in range(2))
    found = [signs.randomised(outputs, again), signs.softmax(outputs)]
    right = (~misclassified(outputs, labels)).nonzero().squeeze(1)
    if len(right):
        row, trial = torch.arange(len(right), device=clean.device), torch.zeros_like(right)
        known = Samples(row, clean[right], labels[right], outputs[right], seeds[right], trial)
        subject = _Subject(_differentiable(model_fn), known, eps, norm, steps, queries, slots)
        found += subject.checks(logit_scale, undefended_fn)
    return Beliefs(len(clean), len(right), tuple(found))


@dataclass(frozen=True)
class _Subject:
    """A model, the samples that it has right, and how hard they are attacked. Fields as in `examine`."""

    model_fn: ModelFn
    samples: Samples
    eps: float
    norm: AnyNorm
    steps: int
    queries: int
    slots: int

    def checks(self, logit_scale: float | None, undefended_fn: ModelFn | None) -> Iterator[Check]:
        """All checks that attack. The last ones look at those who withstood the gradient only."""
        plain = self._attack(self._ascent(self.eps), cross_entropy, self.samples)
        yield signs.zero_gradient(plain.zero_gradient)
        blind = int((plain.zero_gradient == 1).sum())
        yield signs.counted("blind", blind, len(self.samples), "have no gradient at all")
        factors = CLEAR_MARGIN / margin(self.samples.outputs, self.samples.target).abs().clamp_min(1e-12)
        clear = self._fell_at_scale(factors)
        yield signs.gained("rescaled", "cross-entropy on rescaled logits", plain.fallen, clear)
        if logit_scale is not None:
            unit = self._fell_at_scale(torch.full_like(factors, 1 / logit_scale))
            yield signs.gained("unit_scale", "cross-entropy on logits without their scale", plain.fallen, unit)
        standing = self._still_standing(margin, self.eps, self.samples.select(~(plain.fallen | clear)))
        yield self._black_box(standing)
        if undefended_fn is not None:
            yield self._transfer(standing, _differentiable(undefended_fn))
        yield self._huge_eps(standing)

    def _ascent(self, eps: float) -> Method[Any]:
        if self.norm == "l1":
            return L1APGD(eps, self.steps, restarts=1)
        return APGD(self.norm, eps, self.steps)

    def _attack(
        self,
        method: Method[Any],
        loss_fn: LossFn,
        samples: Samples,
        model_fn: ModelFn | None = None,
        fallen_fn: FallenFn | None = misclassified,
    ) -> Outcome:
        """What a method does to some of the samples, in their order; there must be one at least."""
        engine = Engine(method, model_fn or self.model_fn, loss_fn, fallen_fn, self.slots)
        outcome = Outcome.join([*engine.push(samples), *engine.finish()])
        return outcome.select(outcome.row.argsort())

    def _still_standing(self, loss_fn: LossFn, eps: float, samples: Samples) -> Samples:
        if not len(samples):
            return samples
        return samples.select(~self._attack(self._ascent(eps), loss_fn, samples).fallen)

    def _fell_at_scale(self, factors: Tensor) -> Tensor:
        """Who falls, bool (N,), where cross-entropy sees the logits times a factor per sample, (N,)."""
        scaled = replace(self.samples, target=torch.stack([self.samples.target.float(), factors], dim=1))
        return self._attack(
            self._ascent(self.eps), _scaled_cross_entropy, scaled, fallen_fn=_scaled_misclassified
        ).fallen

    def _black_box(self, standing: Samples) -> Check:
        square = Square(self.norm, self.eps, self.queries)
        count = int(self._attack(square, margin, standing).fallen.sum()) if len(standing) else 0
        what = "fall to Square, which sees no gradient, and not to APGD"
        return signs.counted("black_box", count, len(self.samples), what)

    def _transfer(self, standing: Samples, undefended_fn: ModelFn) -> Check:
        count = 0
        if len(standing):
            made = self._attack(self._ascent(self.eps), cross_entropy, standing, undefended_fn, fallen_fn=None)
            count = int(misclassified(_ask(self.model_fn, made.pixels, self.slots), standing.target).sum())
        what = "fall to attacks on the undefended model, and not to APGD on this one"
        return signs.counted("transfer", count, len(self.samples), what)

    def _huge_eps(self, standing: Samples) -> Check:
        size = self.samples.clean[0].numel()
        eps = HUGE_EPS * {"linf": 1.0, "l2": size**0.5, "l1": float(size)}[self.norm]
        for loss_fn in (cross_entropy, margin):
            standing = self._still_standing(loss_fn, eps, standing)
        what = f"stand at eps = {eps:g}, where any picture can be made grey"
        return signs.counted("huge_eps", len(standing), len(self.samples), what)


def _ask(model_fn: ModelFn, pixels: Tensor, slots: int) -> Tensor:
    return torch.cat([model_fn(part) for part in torch.split(pixels, slots)])


def _differentiable(model_fn: ModelFn) -> ModelFn:
    """The same outputs, with a gradient of 0 where the model cuts its graph and autograd would raise."""

    def answer(pixels: Tensor) -> Tensor:
        outputs = model_fn(pixels)
        return outputs + (0.0 * pixels).flatten(1).sum(1, keepdim=True).to(outputs.dtype)

    return answer


def _scaled_cross_entropy(outputs: Tensor, target: Tensor) -> Tensor:
    """Of each sample's logits times its own factor; target float32 (B, 2): (label, factor)."""
    return cross_entropy(outputs.float() * target[:, 1:], target[:, 0].long())


def _scaled_misclassified(outputs: Tensor, target: Tensor) -> Tensor:
    return misclassified(outputs, target[:, 0].long())
