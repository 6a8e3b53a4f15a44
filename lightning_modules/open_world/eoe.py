"""Envisioned outliers."""

import torch
from torch import Tensor

from configs.schema import scores as schema
from lightning_modules.open_world.mcm import mcm
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.score import Comparison, Score, exact
from lightning_modules.open_world.sweep import Softmax


class EOE(Score):
    """Classes against outlier texts (Cao et al. 2024), by the form of the setting. With probabilities p from one
    softmax over the cosines of classes and outliers, divided by the temperature T:

        penalty    max p(class) - beta max p(outlier), the paper's score
        max        MCM where a class is nearest, else 1 / K, the least that MCM has
        msp        max p(class)
        energy     T logsumexp(classes / T) - T logsumexp(outliers / T)
        max_logit  max cosine(class) - max cosine(outlier)

    The last four are those of the paper's comparison of score functions, as the authors' code has them.
    """

    def __init__(self, setting: schema.EOE, reference: Reference) -> None:
        reference.bank(setting.bank)
        self.bank, self.form, self.beta = setting.bank, setting.form, setting.beta
        self.temperature = setting.temperature or (0.01 if setting.form == "energy" else 1.0)
        self.softmax = Softmax(self.temperature)
        self.asks = {setting.bank: [] if setting.form in ("max", "max_logit") else [self.softmax]}

    def __call__(self, seen: Comparison) -> Tensor:
        inside, outside = seen.similarities.amax(1), exact(seen.bank(self.bank).largest)
        match self.form:
            case "max":
                least = inside.new_full((), 1 / seen.similarities.shape[1])
                return torch.where(outside > inside, least, mcm(seen.similarities, self.temperature))
            case "max_logit":
                return inside - outside
        return self._by_mass(seen, inside / self.temperature, outside / self.temperature)

    def _by_mass(self, seen: Comparison, inside: Tensor, outside: Tensor) -> Tensor:
        classes = (seen.similarities / self.temperature).logsumexp(1)
        outliers = exact(seen.bank(self.bank).logsumexp(self.softmax).squeeze(1))
        if self.form == "energy":
            return self.temperature * (classes - outliers)
        everything = torch.logaddexp(classes, outliers)
        sure = (inside - everything).exp()
        return sure if self.form == "msp" else sure - self.beta * (outside - everything).exp()
