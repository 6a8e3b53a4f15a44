"""Executes the notebooks where they lie, and writes what they show: python tests/notebooks/refresh.py [NAME...]"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"


def refresh(path: Path) -> None:
    """Leaves nothing in the file of the machine or the minute."""
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    metadata = notebook.metadata
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, kernel_name="python3", resources=where, record_timing=False).execute()
    notebook.metadata = {name: metadata[name] for name in ("kernelspec", "language_info")}
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata = {name: cell.metadata[name] for name in ("tags",) if name in cell.metadata}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        refresh(FOLDER / f"{name}.ipynb")
