"""`show hierarchy` through the command line, on a tiny data set."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import COLOURS, ExperimentFile

from configs.layers import experiment_names
from experiments.cli import main


def test_the_data_sets_trees_are_printed_and_drawn(
    experiment_file: ExperimentFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing, report = tmp_path / "trees.svg", tmp_path / "names.tsv"
    argv = ["show", "hierarchy", "--draw", str(drawing), str(experiment_file()), "--matching", str(report), "seed=1"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "colours: 6 leaves" in printed
    assert "level 2 has one class, shape" in printed
    assert all(f"{colour}: {colour} square, {colour} disc" in printed for colour in COLOURS)
    assert ElementTree.parse(drawing).getroot().tag.endswith("svg")
    rows = [line.split("\t") for line in report.read_text().splitlines()[1:]]
    assert [row[1] for row in rows] == [f"{colour} {shape}" for colour in COLOURS for shape in ("square", "disc")]
    assert "6 classes" in printed
    assert "6 missing" in printed


def test_the_experiments_own_trees_take_their_place(
    experiment_file: ExperimentFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree.yaml"
    tree.write_text(
        "".join(f"{shape}: [{', '.join(f'{c} {shape}' for c in COLOURS)}]\n" for shape in ("square", "disc"))
    )
    setting = f"hierarchy.trees={{mine: {{kind: file, path: {tree}}}}}"
    drawing = tmp_path / "trees.png"
    assert main(["show", "hierarchy", str(experiment_file()), setting, "--draw", str(drawing)]) == 0
    printed = capsys.readouterr().out
    assert "mine: 6 leaves" in printed
    assert "colours" not in printed
    assert drawing.read_bytes().startswith(b"\x89PNG")


def test_the_report_on_names_is_there_where_a_tree_can_not_be_made(
    experiment_file: ExperimentFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "names.tsv"
    argv = ["show", "hierarchy", str(experiment_file()), "hierarchy.trees.w.kind=wordnet", "--matching", str(report)]
    assert main(argv) == 2
    assert "red square" in capsys.readouterr().err
    assert "red square" in report.read_text()


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ([], "EXPERIMENT"),
        (["FILE", "--draw", "trees.pdf"], ".svg or .png"),
        (["FILE", "--origin"], "--origin"),
        (["pretrain_mini"], "has no classes"),
    ],
)
def test_wrong_calls_are_one_sentence(
    argv: list[str], part: str, experiment_file: ExperimentFile, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(experiment_file()) if word == "FILE" else word for word in argv]
    assert main(["show", "hierarchy", *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert part in error
    assert len(error.splitlines()) == 1


def test_show_itself_still_takes_an_experiment_by_its_path(
    experiment_file: ExperimentFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """One called hierarchy, too; none that is shipped may be called so."""
    assert "hierarchy" not in experiment_names()
    assert main(["show", str(experiment_file("hierarchy")), "seed=3"]) == 0
    assert "seed: 3" in capsys.readouterr().out
