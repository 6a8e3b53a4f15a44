"""The score of a vaccinated model."""

from torch import Tensor

from configs.errors import ConfigError
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.score import Comparison, Score


class SDis(Score):
    """s+ - lambda s- of the adapted embedding (Fang et al. 2026), or what each class's Weibull makes of it; see
    `Immunity`.

    Raises:
        ConfigError: the model is not vaccinated.
    """

    def __init__(self, recalibrated: bool, reference: Reference) -> None:
        if reference.immunity is None:
            raise ConfigError(
                "the score s_dis needs a vaccinated model, and this one is not; set vaccination, or leave it out"
            )
        self.score = reference.immunity.recalibrated if recalibrated else reference.immunity.score

    def __call__(self, seen: Comparison) -> Tensor:
        return self.score(seen.embeddings)
