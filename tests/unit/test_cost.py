"""What a plan says that training costs, against a training step that was run: within 15 % each, and mostly exact."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from configs.errors import ConfigError
from configs.schema import ExperimentConfig
from configs.schema.attack import PGD
from configs.schema.data import ClassificationData
from configs.schema.model import ModelConfig
from configs.schema.module import OptimConfig
from configs.schema.module import RobustFinetuning as RobustFinetuningConfig
from configs.schema.objective import PMGAFT, TRADES, Hierarchical, Hyperbolic, Objective, TeCoA, TextAttack
from configs.schema.trainer import TrainerConfig
from experiments.costs.accelerators import ACCELERATORS, Machine
from experiments.costs.blueprint import Setting, blueprint
from experiments.costs.cost import Cost, Texts, choose, training_cost
from lightning_modules.backbones import Backbone, load_backbone
from lightning_modules.backbones.blocks import recomputed
from lightning_modules.hierarchy import Forest, Tree
from lightning_modules.hyperbolic import fit_head
from lightning_modules.robust_finetuning import RobustFinetuning

BATCH, NEVER = 8, 10**9
CLASSES = tuple(f"thing number {index}" for index in range(8))
TREE = Tree("pairs", (CLASSES, CLASSES[:4], CLASSES[:2]), (tuple(i // 2 for i in range(8)), (0, 0, 1, 1)))
FOREST = Forest(CLASSES, (TREE,))
TEMPLATES = ("a {c}",)
OBJECTIVES = {
    "tecoa": TeCoA(),
    "trades": TRADES(),
    "pmg_aft": PMGAFT(),
    "hierarchical": Hierarchical(text_attack=TextAttack(prompts=4)),
    "per level": Hierarchical(adversary="per_level"),
}
Step = Callable[[], None]


@pytest.fixture(scope="module")
def small_vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`model.name` of a ViT at ViT-B/32's resolution and patches, of 4 narrow layers."""
    folder = tmp_path_factory.mktemp("small")
    tower = {"image_size": 224, "patch_size": 32, "layers": 4, "width": 256}
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    config = {"model_cfg": {"embed_dim": 128, "vision_cfg": tower, "text_cfg": text}, "preprocess_cfg": {"size": 224}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


@pytest.fixture(params=["mini", "small_vit"])
def model(request: pytest.FixtureRequest) -> str:
    """Convolutions with batch normalisation, and a transformer."""
    return "mini" if request.param == "mini" else str(request.getfixturevalue("small_vit"))


def configured(model: str, objective: Objective, **trainer: Any) -> ExperimentConfig:
    return ExperimentConfig(
        "cost",
        model=ModelConfig(model, "none"),
        data=ClassificationData(folder="none", batch_size=BATCH),
        module=RobustFinetuningConfig(objective=objective),
        attack=PGD(steps=3),
        trainer=TrainerConfig(accelerator="cpu", log_every=NEVER, **trainer),
    )


def predicted(config: ExperimentConfig) -> Cost:
    hierarchical = isinstance(config.module, RobustFinetuningConfig) and isinstance(
        config.module.objective, Hierarchical
    )
    count = len(FOREST.names if hierarchical else CLASSES)
    return training_cost(config, Texts(count, count), FOREST)


def training(config: ExperimentConfig) -> tuple[Backbone, Step]:
    """A real model and its step: attack, forward, backward, and the optimiser's. One step was made already."""
    assert isinstance(config.module, RobustFinetuningConfig)
    objective = config.module.objective
    backbone = load_backbone(config.model).channels_last()
    pixels = torch.rand(BATCH, 3, backbone.image_size, backbone.image_size)
    if isinstance(objective, Hierarchical):
        backbone.hyperbolic = fit_head(backbone, Hyperbolic(), pixels, CLASSES, TEMPLATES)
    module = RobustFinetuning(
        backbone, objective, config.attack, OptimConfig(),
        total_steps=10, forest=FOREST, templates=TEMPLATES, seed=0, log_every=NEVER,
    )  # fmt: skip
    module.setup("fit")
    module.on_fit_start()
    configured_optimizers: Any = module.configure_optimizers()
    optimizer = configured_optimizers["optimizer"]
    index = torch.arange(BATCH)
    batch = {"image": pixels, "label": index % len(CLASSES), "index": index, "valid": index >= 0, "key": [""] * BATCH}
    mixed = config.trainer.precision == "bf16-mixed"

    def step() -> None:
        again = recomputed(backbone.visual) if config.trainer.gradient_checkpointing else nullcontext()
        with again:
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                loss = module.training_step(batch, 0)
            torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    step()
    return backbone, step


def allocated(step: Step) -> int:
    """Bytes at the worst moment by torch's allocator, what was there before left out."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events: Any = found.profiler
    changes = sorted(
        (each.start_ns(), each.nbytes()) for each in events.kineto_results.events() if each.name() == "[memory]"
    )
    alive = worst = 0
    for _, change in changes:
        alive += change
        worst = max(worst, alive)
    return worst


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_flops_are_those_of_a_step(objective: Objective, model: str) -> None:
    """torch's own counter around the real step. The fused attention of inference hides from it, and is off."""
    config = configured(model, objective)
    _, step = training(config)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counted:
            step()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert predicted(config).total_flops == pytest.approx(counted.get_total_flops(), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        (TeCoA(), {}),
        (TeCoA(), {"precision": "bf16-mixed"}),
        (TeCoA(), {"gradient_checkpointing": True}),
        (TRADES(), {}),
        (PMGAFT(), {}),
        (Hierarchical(), {}),
    ],
    ids=lambda each: str(getattr(each, "kind", each)),
)
def test_memory_is_that_of_a_step(objective: Objective, settings: dict[str, Any], model: str) -> None:
    """By the allocator, which also sees what convolutions rearrange within an operation."""
    config = configured(model, objective, **settings)
    backbone, step = training(config)
    memory = predicted(config).memory
    weights = sum(each.nbytes for each in (*backbone.parameters(), *backbone.buffers()))
    assert memory.held["weights"] == pytest.approx(weights, rel=0.001)
    held = sum(memory.held.values())
    assert memory.peak == pytest.approx(held + allocated(step), rel=0.15)


def test_checkpointing_buys_memory_with_a_forward(small_vit: str) -> None:
    plain, again = (predicted(configured(small_vit, TeCoA(), gradient_checkpointing=on)) for on in (False, True))
    assert again.memory.phases["attack"] < 0.7 * plain.memory.phases["attack"]
    assert plain.total_flops < again.total_flops < plain.total_flops * 4 / 3


def test_ranks_share_the_batch_and_accumulation_repeats_it(small_vit: str) -> None:
    one = predicted(configured(small_vit, TeCoA()))
    two = predicted(configured(small_vit, TeCoA(), devices=2))
    four = predicted(configured(small_vit, TeCoA(), devices=2, accumulate=4))
    assert 2 * two.total_flops == pytest.approx(one.total_flops, rel=0.001)
    assert four.total_flops == 4 * two.total_flops
    assert "gradients" not in one.memory.held
    assert two.memory.held["gradients"] == four.memory.held["gradients"]


def test_ranks_share_perturbed_texts(small_vit: str) -> None:
    for prompts, each in ((8, 4), (5, 3)):
        two = predicted(configured(small_vit, Hierarchical(text_attack=TextAttack(prompts=prompts)), devices=2))
        one = predicted(configured(small_vit, Hierarchical(text_attack=TextAttack(prompts=each))))
        assert two.flops["texts"] == one.flops["texts"]


def test_sharding_divides_what_the_optimiser_keeps(small_vit: str) -> None:
    whole, shared = (
        predicted(configured(small_vit, TeCoA(), devices=4, strategy=how)).memory.held for how in ("ddp", "fsdp")
    )
    for name in ("gradients", "optimiser's state"):
        assert shared[name] == pytest.approx(whole[name] / 4, rel=0.001)
    assert shared["weights"] < whole["weights"]


def test_bf16_weights_take_half(small_vit: str) -> None:
    mixed, true = (
        predicted(configured(small_vit, TeCoA(), precision=name, ema=0.9)).memory
        for name in ("bf16-mixed", "bf16-true")
    )
    assert true.held["weights"] == pytest.approx(mixed.held["weights"] / 2, rel=0.001)
    assert true.held["moving average"] == mixed.held["moving average"]
    assert true.peak < mixed.peak


def test_a_large_model_takes_no_memory_to_plan() -> None:
    """ViT-L/14, whose forward is counted by hand: 24 blocks, the patches' convolution and the projection."""
    plan = blueprint(Setting("ViT-L-14", "bf16-mixed", checkpointing=False, gpu=True))
    choose(plan.backbone, configured("ViT-L-14", TeCoA()))
    assert sum(each.numel() for each in plan.backbone.parameters()) == 427_616_513
    layers, tokens, width = 24, 257, 1024
    by_hand = layers * (24 * tokens * width**2 + 4 * tokens**2 * width) + 2 * 256 * 3 * 14**2 * width + 2 * width * 768
    assert plan.input_gradient(1).forward == by_hand


def test_time_is_flops_over_the_rate_that_is_reached() -> None:
    assert Machine("a100", 0.5).seconds(312e12, "bf16") == pytest.approx(2.0)
    assert Machine("h100", 0.4).seconds(67e12, "fp32") == pytest.approx(2.5)
    assert all(each.bf16 > each.fp32 for each in ACCELERATORS.values())


@pytest.mark.parametrize(("gpu", "mfu", "part"), [("h10", 0.4, "did you mean 'h100'"), ("h100", 40.0, "at most 1")])
def test_a_machine_that_is_none(gpu: str, mfu: float, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        Machine(gpu, mfu)
