"""The notebooks run offline, show what they would show again, and are fit to be read on a web page."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 300_000  # bytes
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|mnt|Users|usr|var)/|[A-Z]:\\\\")
TEXTS = ("text/plain", "text/markdown")

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def code(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def shown(path: Path) -> Iterator[str]:
    """What a reader sees as text: printed, tables, Markdown."""
    for cell in code(path):
        for output in cell["outputs"]:
            yield "".join(output.get("text", ""))
            yield from ("".join(output.get("data", {}).get(kind, "")) for kind in TEXTS)


@pytest.mark.slow
def test_runs_offline_and_shows_the_same(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / FOLDER.name
    shutil.copytree(FOLDER, copy)
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", "-q", "-p", "no:cacheprovider", path.name]
    environment = os.environ | nowhere | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(shown(copy / path.name)) == list(shown(path))


def test_cells_were_executed_in_order_without_an_error(path: Path) -> None:
    cells = code(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"execute_result", "display_data", "stream"}
    assert not [output for cell in cells for output in cell["outputs"] if output.get("name") == "stderr"]


def test_names_no_machine_and_is_small(path: Path) -> None:
    text = "\n".join([*("".join(cell["source"]) for cell in read(path)["cells"]), *shown(path)])
    assert not MACHINE.search(text)
    assert path.stat().st_size < LARGEST


def test_metadata_are_minimal(path: Path) -> None:
    notebook = read(path)
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])
    assert "application/vnd.jupyter.widget" not in path.read_text()


def test_the_source_is_a_parameter(path: Path) -> None:
    """As papermill wants it, so that a notebook makes the same page of other runs."""
    cells = code(path)
    tagged = [number for number, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", ())]
    assert tagged == [0]
    assert "".join(cells[0]["source"]).startswith("RUNS = ")


def test_is_thin(path: Path) -> None:
    """Logic is in experiments.analysis; imports apart, a cell calls it and shows what it gives."""
    for cell in code(path):
        lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith(("from", "import", "%"))]
        assert len([line for line in lines if line.strip()]) <= 12
        assert not [line for line in lines if line.startswith(("def ", "class ", "for ", "if "))]
