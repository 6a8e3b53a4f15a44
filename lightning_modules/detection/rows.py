"""Result rows of open-world detection, from what the scores said."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from lightning_modules.detection.table import Samples
from lightning_modules.metrics import OODDetection, aurc, auroc_interval, h_score, open_set_accuracy
from lightning_modules.probes import Row


class Versus(NamedTuple):
    """One OOD split, and the in-distribution samples that it is held against, by one score."""

    split: str
    group: str
    inside: Samples
    outside: Samples


def detection(contest: Versus) -> dict[str, float]:
    """The figures of one OOD split: those of `OODDetection`, `h_score`, and, where there is a threshold,
    `open_set_accuracy`."""
    inside, outside = contest.inside, contest.outside
    metric = OODDetection(sync_on_compute=False).to(inside.values.device)  # the scores are gathered already
    for values, is_ood in ((inside.values, False), (outside.values, True)):
        kind = torch.full_like(values, is_ood, dtype=torch.bool)
        metric.update(values, kind, torch.ones_like(kind))
    found = {name: float(value) for name, value in metric.compute().items()}
    found["h_score"] = float(h_score(inside.right.double().mean(), torch.tensor(found["auroc"])))
    if inside.accepted is None or outside.accepted is None:
        return found
    sides = zip((inside.right, outside.right), (inside.accepted, outside.accepted), (False, True), strict=True)
    columns = [(right, accepted, torch.full_like(right, is_ood)) for right, accepted, is_ood in sides]
    everyone = (torch.cat(column) for column in zip(*columns, strict=True))
    return found | {"open_set_accuracy": float(open_set_accuracy(*everyone))}


def clean_rows(
    score: str,
    contests: Sequence[Versus],
    without: Sequence[Versus],
    named: Mapping[str, Mapping[str, int]],
    inside: str,
) -> Iterator[Row]:
    """Of one score, on images as they are: what is of the in-distribution split alone; each OOD split, and the mean
    over the splits of each group that has several.

    Args:
        without: the same by a bank without the antibodies that name a concept of an OOD split; none where nothing of
            the bank does, or everything.
        named: OOD split -> how many of its concepts the score's bank names, by way; empty where there is no bank.
        inside: name of the in-distribution split.
    """
    known = contests[0].inside
    for metric, value in inside_figures(known).items():
        yield figure(metric, value, n=len(known.values), split=inside, score=score)
    bounds = {each.split: auroc_interval(each.inside.values, each.outside.values) for each in contests}
    reduced = {(row["metric"], row["split"]): row["value"] for row in split_rows(without)}
    for row in split_rows(contests, score=score):
        found = _named(contests, row["split"], named)
        if found:
            row["checks"] = {"named": found}
            row[f"{row['metric']}_without_named"] = reduced.get((row["metric"], row["split"]), row["value"])
        if row["metric"] == "auroc" and row["split"] in bounds:
            row["low"], row["high"] = bounds[row["split"]]
        yield row


def inside_figures(known: Samples) -> dict[str, float]:
    """Of in-distribution samples; all but the last are shares of them.

    id_accuracy   of the right class, whether accepted or not.
    id_accepted   accepted at the chosen threshold.
    silent_error  accepted and of the wrong class.
    aurc          see there.
    """
    shares = {"id_accuracy": known.right}
    if known.accepted is not None:
        shares |= {"id_accepted": known.accepted, "silent_error": known.accepted & ~known.right}
    found = {name: float(share.double().mean()) for name, share in shares.items()}
    return found | {"aurc": float(aurc(known.values, known.right))}


def split_rows(contests: Sequence[Versus], **common: Any) -> Iterator[Row]:
    """Every split, and the mean over the splits of each group that has several; `common` is what all of them say."""
    found = [(contest, detection(contest)) for contest in contests]
    for contest, figures in found:
        yield from _rows(figures, split=contest.split, group=contest.group, n=len(contest.outside.values), **common)
    for group in dict.fromkeys(contest.group for contest in contests):
        members = [(len(contest.outside.values), figures) for contest, figures in found if contest.group == group]
        if len(members) > 1:
            means = {name: sum(each[name] for _, each in members) / len(members) for name in members[0][1]}
            yield from _rows(means, split=group, group=group, n=sum(count for count, _ in members), **common)


def figure(metric: str, value: float, **fields: Any) -> Row:
    """One row; a column that `fields` leave out is empty."""
    empty: Row = {"tree": None, "level": None, "attack": None, "attack_name": None, "score": None, "checks": {}}
    return {"metric": metric, "value": value, **empty, **fields}


def _rows(figures: Mapping[str, float], **fields: Any) -> Iterator[Row]:
    for metric, value in figures.items():
        yield figure(metric, value, **fields)


def _named(contests: Sequence[Versus], split: str, named: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Of a split, or summed over the splits of a group."""
    total: Counter[str] = Counter()
    for contest in contests:
        if split in (contest.split, contest.group):
            total.update(named[contest.split])
    return dict(total)
