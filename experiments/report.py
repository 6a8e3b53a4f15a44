"""report.html: what a run found, in words, numbers and pictures, in one file that opens anywhere."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from experiments.analysis import curves, figure, names, page, pictures, plots
from experiments.analysis.depth import depth_parts
from experiments.analysis.doubts import doubts, examined
from experiments.analysis.drawn import drawn
from experiments.analysis.headline import headline
from experiments.analysis.loading import (
    Evidence,
    Floats,
    load_config,
    load_curves,
    load_evidence,
    load_head,
    load_rows,
    load_status,
)
from experiments.analysis.matrix_page import matrix_parts
from experiments.analysis.open_world_page import definitions, open_world_parts
from experiments.analysis.row import SWEEP, Row
from experiments.analysis.table import FOOT, lines, stages_of
from experiments.atomic import write_text
from experiments.overview import write_overview
from experiments.status import Status

OPENMOJI = (
    "All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0. "
    "The pictures on this page are renderings of them, with other backgrounds, placement, colours and quality."
)
DEFINITIONS = {
    "accuracy": "Share of pictures whose best class is the right one. Above the leaves the predicted leaf's ancestor "
    "is compared with the label's; the adversary aims at the leaf.",
    "interval": "95 %, Wilson. It covers the choice of the test pictures, not the randomness of training: that "
    "takes several seeds.",
}


@dataclass(frozen=True)
class Found:
    """All that a run has left."""

    rows: Sequence[Row]
    superclasses: Sequence[Row]
    curves: Mapping[str, tuple[Floats, Floats]]
    evidence: Mapping[str, Evidence]
    status: Mapping[str, Any]
    config: str
    head: Mapping[str, float]

    @property
    def stages(self) -> list[str]:
        """The stages that the page compares."""
        return stages_of(self.rows)


def report(sources: Sequence[str], to: Path | None = None) -> Path:
    """The page of one run, or of many side by side. Returns where it is.

    Args:
        to: for the page of many; None: report.html in the first folder, or here where the sources are none.

    Raises:
        UserError: no results, a file that is damaged, or a page that can't be written.
    """
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    if to is None and len(sources) == 1 and folders and (folders[0] / "results.jsonl").is_file():
        return write_report(folders[0])
    return write_overview(sources, to or next(iter(folders), Path()) / "report.html")


def write_report(folder: Path) -> Path:
    """Writes `folder`/report.html in place of an earlier one, and returns its path. The same run gives the same bytes.

    Whatever was not measured is left out; only results.jsonl must be there.
    Raises UserError: no results, a file that is damaged, or a page that can't be written.
    """
    folder = Path(folder)
    rows = load_rows(folder)
    plain, superclasses = ([row for row in rows if row.superclass is wanted] for wanted in (False, True))
    found = Found(
        rows=plain,
        superclasses=superclasses,
        curves=load_curves(folder),
        evidence=load_evidence(folder),
        status=load_status(folder),
        config=load_config(folder),
        head=load_head(folder),
    )
    path = folder / "report.html"
    try:
        write_text(path, _page(folder, found))
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}); free some space or change its permissions"
        ) from error
    return path


def _page(folder: Path, found: Found) -> str:
    plain = [line for line in lines(found.rows, found.stages) if line.first.score is None]
    title = f"{folder.resolve().parent.name} / {folder.resolve().name}"
    return page.page(
        f"ImmunoCLIP report: {title}",
        [
            f"<h1>{page.escape(title)}</h1>",
            page.paragraph(_datasets(found.rows), "muted"),
            page.paragraph(_unfinished(found.status), "warning"),
            page.paragraph(headline(found.rows), "lead"),
            page.section("Results", page.results(plain, found.stages), page.paragraph(FOOT, "muted")),
            page.section("Accuracy", *_accuracy(found)),
            page.section("Superclasses", *matrix_parts(found.superclasses, found.stages)),
            page.section("Open world", *open_world_parts(found.rows, found.evidence, found.stages)),
            page.section("What the adversary does", *_pictures(found)),
            page.section("Training", *_training(found)),
            page.section("Depth", *depth_parts(found.curves, found.head, found.evidence.get("after"))),
            page.section("How it was measured", *_method(found)),
            page.section("Configuration", page.folded("config.yaml, resolved", found.config)),
            _provenance(found),
        ],
    )


def _datasets(rows: Iterable[Row]) -> str:
    data = {f"{row.dataset}, seed {row.seed}": None for row in rows}
    return "; ".join(data)


def _unfinished(status: Mapping[str, Any]) -> str:
    ended = Status(**status).unfinished if status else ""
    return f"This run {ended}. What follows is what it had measured." if ended else ""


def _accuracy(found: Found) -> list[str]:
    counts = "; ".join(
        f"{line.section}: n = {line.counts}"
        for line in lines(found.rows, found.stages)
        if line.first.metric == "accuracy" and line.first.level == 0
    )
    attacked = sorted({row.n for row in found.rows if row.attack and row.metric == "accuracy" and row.level == 0})
    samples = f"n = {' / '.join(f'{n:,}' for n in attacked)} a point."
    return [
        drawn(
            plots.accuracy_bars(found.rows),
            "Leaf accuracy, clean and attacked, by stage",
            f"Leaf accuracy with 95 % intervals. Compare what an attack leaves with what clean pictures get. {counts}.",
        ),
        drawn(
            curves.accuracy_by_radius(found.rows),
            "Leaf accuracy against the radius of the attack, by attack and stage",
            "Leaf accuracy by attack radius, with 95 % intervals; at 0 clean accuracy. Curves should fall all the way "
            "to 0 as the radius grows; one that levels off far above tells of a weak attack, not of a robust model. "
            "Marks without a line: attacks run within one radius. A stronger attack should not lie above a weaker "
            f"one's curve of its stage. {samples}",
        ),
        drawn(
            curves.accuracy_by_steps(found.rows),
            "Leaf accuracy against the number of steps of the attack, by attack and stage",
            "Leaf accuracy by number of steps, with 95 % intervals. Curves should level off; one that still falls at "
            f"its end tells that the attack had too few steps. {samples}",
        ),
        drawn(
            plots.accuracy_by_level(found.rows),
            "Accuracy at each level of the class trees, by stage",
            "Accuracy from the leaf classes up: mistakes that stay within a superclass vanish at its level. "
            f"Full: clean; dashed: attacked. {counts}.",
        ),
    ]


def _pictures(found: Found) -> list[str]:
    parts = []
    for stage in [stage for stage in found.stages if stage in found.evidence]:
        kept = found.evidence[stage].pictures
        if kept is None:
            continue
        shown, factor = min(len(kept.label), pictures.SHOWN), pictures.amplification(kept)
        clean, adversarial = pictures.correct(kept)
        caption = (
            f"{stage}: the first {shown} of {len(kept.label)} kept pictures, in the data set's order, not chosen. "
            "Above each the true class, below the prediction (green check: right, red cross: wrong): "
            f"{clean} right clean, {adversarial} right attacked. The perturbation is drawn {factor} times as strong, "
            "around grey."
        )
        image = figure.png(pictures.grid(kept))
        parts.append(page.picture(image, f"Clean pictures, perturbations and adversarial pictures, {stage}", caption))
    return parts


def _training(found: Found) -> list[str]:
    drawing = plots.training_curves(found.curves)
    steps = max((int(curve[0][-1]) for curve in found.curves.values() if len(curve[0])), default=0)
    caption = (
        f"What training logged over {steps:,} steps, on training batches under the training attack: no measure of the "
        "result. Zero gradients: share of pictures that gave the attack nothing to follow; near 0 is healthy."
    )
    return [drawn(drawing, "Training curves", caption)]


def _method(found: Found) -> list[str]:
    attacks = {
        row.attack_name: f"{names.attack(row.attack)}. {_setting(row.attack)}. n = {row.n:,}."
        for row in found.rows
        if row.attack and row.attack_name and row.attack_name != SWEEP
    }
    checks = [_checks(row) for row in found.rows if row.attack and row.attack_name != SWEEP and row.level == 0]
    seeds = ", ".join(str(seed) for seed in sorted({row.seed for row in found.rows}))
    raised = doubts(found.rows)
    verdict = "Signs that an attack was too weak:" if raised else _no_doubts(found.rows)
    return [
        page.definitions({**DEFINITIONS, **definitions(found.rows), **attacks, "seeds": seeds}),
        page.listing([check for check in checks if check]),
        page.paragraph(verdict, "warning" if raised else ""),
        page.listing(raised),
    ]


def _no_doubts(rows: Sequence[Row]) -> str:
    looked = examined(rows)
    return f"No sign that an attack was too weak. Looked at: {'; '.join(looked)}." if looked else ""


def _setting(attack: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {setting}" for name, setting in attack.items())


def _checks(row: Row) -> str:
    told = [
        f"{name.replace('_', ' ')} {found:.3g}" for name, found in row.checks.items() if isinstance(found, (int, float))
    ]
    return f"{row.stage}, {names.attack(row.attack)}: {', '.join(told)}." if told else ""


def _provenance(found: Found) -> str:
    sources = [row.provenance for row in found.rows]
    seconds = {stage: sum({_seconds(row) for row in found.rows if row.stage == stage}) for stage in found.stages}
    versions = {
        f"{name} {number}": None for source in sources for name, number in (source.get("versions") or {}).items()
    }
    facts = {
        "configuration": _distinct(sources, "config_hash"),
        "code": _distinct(sources, "git_sha"),
        "data manifest": _distinct(sources, "manifest_digest"),
        "device": _distinct(sources, "device"),
        "packages": ", ".join(versions),
        "measuring took": ", ".join(f"{stage} {time:.0f} s" for stage, time in seconds.items() if time),
        "run": f"{found.status.get('started', '')} to {found.status.get('updated', '')}" if found.status else "",
        "credit": OPENMOJI if any("openmoji" in row.dataset.lower() for row in found.rows) else "",
    }
    return f"<footer><h2>Provenance</h2>{page.definitions(facts)}</footer>"


def _distinct(sources: Iterable[Mapping[str, Any]], name: str) -> str:
    return ", ".join(dict.fromkeys(str(source[name]) for source in sources if source.get(name)))


def _seconds(row: Row) -> float:
    """Of the measurement that the row belongs to: rows of one measurement tell the same."""
    return float(row.provenance.get("seconds") or 0)
