"""Which antibodies fired: what a vaccinated model takes pictures for that are of no class, and of one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from experiments.analysis.loading import Evidence, Nearest, Places, Texts

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("split", "image", "shown", "antibody", "of class")
CLEAN, ATTACKED = "clean", "attacked"


def fired(evidence: Evidence) -> "pd.DataFrame":
    """A line a picture: split, image (clean or attacked), what is shown, the nearest antibody and the class that it is
    taken for. `shown` is empty where the data don't tell; no line where the model is not vaccinated.

    The pictures under attack are there clean as well, as `clean`, among all clean ones of their split.
    """
    import pandas as pd

    nearest = evidence.nearest
    lines = [] if nearest is None else [*_lines(nearest)]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def changed(evidence: Evidence) -> "pd.DataFrame":
    """A line a split: share of the pictures under attack whose nearest antibody the attack exchanged, and their n."""
    import pandas as pd

    places = {} if evidence.nearest is None else evidence.nearest.attacked
    lines = [(split, float((pair[:, 0] != pair[:, 1]).mean()), len(pair)) for split, pair in places.items()]
    return pd.DataFrame(lines, columns=["split", "exchanged", "n"])


def by_concept(found: "pd.DataFrame") -> "pd.DataFrame":
    """Of lines of `fired`, by split and what is shown: the antibody that most of its pictures are nearest to, how many
    of them, and how many there are."""
    groups = found.groupby(["split", "shown"], sort=False)["antibody"]
    most = groups.agg(lambda texts: texts.value_counts().index[0])
    times = groups.agg(lambda texts: texts.value_counts().iloc[0])
    return most.to_frame("fires most often").assign(pictures=times, of=groups.size())


def hubs(found: "pd.DataFrame") -> "pd.DataFrame":
    """Of lines of `fired`, by split: how many different antibodies fire, the most frequent one, and its share.

    A share near 1 is a hub (Radovanovic et al. 2010): an antibody that is nearest to whatever there is to be seen.
    """
    groups = found.groupby("split", sort=False)["antibody"]
    most = groups.agg(lambda texts: texts.value_counts().index[0])
    share = groups.agg(lambda texts: texts.value_counts(normalize=True).iloc[0])
    return groups.nunique().to_frame("different").assign(**{"most frequent": most, "share": share})


def _lines(nearest: Nearest) -> Iterator[tuple[str, ...]]:
    for split, places in nearest.clean.items():
        yield from _told(nearest, split, CLEAN, places, nearest.shown.get(split))
    for split, pair in nearest.attacked.items():
        yield from _told(nearest, split, ATTACKED, pair[:, 1], nearest.attacked_shown.get(split))


def _told(nearest: Nearest, split: str, image: str, places: Places, shown: Texts | None) -> Iterator[tuple[str, ...]]:
    names = [""] * len(places) if shown is None else shown
    for place, name in zip(places, names, strict=True):
        yield split, image, str(name), str(nearest.captions[place]), str(nearest.owners[place])
