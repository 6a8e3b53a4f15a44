"""The verb `write-hierarchy`, from the command line to a tree that training reads."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from configs.compose import compose
from configs.schema.hierarchy import LLMTree
from experiments.cli import main
from lightning_modules.hierarchy import build
from tests.conftest import CLASS_NAMES
from tests.unit.fake_endpoint import KEY, Asked, FakeEndpoint, Reply, fails, says


def by_colour(asked: Asked) -> Reply:
    """Names the colour and a kind; of two minds about what red is."""
    batch = next(json.loads(line) for line in asked.message.splitlines() if line.startswith("["))
    kinds = {name: "odd" if name == "red disc" else "figure" for name in batch}
    return says(json.dumps({name: [f"{name.split()[0]} figure", kinds[name]] for name in batch}))


@pytest.fixture
def experiment(experiment_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An experiment with a written tree, as the command line takes it; the endpoint is missing."""
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    tree = {"kind": "llm", "file": "trees/colours.yaml", "levels": 2, "batch": 4}
    path = experiment_file(hierarchy={"trees": {"colours": tree, "manifest": {"kind": "data", "name": "colours"}}})
    settings = {"api_key_env": "FAKE_KEY", "model": "fake", "requests_per_minute": 6e5, "retries": 0, "timeout": 30}
    return [str(path), *(f"hierarchy.trees.colours.endpoint.{key}={value}" for key, value in settings.items())]


def at(endpoint: FakeEndpoint) -> str:
    return f"hierarchy.trees.colours.endpoint.base_url={endpoint.base_url}"


def test_a_tree_is_written_read_and_left_alone(experiment: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("trees/colours.yaml")
    with FakeEndpoint(by_colour).serving() as endpoint:
        command = ["write-hierarchy", *experiment, at(endpoint)]
        assert main([*command, "--dry-run"]) == 0
        assert "2 requests (0 more are cached)" in capsys.readouterr().out
        assert not endpoint.asked
        assert not path.exists()
        assert main([*command, "--tree", "colours"]) == 0
        captured = capsys.readouterr()
        assert len(endpoint.asked) == 2
        tie = "level 1: 'red figure' is below 'figure' (1), no longer below 'odd' (1)"
        assert tie in captured.out
        assert "6 -> 3 -> 1 classes; 6 of 6 below 'figure'" in captured.out
        text = path.read_text()
        header = [line for line in text.splitlines() if line.startswith("#")]
        assert "fake" in header[1]
        assert "superclasses_v1" in header[1]
        assert tie in header[2]
        assert yaml.safe_load(text)["red disc"] == ["red figure", "figure"]

        path.write_text(text.replace("blue figure", "azure figure"))
        assert main(command) == 0
        assert "left as it is" in capsys.readouterr().out
        assert "azure figure" in path.read_text()
        config = compose(experiment[0], experiment[1:]).config.hierarchy
        assert isinstance(config.trees["colours"], LLMTree)
        forest = build(config, CLASS_NAMES, {"colours": {"levels": [list(CLASS_NAMES)], "parents": []}})
        assert forest.tree("colours").levels[1] == ("red figure", "green figure", "azure figure")

        path.unlink()
        assert main(command) == 0
        assert path.read_text() == text
        assert len(endpoint.asked) == 2  # answers are paid for once
    everything = [
        file.read_text() for file in Path().rglob("*") if file.is_file() and file.suffix in (".yaml", ".json")
    ]
    assert len(everything) >= 3
    assert KEY not in "".join(everything) + captured.out + captured.err


def test_what_broke_off_goes_on(experiment: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    one = "hierarchy.trees.colours.endpoint.concurrency=1"
    with FakeEndpoint(by_colour, fails(500), by_colour).serving() as endpoint:
        command = ["write-hierarchy", *experiment, at(endpoint), one]
        assert main(command) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ")
        assert "1 of 2 answers are kept" in error
        assert not Path("trees").exists()
        assert main(command) == 0
        assert len(endpoint.asked) == 3
        assert Path("trees/colours.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--tree", "colour"], "did you mean 'colours'?"),
        (["--tree", "manifest"], "no tree 'manifest' of kind llm"),
        (["hierarchy.trees.colours=null"], "no tree of kind llm"),
        (["hierarchy.trees.colours.endpoint.api_key_env=ABSENT_KEY"], "ABSENT_KEY holds no key"),
        (["hierarchy.trees.colours.endpoint.max_tokens=100"], "raise max_tokens"),
        (["hierarchy.trees.colours.prompt=v0"], "must be one of v1"),
    ],
)
def test_what_can_not_be_asked_is_told_in_a_line(
    arguments: list[str], part: str, experiment: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeEndpoint(by_colour).serving() as endpoint:
        assert main(["write-hierarchy", *experiment, at(endpoint), *arguments]) == 2
        assert not endpoint.asked
    assert part in capsys.readouterr().err.splitlines()[-1]


def test_a_tree_that_is_none_is_there_to_be_corrected(
    experiment: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Votes make one superclass its own grandparent."""
    looped = {name: ["b", "a", "b2"] for name in CLASS_NAMES} | {
        CLASS_NAMES[0]: ["a", "b", "c"],
        CLASS_NAMES[1]: ["c", "b", "a"],
    }
    looped |= {CLASS_NAMES[2]: ["d", "b", "a"]}
    with FakeEndpoint(says(json.dumps(looped))).serving() as endpoint:
        levels = ["hierarchy.trees.colours.levels=3", "hierarchy.trees.colours.batch=6"]
        assert main(["write-hierarchy", *experiment, at(endpoint), *levels]) == 2
    assert "has a cycle" in capsys.readouterr().err.splitlines()[-1]
    assert yaml.safe_load(Path("trees/colours.yaml").read_text())[CLASS_NAMES[0]] == ["a", "b", "a"]
