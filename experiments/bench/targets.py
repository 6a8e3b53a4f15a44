"""What the benches promise, in one table: the name of a row -> its target. None is for comparison only."""

from typing import NamedTuple

from experiments.bench.table import Row


class Target(NamedTuple):
    """A bound on a ratio."""

    bound: float | None
    higher_is_better: bool = False


_COMPARISON = Target(None, higher_is_better=True)


def _attacks(name: str) -> dict[str, Target]:
    """Rows of `bench attacks` on one network. Where half of the samples stand, they run the whole budget under any
    schedule, so that little is left to gain."""
    half = f"half-robust {name}"
    singles = [f"{half}, {attack}: " for attack in ("APGD-CE", "APGD-T", "FAB-T", "Square")]
    return {
        **{f"{single}full schedule / engine": _COMPARISON for single in singles},
        **{f"{single}torchattacks / engine": _COMPARISON for single in singles},
        f"{name}, AutoAttack: full schedule / engine": Target(10.0, higher_is_better=True),
        f"{name}, AutoAttack: torchattacks / engine": _COMPARISON,
        f"{half}, AutoAttack: full schedule / engine": Target(1.15, higher_is_better=True),
        f"{half}, AutoAttack: torchattacks / engine": _COMPARISON,
        f"{half}, AutoAttack: fp32 / bf16 on CPU": Target(1.2, higher_is_better=True),
        f"{half}, AutoAttack: fp32 / bf16 on GPU": Target(1.8, higher_is_better=True),
        f"{half}, robust accuracy: bf16 - fp32, points": Target(0.2),
        f"{half}, AutoAttack: peak / (pass + 10 batches)": Target(1.0),
        f"{name}, PGD-20: torchattacks / engine": Target(1.0, higher_is_better=True),
        f"{name}, PGD-20: engine / 20 x (forward + gradient)": Target(1.05),
        f"{name}, PGD-20: peak memory / torchattacks": Target(0.75),
        f"{name}, PGD-20: torchattacks / bf16 engine on CPU": Target(1.2, higher_is_better=True),
        f"{name}, PGD-20: torchattacks / bf16 engine on GPU": Target(1.8, higher_is_better=True),
    }


TARGETS = {
    "adversarial training step / its floor": Target(1.05),
    "hierarchical step / TeCoA step": Target(1.10),
    "hierarchical step with perturbed texts / TeCoA step": Target(1.10),
    "MFU of the step": _COMPARISON,
    "TRADES step: |planned / measured time - 1|": Target(0.15),
    "hierarchical step: |planned / measured time - 1|": Target(0.15),
    "the usual loop (text tower and parameter gradients) / floor": Target(None),
    "loader / bare decode-and-transform": Target(0.9, higher_is_better=True),
    "--help / 1 s": Target(1.0),
    "show / 1 s": Target(1.0),
    "configuration error / 1 s": Target(1.0),
    "4,096 images: matrix product / NegLabel, EOE, max": Target(0.6, higher_is_better=True),
    "4,096 images: extra memory / 1 GiB": Target(1.0),
    "32 images: NegLabel, one softmax a group / here": _COMPARISON,
    "32 images: AdaNeg by broadcasting / here": Target(5.0, higher_is_better=True),
    "512 images: all scores / the costliest": Target(1.3),
    **_attacks("mini CLIP"),
    **_attacks("small ViT"),
    **_attacks("ViT-B/32"),
}


def row(name: str, ratio: float | None, **detail: float) -> Row:
    """A ratio with its target; None where this machine can't measure it."""
    target = TARGETS[name]
    return Row(name, ratio, target.bound, target.higher_is_better, detail)
