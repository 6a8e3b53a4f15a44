"""report.html: self-contained, complete, and the same every time."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import found_runs
import matplotlib
import numpy as np
import pytest

from configs.errors import UserError
from experiments.analysis import load_rows, load_runs
from experiments.analysis.loading import Pictures
from experiments.analysis.pictures import amplification, correct, grid
from experiments.report import report, write_report

SECTIONS = ["Results", "Accuracy", "Open world", "What the adversary does", "Training", "How it was measured"]
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects headings, pictures, cells and addresses; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: dict[str, list[str]] = {"h2": [], "td": [], "p": []}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag in self.text:
            self.text[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.text:
            if tag in self.open:
                self.text[tag][-1] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = found_runs.write(tmp_path_factory.mktemp("outputs") / "quickstart" / "abcd-s0", found_runs.rows())
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return (run / "report.html").read_text()


def test_all_sections_and_pictures_are_there(page: str) -> None:
    reader = Reader(page)
    assert reader.text["h2"] == [*SECTIONS, "Configuration", "Provenance"]
    assert reader.tags.count("figure") == 8


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    reader = Reader(page)
    assert "script" not in reader.tags
    assert "link" not in reader.tags
    assert all(address.startswith("data:image/") for address in reader.addresses)
    assert "url(" not in page
    assert len(page) < 2_000_000


def test_pictures_are_whole(page: str) -> None:
    images = [base64.b64decode(data) for data in re.findall(r"data:image/[a-z+]+;base64,([^\"]+)", page)]
    ends = {image[:4]: image[-20:] for image in images}
    assert ends[b"\x89PNG"].endswith(b"IEND\xaeB`\x82")
    assert ends[b"<?xm"].rstrip().endswith(b"</svg>")


def test_every_measured_figure_is_in_the_table(run: Path, page: str) -> None:
    cells = [cell.split(" ")[0] for cell in Reader(page).text["td"]]
    figures = sorted(cell for cell in cells if re.fullmatch(r"\d+\.\d", cell))
    assert figures == sorted(f"{100 * row.value:.1f}" for row in load_rows(run) if row.attack_name != "sweep")


def test_text_from_files_is_escaped(page: str) -> None:
    assert "# &lt;script&gt;" in page
    assert "<script" not in page


def test_provenance_is_told(page: str) -> None:
    for fact in (
        "c0ffee12",
        "0123abcd",
        "feedbeef",
        "torch 2.15.0",
        "a processor, 2 threads",
        "before 12 s",
        "OpenMoji",
    ):
        assert fact in page


def test_the_same_run_gives_the_same_bytes(run: Path, page: str) -> None:
    settings = dict(matplotlib.rcParams)
    assert write_report(run).read_text() == page
    assert dict(matplotlib.rcParams) == settings


def test_results_alone_make_a_page(tmp_path: Path) -> None:
    found_runs.write(tmp_path, [found_runs.row(0.9, dataset="mine")])
    for path in tmp_path.iterdir():
        if path.name != "results.jsonl":
            path.unlink()
    text = write_report(tmp_path).read_text()
    reader = Reader(text)
    assert reader.text["h2"] == ["Results", "Accuracy", "How it was measured", "Provenance"]
    assert "Fine-tuning" not in text
    assert "AUROC" not in text
    assert "OpenMoji" not in text


@pytest.mark.parametrize(("state", "told"), [("interrupted", "was interrupted at step 3 of 9"), ("finished", "")])
def test_a_run_that_did_not_finish_says_so(tmp_path: Path, state: str, told: str) -> None:
    found_runs.write(tmp_path, [found_runs.row(0.9)], pictures=1, size=8)
    (tmp_path / "status.json").write_text(f'{{"state": "{state}", "step": 3, "steps": 9}}')
    warnings = [text for text in Reader(write_report(tmp_path).read_text()).text["p"] if "This run" in text]
    assert (told in warnings[0]) if told else not warnings


def test_what_speaks_against_the_figures_is_on_the_page(tmp_path: Path) -> None:
    attacked = {"attack": found_runs.PGD, "attack_name": "pgd20", "checks": {"suspect": ["gradients are zero"]}}
    found_runs.write(tmp_path, [found_runs.row(0.9, **attacked)], pictures=1, size=8)
    text = write_report(tmp_path).read_text()
    assert "<strong>suspect</strong>" in text
    assert "before: PGD-20, L-inf 4/255: gradients are zero." in text
    assert "Signs that an attack was too weak" in text


def test_a_failure_leaves_the_earlier_page(tmp_path: Path) -> None:
    folder = found_runs.write(tmp_path / "run", [found_runs.row(0.9)], pictures=1, size=8)
    earlier = write_report(folder).read_bytes()
    (folder / "results.jsonl").unlink()
    with pytest.raises(UserError, match=r"results\.jsonl"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == earlier


def test_the_perturbation_is_drawn_as_strong_as_it_fits() -> None:
    clean = np.full((2, 3, 4, 4), 100, dtype=np.uint8)
    label = np.array([0, 1])
    for largest, factor in ((8, 15), (1, 127), (100, 1), (0, 1)):
        adversarial = clean.copy()
        adversarial[0, 0, 0, 0] = 100 - largest
        shown = Pictures(clean, adversarial, label, label, label[::-1], ("a", "b"))
        assert amplification(shown) == factor
    assert correct(shown) == (2, 0)


def test_colours_and_marks_of_predictions_follow_the_label() -> None:
    pixels = np.zeros((2, 3, 4, 4), dtype=np.uint8)
    shown = Pictures(pixels, pixels, np.array([0, 1]), np.array([0, 0]), np.array([1, 1]), ("dog", "fox"))
    labels = [axes.get_xlabel() for axes in grid(shown).axes if axes.get_visible()]
    right, wrong = "\N{CHECK MARK}", "\N{BALLOT X}"
    assert labels == [f"{right} dog", f"{wrong} dog", "", "", f"{wrong} fox", f"{right} fox"]


def test_a_page_of_many_runs_has_every_method_figure_and_command(tmp_path: Path) -> None:
    for name in ("quick", "slow"):
        for seed in (0, 1):
            rows = found_runs.rows(seed=seed + 2 * len(name))
            folder = found_runs.write(tmp_path / name / f"0123abcd-s{seed}", [row | {"seed": seed} for row in rows])
            inputs = {"experiment": name, "files": [], "overrides": [f"seed={seed}", "optim.lr=0.5", "output=/there"]}
            (folder / "config.inputs.json").write_text(json.dumps(inputs))
            (folder / "config.yaml").write_text(f"name: {name}\n")
    path = report([str(tmp_path)], tmp_path / "page.html")
    reader = Reader(path.read_text())
    compared = load_runs(str(tmp_path)).frame.query("stage == 'after' and name == 'accuracy/clean/leaf'")
    for _, members in compared.groupby("experiment"):
        assert any(cell.startswith(f"{100 * members.value.mean():.1f} ± ") for cell in reader.text["td"])
    assert any("2 methods, 4 runs, seeds 0, 1" in text for text in reader.text["p"])
    text = path.read_text()
    for name in ("quick", "slow"):
        assert f"immunoclip train {name} optim.lr=0.5 seed=SEED" in text
    assert "/there" not in text
    assert "script" not in reader.tags


def test_a_page_of_many_needs_something_to_compare(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        report([str(tmp_path / "nowhere")])
