"""All scores of a batch from one comparison with the classes and with each bank."""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from configs.errors import ConfigError, did_you_mean
from configs.schema import scores as schema
from lightning_modules.open_world.ada_neg import AdaNeg
from lightning_modules.open_world.clipn import CLIPN
from lightning_modules.open_world.energy import Energy
from lightning_modules.open_world.eoe import EOE
from lightning_modules.open_world.knn import KNN
from lightning_modules.open_world.mahalanobis import Mahalanobis
from lightning_modules.open_world.max_logit import MaxLogit
from lightning_modules.open_world.mcm import MCM
from lightning_modules.open_world.msp import MSP
from lightning_modules.open_world.neglabel import NegLabel
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.s_dis import SDis
from lightning_modules.open_world.score import Comparison, Score
from lightning_modules.open_world.sweep import Softmax, Sweep
from lightning_modules.open_world.vim import ViM


class Scores:
    """Scores by name, higher = more in-distribution, of embeddings (B, D) as the backbone gives them.

    Beside what the embeddings take, memory is bounded by a block of similarities, however many negatives there are.
    """

    def __init__(self, settings: Mapping[str, schema.Score], reference: Reference) -> None:
        """
        Raises:
            ConfigError: the reference lacks what a score needs.
            DataError: a file of features can't be read.
        """
        self.reference = reference
        self.scores = {name: build(setting, reference) for name, setting in settings.items()}
        self._sweeps = _sweeps(self.scores.values(), reference)

    def __call__(self, embeddings: Tensor) -> dict[str, Tensor]:
        """(B,) by name: each sample by itself, but for AdaNeg."""
        seen = Comparison(embeddings, self.reference, self._sweeps)
        return {name: score(seen) for name, score in self.scores.items()}

    def one(self, name: str) -> Callable[[Tensor], Tensor]:
        """One score alone, (B,) of embeddings (B, D), differentiable in them.

        Raises:
            ConfigError: there is none of that name, or it has no gradient.
        """
        if name not in self.scores:
            raise ConfigError(f"there is no score '{name}'; {did_you_mean(name, self.scores)}")
        score = self.scores[name]
        if isinstance(score, AdaNeg):
            raise ConfigError(
                f"the score '{name}' is of kind ada_neg, which can't be attacked, because an image's score depends on "
                "the images before it; leave it out"
            )
        sweeps = _sweeps([score], self.reference)
        return lambda embeddings: score(Comparison(embeddings, self.reference, sweeps))

    def classes(self, embeddings: Tensor) -> dict[str, Tensor]:
        """The class, int64 (B,), that goes with each score: the most similar one, or what a vaccinated model says."""
        nearest = Comparison(embeddings, self.reference, {}).similarities.argmax(1)
        immunity = self.reference.immunity
        return {
            name: immunity.classify(embeddings) if isinstance(score, SDis) and immunity is not None else nearest
            for name, score in self.scores.items()
        }

    def reset(self) -> None:
        """Forgets what scores have learnt from test images: call it before each split."""
        for score in self.scores.values():
            if isinstance(score, AdaNeg):
                score.reset()


def build(setting: schema.Score, reference: Reference) -> Score:
    """The score of a setting; raises what `Scores` does."""
    match setting:
        case schema.MSP():
            return MSP(reference)
        case schema.MaxLogit():
            return MaxLogit()
        case schema.Energy():
            return Energy(setting.temperature, reference)
        case schema.MCM():
            return MCM(setting.temperature)
        case schema.NegLabel():
            return NegLabel(setting, reference)
        case schema.EOE():
            return EOE(setting, reference)
        case schema.CLIPN():
            return CLIPN(setting, reference)
        case schema.AdaNeg():
            return AdaNeg(setting, reference)
        case schema.KNN():
            return KNN(setting.k, reference)
        case schema.Mahalanobis():
            return Mahalanobis(reference)
        case schema.ViM():
            return ViM(setting.dimension, reference)
        case schema.SDis():
            return SDis(setting.recalibrated, reference)


def needs_features(settings: Mapping[str, schema.Score]) -> bool:
    """Whether a score compares with training images, so that `Reference.features` and `labels` must be there."""
    return any(isinstance(setting, schema.KNN | schema.Mahalanobis | schema.ViM) for setting in settings.values())


def _sweeps(scores: Iterable[Score], reference: Reference) -> dict[str, Sweep]:
    """One for each bank, for all that the scores ask about it."""
    asked: dict[str, list[Softmax]] = {}
    for score in scores:
        for bank, softmaxes in score.asks.items():
            asked.setdefault(bank, []).extend(softmaxes)
    return {bank: Sweep(reference.head, softmaxes) for bank, softmaxes in asked.items()}
