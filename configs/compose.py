"""An experiment file and the command line -> one frozen, typed configuration, with the origin of every key.

Precedence, lowest first: schema defaults, the `base:` files in order (each may have its own), the experiment file,
`key=value`. Reading is in `layers`, merging in `sections`, typing in `values`. Nothing here imports torch.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from configs.layers import Layer, experiment_file, file_layers, override_layer, shown
from configs.schema import ExperimentConfig
from configs.sections import merge
from configs.values import build, leaves

# Everything that may change what is trained stays in the hash, precision included. These may not:
OUTSIDE_THE_HASH = {
    "name": "the run folder is named after it",
    "seed": "the run folder ends in -s<seed>, so that the seeds of one experiment share a hash",
    "output": "where results are written",
    "logging": "where results are mirrored",
    "evaluation": "what a trained run is asked; each result row carries its own settings",
    "vaccination.cache": "where embeddings are kept",
    "data.workers": "the order of samples is a function of seed, epoch and batch alone",
    "data.start_method": "how workers start",
    "trainer.devices": "ranks share out one batch in one order; sums of theirs differ in rounding alone",
    "trainer.nodes": "as trainer.devices",
    "trainer.gradient_checkpointing": "the same numbers, computed twice; compiled ones but for rounding",
    "trainer.log_every": "how often the log is written",
    "trainer.checkpoint_every": "how often the state is saved",
    "trainer.wall_minutes": "how long one attempt may take",
    "trainer.threads": "how fast a CPU works",
}
_VALIDATION = ("validation_attack", "validation_samples")  # of `evaluation`; in the hash where patience goes by them


@dataclass(frozen=True)
class Inputs:
    """What a configuration was composed from: every file that was read, lowest layer first, and the overrides."""

    experiment: str
    files: tuple[str, ...]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Composed:
    """A configuration that can be run.

    config    the typed experiment.
    origins   dotted key -> "schema default", a file (from the project's root) or "command line".
    resolved  the whole of `config` as YAML; an experiment file in its own right, of the same hash.
    inputs    the files and overrides it came from.
    hash      8 hexadecimal digits over whatever may change what is trained; OUTSIDE_THE_HASH says what may not. Every
              key of the schema counts, also at its default, so that a version with another key has other hashes, and
              begins a run anew instead of resuming one of an earlier version.
    """

    config: ExperimentConfig
    origins: dict[str, str]
    resolved: str
    inputs: Inputs
    hash: str

    @property
    def run_folder(self) -> Path:
        """output/NAME/HASH-sSEED"""
        return Path(self.config.output) / self.config.name / f"{self.hash}-s{self.config.seed}"


def compose(experiment: str | Path, overrides: Sequence[str] = ()) -> Composed:
    """Composes a shipped experiment by NAME, or a YAML file by path.

    Raises:
        ConfigError: one sentence that names the key and the file (or the command line) that set it.
    """
    path = experiment_file(experiment)
    files = file_layers(path)
    named = Layer(shown(path.resolve()), {"name": path.stem})
    tree = merge([named, *files, override_layer(overrides)])
    config = build(tree)
    origins = {key: given.origin for key, given in leaves(tree)}
    read = [layer.origin for layer in files] + [
        origin for origin in origins.values() if origin.endswith((".yaml", ".yml"))
    ]
    return Composed(
        config=config,
        origins=origins,
        resolved=to_yaml(config),
        inputs=Inputs(str(experiment), tuple(dict.fromkeys(read)), tuple(overrides)),
        hash=config_hash(config),
    )


def to_yaml(config: ExperimentConfig) -> str:
    """The whole configuration, defaults included."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def config_hash(config: ExperimentConfig) -> str:
    """Of all values but OUTSIDE_THE_HASH; not of files, their order, the machine or Python's version."""
    values = dataclasses.asdict(config)
    banks = values.pop("antibodies")
    if config.vaccination is not None:  # other banks only have a part in evaluation
        values["vaccination"]["bank"] = banks[config.vaccination.bank]
    if config.trainer.patience is not None:  # which weights are the best is what their validation says
        values["validation"] = {name: values["evaluation"][name] for name in _VALIDATION}
    for key in OUTSIDE_THE_HASH:
        section, _, name = key.rpartition(".")
        if not section or values[section] is not None:
            (values[section] if section else values).pop(name)
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]
