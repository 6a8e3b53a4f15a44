"""Reports as a reader sees them, in headless Chromium: on a desk and on a phone."""

import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.report import report, write_report
from tests.unit import found_runs

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FRAME = """<!doctype html><title></title><iframe style="width: {width}px; height: 2000px" srcdoc="{page}"></iframe>
<script>document.querySelector("iframe").onload = event => {{
    const page = event.target.contentDocument, root = page.documentElement
    const broken = [...page.images].filter(one => !one.naturalWidth).length
    const names = [...page.querySelectorAll("tbody th[scope=row]")].map(one => one.clientWidth).filter(Boolean)
    document.title = [root.scrollWidth, root.clientWidth, broken, Math.min(...names)].join(" ")
}}</script>"""  # a window of its own can't be as narrow as a phone
BACKGROUND = 255  # of a page in light colours, and of its plots

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of one run, and a page of two."""
    outputs = tmp_path_factory.mktemp("outputs")
    rows = [{**row, "git_sha": "0123456789" * 4} for row in found_runs.rows()]  # which breaks at no space
    runs = [found_runs.write(outputs / name / "01234567-s0", rows) for name in ("quickstart", "other")]
    return {"one": write_report(runs[0]), "many": report([str(outputs)])}


@pytest.mark.parametrize("name", ["one", "many"])
@pytest.mark.parametrize("width", [390, 1200])
def test_a_page_fits_its_window_and_shows_all_its_pictures(pages: dict[str, Path], name: str, width: int) -> None:
    framed = pages[name].with_name("framed.html")
    framed.write_text(FRAME.format(width=width, page=escape(pages[name].read_text())))
    title = re.search(r"<title>(\d+) (\d+) (\d+) (\d+)</title>", browse(framed, 1400, "--dump-dom"))
    assert title is not None
    needed, given, broken, narrowest = map(int, title.groups())
    assert 0 <= width - given < 20  # but for a scroll bar
    assert needed <= given
    assert broken == 0
    assert narrowest >= 60, "a line's name has room for a word"


@pytest.mark.parametrize("name", ["one", "many"])
def test_a_screenshot_has_words_at_the_top_and_no_empty_stretch(
    pages: dict[str, Path], name: str, tmp_path: Path
) -> None:
    browse(pages[name], 390, f"--screenshot={tmp_path / 'page.png'}")
    with Image.open(tmp_path / "page.png") as picture:
        ink = np.asarray(picture.convert("L")) < BACKGROUND - 60
    lines = ink.any(axis=1)
    assert lines[:120].any()
    written = np.flatnonzero(lines)
    assert np.diff(written).max() < 200, "more than half a phone's width of nothing between two lines of ink"


def browse(page: Path, width: int, what: str) -> str:
    """Opens a page without a network."""
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'browser'}",
        f"--window-size={width},2400", what, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
