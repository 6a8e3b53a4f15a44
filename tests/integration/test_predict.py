"""A run's model, answering: from the run, from an exported folder, from a program; and its card."""

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from conftest import CLASS_NAMES, SIZE, png, shapes
from PIL import Image

from configs.schema.model import ModelConfig
from datamodules.images import Transform, to_float
from experiments import cli
from experiments.analysis import load_rows
from experiments.predict import find_images
from lightning_modules.backbones import load_backbone

BANK = "purple disc\ngrey square\nstriped square\nwhite disc\nnoise\nblack square\n"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, tiny_vit: str) -> dict[str, Path]:
    """A run of two steps, and one that vaccinates the model as it is, both measured."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "bank.txt").write_text(BANK)
    common = {
        "output": str(folder / "outputs"),
        "model": {"name": tiny_vit},
        "data": {
            "kind": "open_world", "folder": str(tiny_dataset), "batch_size": 8, "workers": 0,
            "near_ood": ["near"], "far_ood": ["far"],
        },
        "module": {"kind": "robust_finetuning", "objective": {"kind": "tecoa"}},
        "evaluation": {
            "attacks": {"pgd2": {"kind": "pgd", "eps_255": 4.0, "step_255": 2.0, "steps": 2}}, "attacked_samples": 8,
            "check_samples": 4,
        },
        "trainer": {"steps": 2, "accelerator": "cpu", "threads": 1},
        "logging": {"wandb": "disabled"},
    }  # fmt: skip
    bank = {"kind": "file", "path": str(folder / "bank.txt"), "selection": {"names": False, "duplicates": None}}
    attack = {"kind": "pgd", "eps_255": 8.0, "step_255": 4.0, "steps": 1}
    vaccinated = common | {
        "module": {"kind": "none"},
        "antibodies": {"own": bank},
        "vaccination": {"bank": "own", "epochs": 1, "tail": 0.5, "tail_samples": 2, "cache": str(folder / "cache")},
    }
    found = {}
    for name, content in {"plain": common | {"attack": attack}, "vaccinated": vaccinated}.items():
        (folder / f"{name}.yaml").write_text(json.dumps(content))
        for verb in ("train", "evaluate"):
            assert cli.main([verb, str(folder / f"{name}.yaml")]) == 0
        (found[name],) = (folder / "outputs" / name).iterdir()
    return found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve of the classes' pictures, one of another size and shape."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, sample in enumerate(shapes("test", 12)):
        (folder / f"{number:02d}.png").write_bytes(sample.image)
    Image.new("RGB", (90, 50), (220, 40, 40)).save(folder / "wide.jpg")
    return folder


@pytest.fixture(scope="module")
def exported(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of the vaccinated run: its folder, a folder elsewhere, a program."""
    folder = tmp_path_factory.mktemp("exported")
    for target in ("model", "model.pt2"):
        assert cli.main(["export", str(runs["vaccinated"]), "--to", str(folder / target)]) == 0
    return {"run": runs["vaccinated"], "folder": folder / "model", "program": folder / "model.pt2"}


def answers(capsys: Capture, *words: object, code: int = 0) -> list[dict[str, Any]]:
    """What `predict --json` prints."""
    capsys.readouterr()
    assert cli.main(["predict", *map(str, words), "--json"]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_run_folder_and_program_say_what_the_model_does(
    exported: dict[str, Path], pictures: Path, capsys: Capture
) -> None:
    found = {name: answers(capsys, model, pictures) for name, model in exported.items()}
    assert found["run"] == found["folder"]
    backbone = load_backbone(ModelConfig(f"local-dir:{exported['folder']}"))
    immunity = backbone.immunity
    assert immunity is not None
    for name, told in found.items():
        assert [each["image"] for each in told] == [str(path) for path in sorted(pictures.iterdir())], name
        for each in told:
            read = torch.tensor(Transform(SIZE)(Path(each["image"]).read_bytes())).permute(2, 0, 1)
            embedding = backbone.embed_image(to_float(read)[None])
            assert each["name"] == CLASS_NAMES[each["index"]] == CLASS_NAMES[immunity.classify(embedding)]
            assert each["path"] == {"colours": [each["name"], each["name"].split()[0]]}
            rejection = each["rejection"]
            assert rejection["score"] == pytest.approx(immunity.score(embedding).item(), abs=1e-5)
            assert rejection["accepted"] == immunity.accept(embedding).item()
            assert rejection["antibody"] in BANK.splitlines()


@pytest.mark.slow
def test_a_folder_is_moved_and_needs_no_data(exported: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    """open_clip reads it, and class names and trees travel with it."""
    shutil.copytree(exported["folder"], tmp_path / "moved")
    assert cli.main(["predict", str(tmp_path / "moved"), str(pictures / "00.png")]) == 0
    open_clip.create_model(f"local-dir:{tmp_path / 'moved'}")


@pytest.mark.slow
def test_the_card_holds_what_was_measured(runs: dict[str, Path], exported: dict[str, Path]) -> None:
    """Each figure of clean and attacked accuracy, before and after; the attack's setting; where it comes from."""
    card = (exported["folder"] / "README.md").read_text()
    assert (runs["vaccinated"] / "model" / "README.md").read_text() == card
    rows = [row for row in load_rows(runs["vaccinated"]) if row.metric == "accuracy" and row.score is None]
    for row in rows:
        assert f"{100 * row.value:.1f} (" in card
        assert f"| {row.n} |" in card
    assert len({row.stage for row in rows}) == 2
    assert {row.attack_name for row in rows} >= {None, "pgd2"}
    told = (
        "PGD-2, L-inf 4/255: ",
        "step_255 2.0",
        "CC0",
        "not certified",
        "Checks of the attacks",
        "AUROC",
        "6 antibodies",
    )
    provenance = rows[0].provenance
    for words in (*told, provenance["config_hash"], provenance["manifest_digest"], "python -m experiments train"):
        assert str(words) in card


@pytest.mark.slow
def test_a_model_that_cannot_reject_says_so(runs: dict[str, Path], pictures: Path, capsys: Capture) -> None:
    assert cli.main(["predict", str(runs["plain"]), str(pictures)]) == 0
    printed = capsys.readouterr()
    assert "no reject option" in printed.err
    assert "accepted" not in printed.out
    assert all(each["rejection"] is None for each in answers(capsys, runs["plain"], pictures))


@pytest.mark.slow
def test_other_classes(runs: dict[str, Path], pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    """A plain model takes any; a vaccinated one knows its own, and no tree is made up for them."""
    classes = tmp_path / "classes.txt"
    classes.write_text("ant\nbee\n")
    found = answers(capsys, runs["plain"], pictures, "--classes", classes)
    assert {each["name"] for each in found} <= {"ant", "bee"}
    assert all(each["path"] == {} for each in found)
    assert cli.main(["predict", str(runs["vaccinated"]), str(pictures), "--classes", str(classes)]) == 2
    assert "vaccinate" in capsys.readouterr().err


@pytest.mark.slow
def test_what_cannot_be_read_does_not_stop_the_others(
    exported: dict[str, Path], pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "broken.png").write_bytes(png(Image.new("RGB", (8, 8)))[:40])
    words = (pictures / "00.png", tmp_path / "broken.png", tmp_path / "nothing*.png", pictures / "01.png")
    found = answers(capsys, exported["run"], *words, code=1)
    assert [("error" in each) for each in found] == [False, True, False]
    assert cli.main(["predict", str(exported["run"]), *map(str, words)]) == 1
    printed = capsys.readouterr()
    assert f"error: no picture is found in {tmp_path / 'nothing*.png'}\n" in printed.err
    assert f"error: {tmp_path / 'broken.png'}: the image can't be decoded" in printed.err
    assert len([line for line in printed.out.splitlines() if "confidence" in line]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("nowhere", "is not there"),
        (".", "no run's folder"),
        ("gone.pt2", "is not there"),
        ("lone.pt2", "lone.json"),
        ("untrained", "holds no trained model"),
        ("nameless", "--classes"),
    ],
)
def test_no_model_is_one_sentence(
    model: str, sentence: str, runs: dict[str, Path], pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "lone.pt2").touch()
    (tmp_path / "untrained").mkdir()
    (tmp_path / "untrained" / "config.yaml").touch()
    shutil.copytree(runs["plain"] / "model", tmp_path / "nameless")
    (tmp_path / "nameless" / "classes.json").unlink()
    assert cli.main(["predict", str(tmp_path / model), str(pictures)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_files_folders_and_globs(tmp_path: Path) -> None:
    """Each picture once, in the order of the words; a folder's by name, and no other files of it."""
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths = {name: tmp_path / name for name in ("b.png", "a.JPG", "deep/c.webp")}
    assert find_images([str(tmp_path)]) == ([paths["a.JPG"], paths["b.png"], paths["deep/c.webp"]], [])
    glob = f"{tmp_path}/**/*.webp"
    assert find_images([str(paths["b.png"]), glob, str(tmp_path)])[0] == [
        paths["b.png"],
        paths["deep/c.webp"],
        paths["a.JPG"],
    ]
    assert find_images(["*.nothing", str(tmp_path / "deep"), "none.png"])[1] == ["*.nothing", "none.png"]


def test_no_picture_is_told_before_a_model_is_read(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["predict", str(tmp_path), str(tmp_path)]) == 2
    assert "no picture is found" in capsys.readouterr().err
