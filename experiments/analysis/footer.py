"""Where the figures of many runs come from, to be printed below them."""

from collections.abc import Iterable, Sequence

from experiments.analysis.outcome import Outcome

DIRTY = "-dirty"


def footer(outcomes: Sequence[Outcome], excluded: Sequence[str]) -> str:
    """Markdown, a line a fact: runs, seeds, code, data, packages, hardware, and what was left out."""
    sources = [row.provenance for outcome in outcomes for row in outcome.rows]
    versions = {f"{name} {of}" for source in sources for name, of in (source.get("versions") or {}).items()}
    data = {f"{row.dataset} {row.provenance.get('manifest_digest')}" for one in outcomes for row in one.rows}
    facts = {
        "runs": "; ".join(_runs(outcomes)),
        "seeds": f"{len({outcome.seed for outcome in outcomes})}",
        "code": "; ".join(map(_code, _distinct(source.get("git_sha") for source in sources))),
        "data": "; ".join(sorted(data)),
        "packages": ", ".join(sorted(versions)),
        "hardware": "; ".join(_distinct(source.get("device") for source in sources)),
    }
    told = [f"- {title}: {fact}" for title, fact in facts.items() if fact]
    return "\n".join([*told, *(f"- left out: {sentence}" for sentence in excluded)])


def _runs(outcomes: Iterable[Outcome]) -> list[str]:
    """`quickstart-3b6e4e4f, seed 0, 7`: seeds share all of a run's name but its end."""
    seeds: dict[str, list[int]] = {}
    for outcome in outcomes:
        seeds.setdefault(outcome.run.removesuffix(f"-s{outcome.seed}"), []).append(outcome.seed)
    return [f"{name}, seed {', '.join(map(str, sorted(found)))}" for name, found in seeds.items()]


def _code(sha: str) -> str:
    """A dirty one can't be had again from the commit alone."""
    return f"{sha.removesuffix(DIRTY)} with changes that were not committed" if sha.endswith(DIRTY) else sha


def _distinct(values: Iterable[object]) -> list[str]:
    return sorted({str(value) for value in values if value})
