"""The adversarial training step over what it can't do without, and the hierarchical objective's over TeCoA's; how much
of the machine's rate for matrix products it reaches, and whether a plan's FLOPs tell the times of other objectives.

The optimiser's step, which no loop can save, is in none of them.
"""

from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema import ExperimentConfig
from configs.schema.attack import PGD
from configs.schema.data import ClassificationData
from configs.schema.model import ModelConfig
from configs.schema.module import OptimConfig
from configs.schema.module import RobustFinetuning as RobustFinetuningConfig
from configs.schema.objective import TRADES, Hierarchical, Hyperbolic, Objective, TeCoA, TextAttack
from configs.schema.trainer import TrainerConfig
from experiments.bench.rounds import interleaved, paired_ratio
from experiments.bench.table import Row
from experiments.bench.targets import row
from experiments.costs.cost import Texts, training_cost
from experiments.costs.untrained import untrained
from lightning_modules.hierarchy import Forest, Tree
from lightning_modules.hyperbolic import fit_head
from lightning_modules.robust_finetuning import RobustFinetuning

MODEL = "ViT-B-32"
BATCH, STEPS, REPEATS = 8, 2, 7
CLASSES = tuple(f"thing number {index}" for index in range(32))
TEMPLATES = ("a photo of a {c}",)
PAIRS = Tree(
    "pairs",
    tuple(CLASSES[:size] for size in (32, 16, 8, 4, 2)),
    tuple(tuple(i // 2 for i in range(size)) for size in (32, 16, 8, 4)),
)
PRODUCT = 2048  # rows and columns
PRODUCT_FLOPS = 2 * PRODUCT**3
NEVER = 10**9  # steps between two reports
PERTURBED = 2  # prompts a step: a quarter of the batch, as in the recipes


def measure() -> list[Row]:
    """Interleaved repeats of every loop on one model, compared within each."""
    bench = _Bench(TeCoA())
    level, texts = _Bench(Hierarchical()), _Bench(Hierarchical(text_attack=TextAttack(prompts=PERTURBED)))
    trades = _Bench(TRADES())
    loops: dict[str, Callable[[], object]] = {
        "step": bench.step,
        "TRADES": trades.step,
        "matrix product": bench.product,
        "hierarchical": level.step,
        "hierarchical, texts perturbed": texts.step,
        "floor, trainable": lambda: bench.floor(frozen=False),
        "floor, frozen": lambda: bench.floor(frozen=True),
        "usual": bench.usual,
    }
    seconds = interleaved(loops, REPEATS)
    medians = {name: median(taken) for name, taken in seconds.items()}
    floor = min("floor, trainable", "floor, frozen", key=lambda name: medians[name])
    detail = {f"{name}_s": taken for name, taken in medians.items()}
    over = {
        "adversarial training step / its floor": ("step", floor),
        "the usual loop (text tower and parameter gradients) / floor": ("usual", floor),
        "hierarchical step / TeCoA step": ("hierarchical", "step"),
        "hierarchical step with perturbed texts / TeCoA step": ("hierarchical, texts perturbed", "step"),
    }
    ratios = [row(name, paired_ratio(seconds[one], seconds[other]), **detail) for name, (one, other) in over.items()]
    return [
        *ratios,
        row("MFU of the step", bench.flops / PRODUCT_FLOPS * paired_ratio(seconds["matrix product"], seconds["step"])),
        _predicted("TRADES step", trades.flops / bench.flops, paired_ratio(seconds["step"], seconds["TRADES"])),
        _predicted(
            "hierarchical step", level.flops / bench.flops, paired_ratio(seconds["step"], seconds["hierarchical"])
        ),
    ]


def _predicted(name: str, flops: float, seconds: float) -> Row:
    """How far off the time is that a plan would give a step, with the MFU of TeCoA's.

    Args:
        flops: as counted before the run, over TeCoA's.
        seconds: TeCoA's, over the step's.
    """
    return row(
        f"{name}: |planned / measured time - 1|", abs(flops * seconds - 1), planned_over_measured=flops * seconds
    )


class _Bench:
    """One model, one batch, and the loops over them. B images, K classes, D dimensions."""

    def __init__(self, objective: Objective) -> None:
        backbone = untrained(MODEL)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.attack = PGD(steps=STEPS, eps_255=4.0, step_255=2.0)
        self.module = RobustFinetuning(
            backbone,
            objective,
            self.attack,
            OptimConfig(),
            total_steps=1000,
            forest=Forest(CLASSES, (PAIRS,)),
            templates=TEMPLATES,
            seed=0,
            log_every=NEVER,
        ).to(device)
        self.pixels = torch.rand(BATCH, 3, backbone.image_size, backbone.image_size, device=device)
        if isinstance(objective, Hierarchical):
            backbone.hyperbolic = fit_head(backbone, Hyperbolic(), self.pixels, CLASSES, TEMPLATES)
        self.matrix = torch.rand(PRODUCT, PRODUCT, device=device)
        self.module.setup("fit")
        self.module.on_fit_start()
        self.backbone = backbone
        self.labels = torch.arange(BATCH, device=device) % len(CLASSES)
        self.batch = {
            "image": self.pixels,
            "label": self.labels,
            "index": torch.arange(BATCH, device=device),
            "valid": torch.ones(BATCH, dtype=torch.bool, device=device),
            "key": [str(index) for index in range(BATCH)],
        }

    @property
    def flops(self) -> int:
        """Of the step, counted without running it."""
        config = ExperimentConfig(
            "bench",
            model=ModelConfig(MODEL, "none"),
            data=ClassificationData(folder="none", batch_size=BATCH),
            module=RobustFinetuningConfig(objective=self.module.objective_config),
            attack=self.attack,
            trainer=TrainerConfig(log_every=NEVER),
        )
        texts = len(self.module.forest.names if self.backbone.hyperbolic else CLASSES) * len(TEMPLATES)
        return training_cost(config, Texts(texts, texts), self.module.forest).total_flops

    def product(self) -> Tensor:
        """A large matrix product, the best that the machine can do."""
        return self.matrix @ self.matrix

    def step(self) -> None:
        """This project's training step and its backward."""
        self.module.zero_grad()
        torch.autograd.backward(self.module.training_step(self.batch, 0))

    def floor(self, frozen: bool) -> None:
        """STEPS x (forward + gradient of the pixels) + (forward + full backward), and nothing else."""
        visual = self.backbone.visual
        visual.zero_grad()
        visual.requires_grad_(not frozen)
        for _ in range(STEPS):
            pixels = self.pixels.clone().requires_grad_()
            torch.autograd.grad(visual(pixels).sum(), pixels)
        visual.requires_grad_(True)
        torch.autograd.backward(visual(self.pixels).sum())

    def usual(self) -> None:
        """As the loops of published repositories do: the text tower in every pass, `backward` into all parameters."""
        self.backbone.requires_grad_(True)
        delta = torch.zeros_like(self.pixels, requires_grad=True)
        for _ in range(STEPS):
            torch.autograd.backward(self._loss(self.pixels + delta))
            assert delta.grad is not None
            moved = (delta.detach() + 2 / 255 * delta.grad.sign()).clamp(-4 / 255, 4 / 255)
            delta = ((self.pixels + moved).clamp(0, 1) - self.pixels).requires_grad_()
        self.backbone.zero_grad()
        torch.autograd.backward(self._loss(self.pixels + delta.detach()))
        self.backbone.zero_grad()
        self.backbone.clip.requires_grad_(False)
        self.backbone.visual.requires_grad_(True)

    def _loss(self, pixels: Tensor) -> Tensor:
        prompts = [template.replace("{c}", name) for name in CLASSES for template in TEMPLATES]
        texts = F.normalize(self.backbone.embed_text(prompts), dim=-1)
        images = F.normalize(self.backbone.embed_image(pixels), dim=-1)
        return F.cross_entropy(self.backbone.logit_scale * images @ texts.T, self.labels)
