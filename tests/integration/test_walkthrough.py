"""The walk-through from a laptop to 64 GPUs: its small commands run, its large ones are composed and planned."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.cli import main, parse

PAGE = Path(__file__).parents[2] / "notebooks" / "from_laptop_to_64_gpus.md"
CLASSES = ("dog", "cat", "tram")


def blocks(kind: str) -> list[str]:
    """The fenced blocks of one kind, in order."""
    return re.findall(rf"```bash {kind}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def commands(block: str) -> Iterator[str | tuple[str, str]]:
    """Lines; a heredoc is (file, text)."""
    for part in re.split(r"(cat > \S+ <<'YAML'\n.*?\nYAML\n)", block, flags=re.DOTALL):
        if written := re.fullmatch(r"cat > (\S+) <<'YAML'\n(.*\n)YAML\n", part, flags=re.DOTALL):
            yield written[1], written[2]
        else:
            yield from filter(None, part.splitlines())


LARGE = [line for block in blocks("full") for line in commands(block)]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to work in, but for a few pictures."""
    random = np.random.default_rng(0)
    for split, count in {"train": 16, "val": 4, "test": 4}.items():
        for name in CLASSES:
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(random.integers(0, 255, (70, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
def test_the_small_commands_do_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("small"):
        for command in commands(block):
            if isinstance(command, tuple):
                Path(command[0]).write_text(command[1])
            else:
                run(command)
    for folder in Path("outputs/mine").iterdir():  # by hand, and of the sweep
        for name in ("results.jsonl", "metrics.csv", "status.json", "model/open_clip_config.json"):
            assert (folder / name).is_file()
    assert all(Path(f"outputs/{name}").is_dir() for name in ("two", "torchrun", "sweeps/radii"))
    assert Path("model.pt2").is_file()
    assert capsys.readouterr().out.count('"confidence"') == len(CLASSES) * 4


def run(command: str) -> None:
    """As a shell would, in this process where that is the same."""
    verb, *words = shlex.split(command)
    expanded = [path for word in words for path in (sorted(glob(word)) if "*" in word else [word])]
    if verb == "immunoclip" and "trainer.devices=2" not in command:  # a second rank runs the command line again
        assert main(expanded) == 0, command
        return
    start = [sys.executable, "-m", *(["experiments"] if verb == "immunoclip" else ["torch.distributed.run"])]
    done = subprocess.run([*start, *words], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.mark.parametrize("line", LARGE)
def test_the_large_commands_are_real(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher is told is not looked at; what it starts is composed, with every setting on the line."""
    monkeypatch.chdir(tmp_path)
    assert isinstance(line, str)
    words = shlex.split(line)
    start = words.index("experiments" if "experiments" in words else "immunoclip") + 1
    arguments = parse(words[start:])
    arguments.dry_run = True
    assert arguments.run(arguments) == 0
