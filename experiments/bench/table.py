"""What a bench measured, against what was promised."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One ratio of two quantities measured in the same process, its target, and what else was seen."""

    name: str
    ratio: float | None  # None: not measured, for want of the hardware
    target: float | None  # None: for comparison only, nothing promised
    higher_is_better: bool
    detail: dict[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the target holds; a row without one, or without a figure, misses none."""
        if self.target is None or self.ratio is None:
            return True
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target

    def __str__(self) -> str:
        figure = f"{self.name:<60} {'-' if self.ratio is None else f'{self.ratio:.3f}':>8}   "
        if self.target is None:
            return figure + f"{'for comparison':>16}"
        verdict = "not measured" if self.ratio is None else "met" if self.met else "MISSED"
        return figure + f"{'>=' if self.higher_is_better else '<='} {self.target:<6g} {verdict:>12}"
