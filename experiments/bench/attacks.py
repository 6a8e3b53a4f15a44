"""The attack engine against torchattacks, against the reference's schedule and against its own floor.

What limits it: a sample that stands runs the whole budget under any schedule, so the gain of leaving early is the share
of the samples that fall, and of what they would have had before them. `detail` has the images that the model was asked
about, who stands, and the budget.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from configs.schema import attack as schema
from experiments.bench.memory import peak_bytes
from experiments.bench.rivals import CROSS_ENTROPY, Budget, engine, full_schedule, peer, settings, torchattack
from experiments.bench.rounds import interleaved, paired_ratio, timed
from experiments.bench.subjects import Subject, subjects
from experiments.bench.table import Row
from experiments.bench.targets import row
from lightning_modules import attacks
from lightning_modules.attacks import ModelFn
from lightning_modules.attacks.attack import input_gradient

STANDARD = Budget(steps=100, targets=9, queries=5000)  # where all samples fall early, and nobody runs it all
SHORT = Budget(steps=20, targets=3, queries=200)  # where half of them stand
TINY = Budget(steps=4, targets=2, queries=20)  # memory does not grow with the budget
PGD = schema.PGD(steps=20)
ROUNDS = 3  # of AutoAttack on half-robust networks
PGD_ROUNDS, PGD_BATCH = 5, 16
IMAGE_BATCHES = 10


def measure() -> list[Row]:
    """All rows of every network in turn."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[Row] = []
    for plain, half in subjects(device):
        rows += [*contest(plain, "AutoAttack", STANDARD, rounds=1), *_pgd(plain)]
        for attack in settings(half.eps_255, SHORT):
            rows += contest(half, attack, SHORT, rounds=ROUNDS if attack == "AutoAttack" else 1)
        rows += [*_memory(half), *_bfloat16(plain, half)]
    return rows


def contest(subject: Subject, attack: str, budget: Budget, rounds: int) -> list[Row]:
    """One attack by the full schedule and by torchattacks, over this engine.

    Raises:
        AssertionError: another set of samples falls than under the full schedule, in double precision too.
    """
    setting, frozen = settings(subject.eps_255, budget)[attack], subject.frozen
    pairs = [
        (timed(lambda: engine(subject, setting, frozen)), timed(lambda: full_schedule(subject, setting, frozen)))
        for _ in range(rounds)
    ]
    theirs, their_fallen = timed(lambda: peer(subject, setting, frozen))
    (_, own), (_, full) = pairs[0]
    own_s, full_s = [own_s for (own_s, _), _ in pairs], [full_s for _, (full_s, _) in pairs]
    differing = own.fallen != full.fallen
    confirm_same_fate(subject, setting, differing)
    detail = _described(subject, budget) | {
        "engine_s": median(own_s),
        "full_schedule_s": median(full_s),
        "torchattacks_s": theirs,
        "engine_images": float(own.images),
        "full_schedule_images": float(full.images),
        "engine_standing": _standing(own.fallen),
        "full_schedule_standing": _standing(full.fallen),
        "torchattacks_standing": _standing(their_fallen),
        "differ_by_rounding": float(differing.sum()),
        "rounds": float(rounds),
    }
    prefix = f"{subject.name}, {attack}: "
    return [
        row(f"{prefix}full schedule / engine", paired_ratio(full_s, own_s), **detail),
        row(f"{prefix}torchattacks / engine", theirs / median(own_s), **detail),
    ]


def confirm_same_fate(subject: Subject, setting: schema.Attack, rows: Tensor) -> None:
    """Runs these samples, bool (N,), again in double precision, where the size of a batch can't turn a sign, and
    compares who falls here and under the full schedule.

    Raises:
        AssertionError: not the same.
    """
    if not bool(rows.any()):
        return
    double = subject.frozen.double()
    some = {name: getattr(subject, name)[rows] for name in ("pixels", "labels", "seeds")}
    few = replace(subject, module=double, **some)

    def model_fn(pixels: Tensor) -> Tensor:
        outputs: Tensor = double(pixels.double())
        return outputs

    own, full = engine(few, setting, model_fn), full_schedule(few, setting, model_fn)
    assert torch.equal(own.fallen, full.fallen), f"the engine's {setting.kind} fells other samples of {subject.name}"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is worth its name: a GPU, or a CPU with AMX."""
    flags = Path("/proc/cpuinfo")
    return device.type == "cuda" or (flags.exists() and "amx_bf16" in flags.read_text())


def _pgd(subject: Subject) -> list[Row]:
    """PGD over torchattacks' on the same frozen network, and over its passes alone; then the memory of both, each on
    the network as its user has it: frozen here, as it was loaded there."""
    frozen = subject.frozen
    own, theirs = _own_pgd(subject, frozen), _their_pgd(subject, frozen)
    with torch.random.fork_rng():
        taken = interleaved({"engine": own, "torchattacks": theirs, "floor": _floor(subject, frozen)}, PGD_ROUNDS)
        peaks = {
            "engine_bytes": peak_bytes(own, subject.device),
            "torchattacks_bytes": peak_bytes(_their_pgd(subject, subject.module), subject.device),
            "torchattacks_frozen_bytes": peak_bytes(theirs, subject.device),
        }
    seconds = {f"{name}_s": median(each) for name, each in taken.items()}
    detail = {"steps": float(PGD.steps), "batch": float(PGD_BATCH), "rounds": float(PGD_ROUNDS), **seconds}
    memory = peaks["engine_bytes"] / peaks["torchattacks_bytes"]
    prefix = f"{subject.name}, PGD-20: "
    return [
        row(f"{prefix}torchattacks / engine", paired_ratio(taken["torchattacks"], taken["engine"]), **detail),
        row(f"{prefix}engine / 20 x (forward + gradient)", paired_ratio(taken["engine"], taken["floor"]), **detail),
        row(f"{prefix}peak memory / torchattacks", memory, **{name: float(peak) for name, peak in peaks.items()}),
    ]


def _own_pgd(subject: Subject, model_fn: ModelFn) -> Callable[[], object]:
    attack = attacks.build(replace(PGD, eps_255=subject.eps_255))
    assert attack is not None
    pixels, labels, seeds = (each[:PGD_BATCH] for each in (subject.pixels, subject.labels, subject.seeds))
    return lambda: attack(model_fn, pixels, labels, CROSS_ENTROPY, seeds)


def _their_pgd(subject: Subject, module: nn.Module) -> Callable[[], object]:
    attack = torchattack(replace(PGD, eps_255=subject.eps_255), module)
    return lambda: attack(subject.pixels[:PGD_BATCH], subject.labels[:PGD_BATCH])


def _floor(subject: Subject, model_fn: ModelFn) -> Callable[[], object]:
    def passes() -> None:
        for _ in range(PGD.steps):
            input_gradient(model_fn, subject.pixels[:PGD_BATCH], subject.labels[:PGD_BATCH], CROSS_ENTROPY)

    return passes


def _memory(subject: Subject) -> list[Row]:
    """All stages at once, with their slots full, over one forward with its gradient plus some batches of images."""
    frozen, setting = subject.frozen, settings(subject.eps_255, TINY)["AutoAttack"]
    pixels, labels = subject.pixels[: subject.slots], subject.labels[: subject.slots]
    single = peak_bytes(lambda: input_gradient(frozen, pixels, labels, CROSS_ENTROPY), subject.device)
    peak = peak_bytes(lambda: engine(subject, setting, frozen), subject.device)
    allowed = single + IMAGE_BATCHES * pixels.nbytes
    detail = {"peak_bytes": float(peak), "pass_bytes": float(single), "batch_bytes": float(pixels.nbytes)}
    return [row(f"{subject.name}, AutoAttack: peak / (pass + 10 batches)", peak / allowed, **detail)]


def _bfloat16(plain: Subject, half: Subject) -> list[Row]:
    """What bfloat16 saves where float32 confirms every success, and what it costs in accuracy."""
    where = "GPU" if half.device.type == "cuda" else "CPU"
    speed, points = (
        f"{half.name}, AutoAttack: fp32 / bf16 on {where}",
        f"{half.name}, robust accuracy: bf16 - fp32, points",
    )
    pgd = f"{plain.name}, PGD-20: torchattacks / bf16 engine on {where}"
    if not has_fast_bfloat16(half.device):
        return [row(name, None) for name in (speed, points, pgd)]
    setting, frozen = settings(half.eps_255, SHORT)["AutoAttack"], half.frozen
    loops = {
        "fp32": lambda: engine(half, setting, frozen),
        "bf16": lambda: engine(half, setting, quick(frozen), frozen),
    }
    pairs = [{name: timed(loop) for name, loop in loops.items()} for _ in range(ROUNDS)]
    ratio = paired_ratio([each["fp32"][0] for each in pairs], [each["bf16"][0] for each in pairs])
    standing = {name: _standing(found.fallen) for name, (_, found) in pairs[0].items()}
    difference = 100 * abs(standing["bf16"] - standing["fp32"])
    detail = _described(half, SHORT) | {f"{name}_standing": share for name, share in standing.items()}
    plain_frozen = plain.frozen
    with torch.random.fork_rng():
        rivals = {"theirs": _their_pgd(plain, plain_frozen), "own": _own_pgd(plain, quick(plain_frozen))}
        taken = interleaved(rivals, PGD_ROUNDS)
    return [
        row(speed, ratio, **detail),
        row(points, difference, **detail),
        row(pgd, paired_ratio(taken["theirs"], taken["own"]), rounds=float(PGD_ROUNDS)),
    ]


def quick(module: nn.Module) -> ModelFn:
    """The network under bfloat16 autocast."""

    def model_fn(pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, torch.bfloat16):
            outputs: Tensor = module(pixels)
        return outputs.float()

    return model_fn


def _standing(fallen: Tensor) -> float:
    return 1.0 - float(fallen.float().mean())


def _described(subject: Subject, budget: Budget) -> dict[str, float]:
    common = {"samples": len(subject.labels), "slots": subject.slots, "eps_255": subject.eps_255}
    return {name: float(value) for name, value in (common | asdict(budget)).items()}
