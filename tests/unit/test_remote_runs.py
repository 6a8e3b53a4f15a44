"""Runs of a W&B project, from a server on loopback: the frame of the folders that were uploaded."""

from collections.abc import Callable, Iterator
from pathlib import Path

import made_runs
import pytest
import wandb
from fake_wandb_api import FakeWandb, Uploaded

from configs.errors import UserError
from experiments.analysis import load_runs
from experiments.analysis.remote import CACHE, Query

Serve = Callable[[list[Uploaded]], FakeWandb]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a server, and makes wandb ask it."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"API_KEY": "a" * 40, "ERROR_REPORTING": "false", "SILENT": "true", "MODE": "online"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    for name in ("CACHE_DIR", "DATA_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb"))
    started = []

    def start(runs: list[Uploaded]) -> FakeWandb:
        fake = FakeWandb(runs)
        monkeypatch.setenv("WANDB_BASE_URL", fake.url)
        wandb.teardown()
        started.append(fake.serving())
        return started[-1].__enter__()

    yield start
    for one in started:
        one.__exit__(None, None, None)
    wandb.teardown()


def uploaded(folder: Path, group: str = "g", tags: tuple[str, ...] = (), version: int = 0) -> Uploaded:
    """A run with one artifact of results, and one of another type."""
    return Uploaded(
        f"{folder.parent.name}-{folder.name}", group, tags,
        artifacts=[("results", f"results-{folder.name}:v{version}", folder), ("model", "model:v9", folder)],
    )  # fmt: skip


def test_the_frame_is_that_of_the_folders(tmp_path: Path, serve: Serve) -> None:
    folders = [made_runs.run(tmp_path / "outputs", 0.8, 0.3, seed=seed) for seed in range(2)]
    fake = serve([*map(uploaded, folders), Uploaded("lost", "g", state="crashed")])
    remote, local = load_runs("wandb://me/project?group=g"), load_runs(tmp_path / "outputs")
    assert remote.frame.equals(local.frame)
    assert remote.curves.equals(local.curves)
    assert remote.settings.equals(local.settings)
    (told,) = remote.excluded
    assert told.startswith("lost on W&B (crashed): has no artifact of type results")
    fake.asked.clear()
    assert load_runs("wandb://me/project?group=g").frame.equals(local.frame)
    assert not [asked for asked in fake.asked if asked.startswith("/")]  # all from the cache
    assert len(list((tmp_path / CACHE).iterdir())) == 2


def test_groups_and_tags_choose_and_the_newest_version_counts(tmp_path: Path, serve: Serve) -> None:
    old, new = (made_runs.run(tmp_path / name, value, 0.3) for name, value in (("old", 0.1), ("new", 0.2)))
    other = made_runs.run(tmp_path / "new", 0.3, 0.3, seed=1)
    run = uploaded(new, "g", ("a", "b"), version=10)
    run.artifacts.insert(0, ("results", f"results-{new.name}:v9", old))
    serve([run, uploaded(other, "h", ("a",))])
    found = load_runs("wandb://me/project?group=g&tag=a&tag=b").frame
    assert found[found.name == "accuracy/clean/leaf"].value.tolist() == [0.2]
    with pytest.raises(UserError, match="no run of me/project fits"):
        load_runs("wandb://me/project?group=h&tag=b")


def test_a_server_that_is_not_there_is_one_sentence(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve([])
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", "/dev/null")
    with pytest.raises(UserError, match=r"wandb://me/project can't be read \(.*`wandb login`"):
        load_runs("wandb://me/project")


def test_an_address_is_a_project_and_filters() -> None:
    found = Query.parse("wandb://me/my%20project?group=g&tag=a&tag=b&job_type=eval")
    assert found.path == "me/my project"
    assert found.filters == {"$and": [{"group": {"$in": ["g"]}}, {"tags": {"$in": ["a"]}}, {"tags": {"$in": ["b"]}},
                                      {"jobType": {"$in": ["eval"]}}]}  # fmt: skip
    assert Query.parse("wandb://me/project").filters == {}
    for address, words in (
        ("wandb://me", "names no project"), ("wandb:///project", "names no project"),
        ("wandb://me/a/b", "names no project"), ("wandb://me/a?tags=x", "did you mean 'tag'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            Query.parse(address)
