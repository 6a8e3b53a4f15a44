"""Tables as wandb has them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

GREY = 127


def figures_table(table: Mapping[str, Any]) -> Any:
    """A wandb.Table of lists of columns and of rows."""
    import wandb

    return wandb.Table(columns=list(table["columns"]), data=table["data"], allow_mixed_types=True)


def pictures_table(pictures: Mapping[str, Any]) -> Any:
    """A wandb.Table with three images a row before what is written beside them: the clean one, the perturbation as
    many times as strong as `amplification` says, around grey, and the adversarial one."""
    import wandb

    count, factor = len(pictures["data"]), pictures["amplification"]
    with np.load(pictures["evidence"], allow_pickle=False) as file:
        clean, adversarial = (file[f"pictures/{name}"][:count] for name in ("clean", "adversarial"))
    added = np.clip(GREY + factor * (adversarial.astype(np.int16) - clean), 0, 255).astype(np.uint8)
    shown = [[wandb.Image(each.transpose(1, 2, 0)) for each in images] for images in (clean, added, adversarial)]
    columns = ["clean", f"perturbation x{factor}", "adversarial", *pictures["columns"]]
    lines: list[Iterable[Any]] = [[*images, *texts] for *images, texts in zip(*shown, pictures["data"], strict=True)]
    return wandb.Table(columns=columns, data=lines)
