"""What a bench measured, against what was promised."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One ratio of two quantities timed in the same process, its target, and what else was seen."""

    name: str
    ratio: float
    target: float | None  # None: for comparison only, nothing promised
    higher_is_better: bool
    detail: dict[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the target holds; a row without one is always met."""
        if self.target is None:
            return True
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target

    def __str__(self) -> str:
        if self.target is None:
            return f"{self.name:<58} {self.ratio:8.3f}   {'for comparison':>16}"
        sign = ">=" if self.higher_is_better else "<="
        return f"{self.name:<58} {self.ratio:8.3f}   {sign} {self.target:<6g} {'met' if self.met else 'MISSED':>7}"
