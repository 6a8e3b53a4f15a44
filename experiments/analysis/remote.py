"""Runs of a Weights & Biases project, as the folders that they were uploaded from."""

import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from configs.errors import UserError, did_you_mean
from experiments.analysis.place import Place

CACHE = Path(".cache/wandb")
KIND = "results"  # of the artifact that a run uploads: config, status, results, curves, evidence
FILTERS = {"group": "group", "tag": "tags", "job_type": "jobType"}  # in an address -> as W&B's database has it
AT_ONCE = 8


@dataclass(frozen=True)
class Query:
    """`wandb://ENTITY/PROJECT?group=G&tag=T`: the project's path, and W&B's filter."""

    path: str
    filters: dict[str, Any]

    @staticmethod
    def parse(address: str) -> "Query":
        """Of several values of a key, such as two tags, runs have all.

        Raises:
            UserError: no project, or an unknown filter.
        """
        parts = urlsplit(address)
        project = unquote(parts.path.strip("/"))
        if not parts.netloc or not project or "/" in project:
            raise UserError(f"{address} names no project; write wandb://ENTITY/PROJECT?group=NAME&tag=NAME")
        asked = parse_qs(parts.query, keep_blank_values=True)
        for key in asked:
            if key not in FILTERS:
                raise UserError(f"{address} has an unknown filter '{key}'; {did_you_mean(key, FILTERS)}")
        wanted = [{FILTERS[key]: {"$in": [value]}} for key, values in asked.items() for value in values]
        return Query(f"{parts.netloc}/{project}", {"$and": wanted} if wanted else {})


def fetch(address: str, cache: Path = CACHE) -> Place:
    """Folders with the files of the runs' newest `results` artifacts, downloaded unless the cache has them.

    Raises:
        UserError: the address is wrong, W&B does not answer as it should, or no run fits.
    """
    query = Query.parse(address)
    try:
        import wandb

        runs = list(wandb.Api().runs(query.path, filters=query.filters, order="+created_at", lazy=True))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(lambda run: _folder(run, cache), runs))
    except Exception as error:  # wandb, its service and the network fail in many ways
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise UserError(f"{address} can't be read ({reason}); check the name, `wandb login` and the network") from error
    if not runs:
        raise UserError(f"no run of {query.path} fits {address}; name another group or tag")
    return Place(
        [folder for folder in found if folder],
        [
            f"{run.id} on W&B ({run.state}): has no artifact of type {KIND}; upload it with `wandb sync`, or load its "
            "folder"
            for run, folder in zip(runs, found, strict=True)
            if not folder
        ],
    )


def _folder(run: Any, cache: Path) -> Path | None:
    """Where the run's files are; None where it uploaded none."""
    artifact = _newest(artifact for artifact in run.logged_artifacts() if artifact.type == KIND)
    if artifact is None:
        return None
    folder = cache / str(artifact.digest)
    if not folder.is_dir():
        _download(artifact.download, folder)
    return folder


def _newest(artifacts: Iterable[Any]) -> Any:
    return max(artifacts, key=lambda artifact: int(artifact.version.removeprefix("v")), default=None)


def _download(download: Callable[..., Any], folder: Path) -> None:
    """All files or none, whatever interrupts it and whoever else is at it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        download(root=str(part), skip_cache=True)
        try:
            part.rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
