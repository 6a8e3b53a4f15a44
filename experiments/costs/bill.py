"""The cost of a training in words, for a plan."""

from configs.schema import ExperimentConfig
from configs.schema.module import RobustFinetuning
from experiments.costs.accelerators import GB, TERA, Machine, Precision
from experiments.costs.blueprint import Setting, blueprint
from experiments.costs.cost import Cost, Texts, training_cost
from lightning_modules.hierarchy import Forest

HOUR = 3600


Facts = list[tuple[str, str]]


def bill(config: ExperimentConfig, machine: Machine, texts: Texts | None, forest: Forest | None) -> Facts:
    """FLOPs and memory by their parts, and time, a line a fact."""
    cost = training_cost(config, texts, forest)
    return [
        *_compute(cost),
        *_encoding(config, texts),
        *_memory(cost, machine, config),
        *_time(cost, machine, config),
    ]


def measuring(config: ExperimentConfig, machine: Machine, forwards: int, backwards: int, samples: int | None) -> str:
    """What so many passes of the image tower come to: of a sample, and of all where their number is known."""
    once = blueprint(Setting.of(config.model.name, config.trainer)).input_gradient(1)
    flops = forwards * once.forward + backwards * once.backward
    told = f"{flop(flops)} a sample"
    if samples is None:
        return told
    bf16 = config.evaluation.precision == "bf16" or config.trainer.precision != "32-true"
    hours = machine.seconds(flops * samples, "bf16" if bf16 else "fp32") / HOUR
    return f"{told}; {hours:,.2g} GPU-hours for {samples:,}"


def _compute(cost: Cost) -> Facts:
    total = cost.total_flops
    what = "of matrix products, convolutions and attention, a step of the optimiser"
    parts = [(f"  {name}", f"{flop(flops)} ({flops / total:.1%})") for name, flops in cost.flops.items()]
    return [("compute per GPU", f"{flop(total)} {what}"), *parts]


def _encoding(config: ExperimentConfig, texts: Texts | None) -> Facts:
    """Of fine-tuning, whose texts go through their tower before the first step."""
    if not isinstance(config.module, RobustFinetuning):
        return []
    each = blueprint(Setting.of(config.model.name, config.trainer)).texts(1).flops
    if texts is None:
        return [("  text tower, once", f"{flop(each)} a prompt, of which packed data tells the number")]
    return [("  text tower, once", f"{flop(each * texts.prompts)}, of {texts.prompts:,} prompts")]


def _memory(cost: Cost, machine: Machine, config: ExperimentConfig) -> Facts:
    memory, capacity = cost.memory, machine.accelerator.memory
    verdict = "of the" if memory.peak < capacity else "MORE THAN the"
    compiled = "what torch.compile saves, " if config.trainer.compile != "none" else ""
    return [
        ("memory per GPU", f"{size(memory.peak)} at the worst moment, {verdict} {size(capacity)} of {machine.gpu}"),
        *((f"  {name}", size(held)) for name, held in memory.held.items()),
        *(
            (f"  and in the {name}", size(each) + (", the worst moment" if name == memory.worst else ""))
            for name, each in memory.phases.items()
        ),
        ("  not counted", f"{compiled}CUDA's context, workspaces of cuBLAS and cuDNN, fragmentation: 1 or 2 GB"),
    ]


def _time(cost: Cost, machine: Machine, config: ExperimentConfig) -> Facts:
    trainer = config.trainer
    precision: Precision = "fp32" if trainer.precision == "32-true" else "bf16"
    step = machine.seconds(cost.total_flops, precision)
    hours, ranks = step * trainer.steps / HOUR, trainer.devices * trainer.nodes
    rate = f"{machine.accelerator.peak(precision) / TERA:g} TFLOP/s, its dense {precision} rate"
    return [
        (f"time on {ranks} x {machine.gpu}", f"{duration(hours)}, {step:.3g} s a step; {hours * ranks:,.3g} GPU-hours"),
        ("  assumed", f"{machine.mfu:.0%} of {rate}; no waiting for data or other ranks, no validation"),
    ]


def flop(count: float) -> str:
    """With a unit."""
    return f"{count / TERA:,.3f} TFLOP" if count >= 0.1 * TERA else f"{count / 1e9:,.3g} GFLOP"


def size(count: float) -> str:
    """Bytes, with a unit."""
    return f"{count / GB:,.2f} GB" if count >= 0.1 * GB else f"{count / 1e6:,.3g} MB"


def duration(hours: float) -> str:
    """With a unit."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * HOUR:.1f} s"
