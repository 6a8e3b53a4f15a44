"""Any attack of torchattacks by its name: what can be repaired from outside is, and the rest is warned of."""

import inspect
import math
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs.errors import ConfigError, closest, did_you_mean
from lightning_modules.attacks import noise
from lightning_modules.attacks.attack import Adversarial, FallenFn, LossFn, ModelFn, input_gradient, zero_share
from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.attacks.projection import Norm, project_

_NORMS: dict[str, Norm] = {  # that they have by themselves
    **dict.fromkeys(("FGSM", "BIM", "RFGSM", "FFGSM", "PGD", "EOTPGD", "TPGD", "UPGD", "PGDRS", "Jitter"), "linf"),
    **dict.fromkeys(("MIFGSM", "DIFGSM", "TIFGSM", "NIFGSM", "SINIFGSM", "VMIFGSM", "VNIFGSM"), "linf"),
    **dict.fromkeys(("SPSA", "PIFGSM", "PIFGSMPP"), "linf"),
    **dict.fromkeys(("CW", "PGDL2", "PGDRSL2", "DeepFool"), "l2"),
}
_PARAMETERS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}  # for those that take one

_REFUSED = {
    "AutoAttack": "gives APGD, APGD-T and FAB 10 steps where the reference gives them 100, so that its numbers are not "
    "AutoAttack's; use attack.kind=auto_attack",
    "MultiAttack": "is made of attack objects, not of settings; use attack.kind=auto_attack with version=custom",
    "LGV": "trains models of its own on a data loader, which no attack is given; choose another attack",
}
_FEW_STEPS = "runs 10 steps unless arguments.steps is given, where AutoAttack's reference runs 100"
_WHOLE_BATCH = "stops for the whole batch once the sum of its losses rises, so that a sample's result depends on others"
_STUCK = "divides by the gradient's mean, so that a sample stands still once its gradient has been 0 throughout"
_OTHER_NORM = "has a budget in another norm, and what it finds is shrunk to this one"
_DEFECTS: dict[str, tuple[str, ...]] = {
    "CW": (
        "does not search for its constant",
        _WHOLE_BATCH,
        "can't move pixels that are exactly 0 or 1; attack.kind=cw has none of this",
    ),
    **dict.fromkeys(("EADEN", "EADL1"), (_WHOLE_BATCH, _OTHER_NORM)),
    **dict.fromkeys(("JSMA", "OnePixel", "Pixle", "SparseFool"), (_OTHER_NORM,)),
    **dict.fromkeys(("MIFGSM", "NIFGSM", "SINIFGSM", "VMIFGSM", "VNIFGSM", "DIFGSM", "TIFGSM", "UPGD"), (_STUCK,)),
}
# Their margin masks classes with 0, which is wrong for negative logits; a shift of all logits puts it right.
_MASKED_MARGIN = frozenset({"CW", "EADEN", "EADL1", "UPGD"})
_TARGETS = 9  # AutoAttack's; torchattacks aims at one class less than it is told there are


class DefectWarning(UserWarning):
    """A defect of an attack of torchattacks that can't be repaired from outside."""


@dataclass(frozen=True)
class TorchAttacks:
    """An attack of torchattacks (Kim 2020), for labels int64 (B,). See `Attack` for the call.

    Repaired: the state is float32; the result is projected on the budget and is finite; generators, modes and `.grad`
    are as before, also when the model raises; margins are right for negative logits; targeted attacks know how many
    classes there are, and aim at 9 as AutoAttack's do. The loss is its own: `loss_fn` is not used. Its random draws
    follow from all seeds of the batch together: unlike elsewhere, a sample's result depends on its batch.

    name       of the class in torchattacks.
    norm       of the budget; None is the attack's own, linf for those that take one.
    eps        of the budget, in units of the pixel range [0, 1]; also the attack's, where it has a radius. An attack
               that looks for the smallest perturbation has none, and what it finds is shrunk to the budget.
    arguments  other arguments of the class.

    Raises:
        ConfigError: torchattacks is missing or has no such attack, AutoAttack is asked for, or a setting is impossible;
            when called, too few classes or a target that is not labels.
    Warns:
        DefectWarning: of defects that remain.
    """

    name: str
    norm: Norm | None
    eps: float
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        accepted = _accepted(_find(self.name))
        for argument in self.arguments:
            if argument in ("eps", "max_epsilon", "norm"):
                raise ConfigError(
                    f"arguments of {self.name} hold '{argument}'; set eps_255 and norm of the attack instead"
                )
            if argument not in accepted:
                problem = did_you_mean(argument, [each for each in accepted if each not in ("eps", "norm")])
                raise ConfigError(f"{self.name} of torchattacks has no argument '{argument}'; {problem}")
        self._check_budget(accepted)
        if self.name in ("EADEN", "EADL1") and self.arguments.get("max_iterations", 100) < 10:
            raise ConfigError(f"{self.name} divides by zero below 10 iterations; give it max_iterations >= 10")
        found = self._defects(accepted)
        if found:
            warnings.warn(f"torchattacks' {self.name} {'; it '.join(found)}", DefectWarning, stacklevel=3)

    @property
    def budget(self) -> Norm:
        """The norm given, or the attack's own."""
        return self.norm or _NORMS.get(self.name, "linf")

    def __call__(
        self,
        model_fn: ModelFn,
        pixels: Tensor,
        target: Tensor,
        loss_fn: LossFn,
        seeds: Tensor,
        fallen: FallenFn | None = None,
    ) -> Adversarial:
        clean, nothing = pixels.detach().float(), torch.zeros_like(seeds, dtype=torch.bool)
        if not len(clean):
            return Adversarial(clean, clean.new_zeros(0), nothing)
        if target.dtype != torch.int64 or target.ndim != 1:
            raise ConfigError(
                f"{self.name} of torchattacks attacks labels only; use attack.kind=pgd for embedding losses"
            )
        outputs, _, gradient = input_gradient(model_fn, clean, target, cross_entropy)
        asked = _Asked(model_fn, clean.device, shifted=self.name in _MASKED_MARGIN)
        seed = int(noise.derive(seeds, 0).sum()) % 2**32
        with _generators(seed), torch.enable_grad():
            found = self._attack(asked, outputs.shape[1], seed)(clean, target).detach().float()
        found = torch.where(found.isfinite() & ~outputs.isnan().any(1).view(-1, 1, 1, 1), found, clean)
        adversarial = project_(found, clean, self.eps, self.budget)
        with torch.no_grad():
            fell = fallen(model_fn(adversarial), target) if fallen else nothing
        return Adversarial(adversarial, zero_share(gradient), fell)

    def _attack(self, asked: nn.Module, classes: int, seed: int) -> Any:
        fewest = {"APGDT": 4, "JSMA": 10, "APGD": 3 if self.arguments.get("loss") == "dlr" else 2}.get(self.name, 2)
        if classes < fewest:
            raise ConfigError(
                f"{self.name} of torchattacks needs at least {fewest} classes, got {classes}; use attack.kind=apgd"
            )
        found, own = _find(self.name), {"eps": self.eps, "max_epsilon": self.eps, "norm": _PARAMETERS[self.budget]}
        own |= {"seed": seed, "n_classes": min(classes, _TARGETS + 1)}
        return found(asked, **{name: own[name] for name in _accepted(found) if name in own} | dict(self.arguments))

    def _check_budget(self, accepted: Mapping[str, Any]) -> None:
        own = _NORMS.get(self.name, "linf" if "norm" in accepted else None)
        if self.norm is None and own is None:
            raise ConfigError(f"{self.name} of torchattacks has no norm of its own; set norm to linf or l2")
        if self.name in _NORMS and self.norm not in (None, own):
            raise ConfigError(f"{self.name} of torchattacks is an attack under {own}, not {self.norm}; set norm={own}")
        if not 0 < self.eps < math.inf or (self.budget == "linf" and self.eps > 1):
            bound = " and at most 1" if self.budget == "linf" else ""
            raise ConfigError(f"eps must be above 0{bound} in units of the pixel range, got {self.eps}; change eps_255")

    def _defects(self, accepted: Mapping[str, Any]) -> list[str]:
        found = list(_DEFECTS.get(self.name, ()))
        if self.name in ("APGD", "APGDT", "FAB") and "steps" not in self.arguments:
            found.append(_FEW_STEPS)
        if self.name == "APGDT" and self.budget == "l2":
            found.append("takes the step size of the first sample for the whole batch")
        if self.name == "FAB" and not self.arguments.get("multi_targeted"):
            found.append("computes a gradient for every class at each step; arguments.multi_targeted=true takes 9")
        if self.name == "Square" and self.arguments.get("resc_schedule", True):
            found.append("rescales its schedule to n_queries, where AutoAttack's does not; give resc_schedule=false")
        step = accepted.get("alpha")
        if step is not None and "alpha" not in self.arguments and step > self.eps:
            found.append(f"takes steps of {step:.4g}, more than eps = {self.eps:.4g}, unless arguments.alpha is given")
        return found


class _Asked(nn.Module):
    """A model function as the module that torchattacks wants. The model itself stays out of reach: not registered, so
    that no mode is changed, and behind `_Boundary`, so that no gradient reaches its weights."""

    def __init__(self, model_fn: ModelFn, device: torch.device, shifted: bool) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.empty(0, device=device), requires_grad=False)  # tells the device
        self.ask: ModelFn = lambda pixels: model_fn(pixels)  # a module itself would be registered
        self.shifted = shifted
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        if torch.is_grad_enabled() and pixels.requires_grad:
            logits: Tensor = _Boundary.apply(pixels, self.ask)
        else:
            with torch.no_grad():
                logits = self.ask(pixels).float()
        return logits - logits.detach().amin(1, keepdim=True) if self.shifted else logits


class _Boundary(torch.autograd.Function):
    """model_fn, differentiable with respect to the pixels alone, as often as is asked."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, ask: ModelFn) -> Tensor:
        with torch.enable_grad():
            ctx.pixels = pixels.detach().requires_grad_()
            ctx.outputs = ask(ctx.pixels)
        return ctx.outputs.detach().float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weights = gradients[0].to(ctx.outputs.dtype)
        (gradient,) = torch.autograd.grad(ctx.outputs, ctx.pixels, weights, retain_graph=True)
        return gradient.nan_to_num(nan=0.0), None


@contextmanager
def _generators(seed: int) -> Iterator[None]:
    """Global generators of torch, numpy and Python, seeded within and as they were afterwards."""
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)


def _find(name: str) -> type[Any]:
    if name in _REFUSED:
        raise ConfigError(f"{name} of torchattacks {_REFUSED[name]}")
    try:
        import torchattacks
    except ImportError as error:
        raise ConfigError(
            "attack.kind=torchattacks needs a package; install it with `pip install torchattacks`"
        ) from error
    known = {each.lower(): each for each in torchattacks.__all__ if each not in _REFUSED}
    if name not in known.values():
        close = closest(name.lower(), known)
        remedy = f"did you mean '{known[close]}'?" if close else f"choose from: {', '.join(known.values())}"
        raise ConfigError(f"torchattacks has no attack '{name}'; {remedy}")
    return getattr(torchattacks, name)


def _accepted(attack: type[Any]) -> dict[str, Any]:
    """Arguments of an attack, but the model, with their defaults."""
    parameters = inspect.signature(attack).parameters.values()
    return {each.name: each.default for each in parameters if each.name != "model"}
