"""What the bar says of an attack while it runs."""

from types import SimpleNamespace

import numpy as np
import pytest

from configs.schema.attack import APGD
from experiments import probe_bar
from experiments.bar import open_bar
from experiments.probe_bar import ProbeBar
from lightning_modules.ledger import RECORD
from lightning_modules.probes import Probe, Tally


def test_tells_accuracy_progress_and_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 samples were known before; 8 more take 16 s, so the other 20 of this rank's 40 take 40 s."""
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=100.0)
    monkeypatch.setattr(probe_bar, "time", clock)
    tally = Tally(Probe("apgd", "test", 80, APGD()), [])
    bar, told = ProbeBar("measuring"), []
    bar._ranks, bar._began = 2, clock.now
    bar._bar = open_bar("measuring", 40, "image")
    bar._bar.set_postfix_str = lambda text, **_: told.append(text)  # type: ignore[method-assign]
    for count, news, fallen in ((12, False, 9), (8, True, 1)):
        records = np.zeros(count, RECORD)
        records["written"], records["attacked"], records["fallen"] = True, True, np.arange(count) < fallen
        tally.settle(records)
        clock.now += 16.0 if news else 1.0
        bar._began += 0.0 if news else 1.0
        bar._show(tally, count, news)
    assert bar._bar.n == 20
    assert told == ["apgd on test: robust 25.0% of 12", "apgd on test: robust 50.0% of 20, 00:40 left"]
    bar._bar.close()
