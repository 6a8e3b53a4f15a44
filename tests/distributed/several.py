"""Several runs one after another in the same processes: `torchrun -m tests.distributed.several FILE[@STEP][!] ...`.

With @STEP, a power cut ends the run after that step, and it is started again. With !, DDP is not told that every step
has the same graph.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest
from lightning.pytorch.strategies import DDPStrategy

from configs.compose import Composed, compose
from experiments import trainer
from experiments.train import train
from tests.integration.runs import Fault, faulty


def changing(**settings: Any) -> DDPStrategy:
    return DDPStrategy(**settings | {"static_graph": False})


def run(composed: Composed, cut: str) -> None:
    """Fails where the run does."""
    if cut:
        with faulty(Fault(int(cut))), pytest.raises(RuntimeError, match="power cut"):
            train(composed)
    assert train(composed) == 0


for each in sys.argv[1:]:
    file, _, cut = each.rstrip("!").partition("@")
    way: AbstractContextManager[Any] = nullcontext()
    if each.endswith("!"):
        way = patch.object(trainer, "DDPStrategy", changing)
    with way:
        run(compose(file), cut)
