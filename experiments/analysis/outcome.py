"""What one run has left in its folder, whether it got to its end or not."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from configs.errors import UserError
from experiments.analysis.loading import Floats, load_config, load_curves, load_rows, load_status
from experiments.analysis.row import Row

FOLDER = re.compile(r"(?P<hash>[0-9a-f]{8})-s(?P<seed>\d+)")  # HASH-sSEED


class _Loader(yaml.CSafeLoader):
    """libyaml's, which takes 2 ms for what takes OmegaConf 16; it shares with that what a number is."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+0123456789.")
)


@dataclass(frozen=True)
class Outcome:
    """What is known of a run.

    run      NAME-HASH-sSEED, as W&B calls it too.
    rows     empty where nothing was measured.
    curves   column of metrics.csv -> (steps, values).
    config   resolved; nested.
    missing  why its figures do not count, in words; empty where they do.
    """

    run: str
    experiment: str
    config_hash: str
    seed: int
    folder: Path
    status: Mapping[str, Any]
    rows: Sequence[Row]
    curves: Mapping[str, tuple[Floats, Floats]]
    config: Mapping[str, Any]
    missing: str

    @staticmethod
    def read(folder: Path) -> "Outcome":
        """The run of a folder; what it is called is taken from what is in it.

        Raises:
            UserError: one of its files is damaged.
        """
        config, status = _config(folder), load_status(folder)
        rows = load_rows(folder) if (folder / "results.jsonl").is_file() else []
        named = FOLDER.fullmatch(folder.resolve().name)
        name = str(config.get("name") or folder.resolve().parent.name)
        digest = str(rows[0].provenance["config_hash"]) if rows else named["hash"] if named else folder.name
        seed = rows[0].seed if rows else int(config.get("seed") or (named["seed"] if named else 0))
        return Outcome(
            run=f"{name}-{digest}-s{seed}",
            experiment=name,
            config_hash=digest,
            seed=seed,
            folder=folder,
            status=status,
            rows=rows,
            curves=load_curves(folder),
            config=config,
            missing=_missing(status, rows),
        )

    @property
    def updated(self) -> str:
        """When it last said how it is, in UTC; empty where it never did."""
        return str(self.status.get("updated") or "")


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        found = yaml.load(load_config(folder), _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{folder / 'config.yaml'} is no YAML ({str(error).splitlines()[0]}); remove it") from error
    return found if isinstance(found, dict) else {}


def _missing(status: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Without a status it was only measured, which leaves none."""
    state = str(status.get("state") or "finished")
    if state != "finished":
        of = f" of {status['steps']}" if status.get("steps") else ""
        last = str(status.get("message") or "") or f"last heard of at {status.get('updated', 'an unknown time')}"
        return f"{state} at step {status.get('step', 0)}{of} ({last})"
    return "" if rows else "has measured nothing"
