"""What the benches promise, in one table: the name of a row -> its target. None is for comparison only."""

from typing import NamedTuple

from experiments.bench.table import Row


class Target(NamedTuple):
    """A bound on a ratio."""

    bound: float | None
    higher_is_better: bool = False


TARGETS = {
    "adversarial training step / its floor": Target(1.05),
    "the usual loop (text tower and parameter gradients) / floor": Target(None),
    "loader / bare decode-and-transform": Target(0.9, higher_is_better=True),
    "--help / 1 s": Target(1.0),
    "show / 1 s": Target(1.0),
    "configuration error / 1 s": Target(1.0),
}


def row(name: str, ratio: float, **detail: float) -> Row:
    """A measured ratio with its target."""
    target = TARGETS[name]
    return Row(name, ratio, target.bound, target.higher_is_better, detail)
