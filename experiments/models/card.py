"""README.md of a model folder: what was measured, on what, how to get it again, and what it does not say."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.analysis import names, open_world
from experiments.analysis.loading import load_rows
from experiments.analysis.row import SWEEP, Row
from experiments.analysis.table import FOOT, SUSPECT, Line, bounds, lines, points, stages_of, value
from experiments.analysis.verdicts import verdicts
from experiments.atomic import write_text
from experiments.models.labels import Labels
from experiments.models.trained import CONFIG
from lightning_modules.backbones.export import HEAD_FILE, opening
from lightning_modules.open_world.immunity import SETTINGS, WEIGHTS

if TYPE_CHECKING:
    from configs.schema import ExperimentConfig
    from lightning_modules.backbones import Backbone

FILE = "README.md"
BEYOND = {
    f"the hyperbolic head ({HEAD_FILE})": HEAD_FILE,
    f"the reject option ({SETTINGS}, {WEIGHTS})": SETTINGS,
}
LIMITS = """Robustness is empirical, not certified: the figures say how many pictures the listed attacks, with the
listed budgets, did not turn, and a stronger or another attack may turn more. They hold for the data that they were
measured on, for perturbations within the given radii and norms, and for one seed. Where the model can reject, its
thresholds were set on clean validation pictures, and an adversary who may change known and unknown pictures can turn
the decision upside down. Which antibody is nearest tells why a picture is rejected, not what is on it: often a few
are nearest to most pictures."""

Cells = Sequence[Sequence[str]]


def describe_model(folder: Path, run: Path, config: "ExperimentConfig", backbone: "Backbone", labels: Labels) -> None:
    """Writes README.md, classes.json and config.yaml into a model folder, in place of older ones.

    Args:
        folder: the model's.
        run: the run's, with config.yaml and, where anything was measured, results.jsonl.
        config: of the run.
        backbone: the model.
    """
    if labels.class_names:
        labels.save(folder)
    if (run / CONFIG).is_file():
        write_text(folder / CONFIG, (run / CONFIG).read_text())
    write_text(folder / FILE, _card(folder, run, config, backbone, labels))


def _card(folder: Path, run: Path, config: "ExperimentConfig", backbone: "Backbone", labels: Labels) -> str:
    rows = load_rows(run) if (run / "results.jsonl").is_file() else []
    beyond = [part for part, file in BEYOND.items() if (folder / file).is_file()]
    front = ["library_name: open_clip", "pipeline_tag: zero-shot-image-classification", "tags: [clip, immunoclip]"]
    return (
        "\n\n".join(
            [
                "\n".join(["---", *front, "---"]),
                f"# {config.name}, seed {config.seed}",
                _what(config, backbone, labels),
                opening(backbone).strip(),
                _answering(beyond),
                "## Measured results",
                *(_results(rows) if rows else ["Nothing was measured yet."]),
                "## Limits",
                LIMITS,
                _confidence(backbone),
                "## Data and licences",
                _licences(config, labels),
                "## How to get it again",
                _reproduction(run, rows),
            ]
        )
        + "\n"
    )


def _what(config: "ExperimentConfig", backbone: "Backbone", labels: Labels) -> str:
    objective = getattr(config.module, "objective", None)
    method = f"{config.module.kind}, {objective.kind}" if objective else config.module.kind
    parts = [
        f"A CLIP model by ImmunoCLIP, from `{config.model.name}`"
        + (f" (`{config.model.pretrained}`)" if config.model.pretrained else "")
        + f", trained by `{method}`"
        + (f" against `{names.attack(vars(config.attack))}`" if config.attack.kind != "none" else "")
        + (f" over {len(labels.class_names)} classes." if labels.class_names else "."),
    ]
    if backbone.immunity is not None:
        count = len(backbone.immunity.captions)
        parts.append(f"It was vaccinated with {count} antibodies, and can reject what it does not know.")
    return " ".join(parts)


def _confidence(backbone: "Backbone") -> str:
    temperature = 1.0 if backbone.immunity is None else backbone.immunity.temperature
    if temperature == 1:
        return "Confidence is not calibrated."
    return (
        f"Confidence is calibrated on clean validation pictures of the known classes, by one temperature "
        f"({temperature:.3g}); it says nothing of attacked or unknown ones."
    )


def _answering(beyond: Sequence[str]) -> str:
    note = f" open_clip leaves {' and '.join(beyond)} alone; ImmunoCLIP uses them." if beyond else ""
    return f"`python -m experiments predict FOLDER PICTURE...` answers with class, superclasses and confidence.{note}"


def _results(rows: Sequence[Row]) -> list[str]:
    stages = stages_of(rows)
    body = [line for line in lines(rows, stages) if line.first.score is None]
    change = ["change"] if len(stages) > 1 else []
    figures = [["", *stages, *change, "n"], *(_figures(line, stages) for line in body)]
    settings = {names.attack(row.attack): _setting(row.attack) for row in rows if row.attack and _own(row)}
    parts = [f"{_distinct(row.dataset for row in rows)}, split {_distinct(line.first.split for line in body)}."]
    parts += [_table(figures), FOOT]
    parts += [_listing("Attacks", [f"{name}: {setting}" for name, setting in settings.items()])]
    parts += [_listing("Checks of the attacks", verdicts([row for line in body for row in line.rows.values()]))]
    glance = open_world.cells(rows, stages)
    parts += [_table(glance), open_world.FOOT] if glance else []
    return [part for part in parts if part]


def _own(row: Row) -> bool:
    """Whether its attack is one of the configuration's, at the class that the label names."""
    return row.attack_name != SWEEP and row.score is None and not row.superclass


def _figures(line: Line, stages: Sequence[str]) -> list[str]:
    shown = [_figure(line.rows.get(stage)) for stage in stages]
    change = [points(line.change(stages), line.first.metric)] if len(stages) > 1 else []
    return [f"{line.section}: {line.label}", *shown, *change, line.counts]


def _figure(row: Row | None) -> str:
    if row is None:
        return "-"
    interval = f" ({bounds(row)})" if bounds(row) else ""
    return f"{value(row)}{interval}{f' {SUSPECT}' if row.suspect else ''}"


def _setting(attack: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {setting}" for name, setting in (attack or {}).items() if setting is not None)


def _licences(config: "ExperimentConfig", labels: Labels) -> str:
    data = labels.data or f"The data set in `{config.data.folder}`, whose licence is not known here"
    return (
        f"{data}. The weights come from `{config.model.name}` and from these pictures; which licence they may be "
        "passed on under follows from both. ImmunoCLIP's code is under Apache-2.0."
    )


def _reproduction(run: Path, rows: Sequence[Row]) -> str:
    inputs = run / "config.inputs.json"
    given = json.loads(inputs.read_text()) if inputs.is_file() else {"experiment": CONFIG, "overrides": []}
    overrides = [each for each in given["overrides"] if not each.startswith("output=")]  # of one machine
    settings = " ".join([str(given["experiment"]), *overrides])
    commands = "\n".join(f"python -m experiments {verb} {settings}" for verb in ("train", "evaluate"))
    source = {
        title: _distinct(row.provenance.get(name) for row in rows)
        for title, name in (
            ("configuration", "config_hash"),
            ("code", "git_sha"),
            ("data manifest", "manifest_digest"),
            ("measured on", "device"),
        )
    }
    versions = {name: number for row in rows for name, number in (row.provenance.get("versions") or {}).items()}
    facts = [f"{title} `{found}`" for title, found in source.items() if found]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"```\n{commands}\n```\n\n" + ", ".join([*facts, *([packages] if packages else [])])


def _distinct(found: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(each) for each in found if each))


def _listing(title: str, found: Sequence[str]) -> str:
    return "\n".join([f"{title}:", "", *(f"- {each}" for each in found)]) if found else ""


def _table(cells: Cells) -> str:
    head, *body = ["| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in cells]
    return "\n".join([head, "|" + "---|" * len(cells[0]), *body])
