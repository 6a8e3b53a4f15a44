"""The `quickstart` verb: the whole job on real pictures, in minutes, without a download."""

import sys
import time

from lightning.pytorch.utilities import rank_zero_only

from configs.compose import Composed
from datamodules import build_datamodule
from experiments.evaluate import show, trained
from experiments.measure import measure
from experiments.plan import describe
from experiments.report import write_report
from experiments.runs import Run
from experiments.stop import Interrupted
from experiments.tracking.mirror import Mirror, mirrored
from experiments.train import fit
from lightning_modules.backbones import load_backbone


def quickstart(composed: Composed, dry_run: bool = False) -> int:
    """Packs, measures, fine-tunes, measures again, compares. What is done already is not done again."""
    run = Run.of(composed)
    if dry_run:
        print(describe(composed))
        return 0
    try:
        with run.attempt(), mirrored(run, composed.config) as mirror, run.recorded():
            run.describe(composed)
            _job(run, composed, mirror)
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return interruption.exit_code
    show(run)
    return 0


def _job(run: Run, composed: Composed, mirror: Mirror) -> None:
    config = composed.config
    began = time.perf_counter()
    _say("1/5 Data: OpenMoji drawings on hard backgrounds, as WebDataset shards (kept for later runs)")
    data = build_datamodule(config.data, config.seed)
    data.prepare_data()
    _say("2/5 Model: a miniature CLIP that has seen all of these concepts but those of the split near_unseen")
    backbone = load_backbone(config.model)
    _say("3/5 Before: what it knows, what an adversary makes of it, what it rejects")
    measure(run, config, backbone, data, "before")
    mirror.measured("before", data)
    _say("4/5 Fine-tuning on images that an adversary changes at every step; then vaccination against the unknown")
    if not run.model.exists():
        fit(run, config, mirror)
    _say("5/5 After: the same measurements on the fine-tuned, vaccinated model")
    measure(run, config, load_backbone(trained(run)), build_datamodule(config.data, config.seed), "after")
    mirror.measured("after", data)
    _report(run)
    minutes = (time.perf_counter() - began) / 60
    _say(f"Done in {minutes:.1f} min. The model is in {run.model}, the report is {run.folder / 'report.html'}")


@rank_zero_only
def _report(run: Run) -> None:
    write_report(run.folder)


@rank_zero_only
def _say(line: str) -> None:
    print(f"\n{line}", file=sys.stderr, flush=True)
