"""Options of training that change what it costs: what they leave alone, and what they save."""

import copy
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import timm
import torch
from conftest import tiny_model
from torch import Tensor, nn

from configs.errors import ConfigError
from configs.schema.attack import PGD
from configs.schema.model import ModelConfig
from configs.schema.module import OptimConfig
from configs.schema.objective import FARE, Hyperbolic
from experiments.bench.memory import peak_bytes
from lightning_modules.backbones import load_backbone
from lightning_modules.backbones.blocks import blocks, compiled, recomputed
from lightning_modules.backbones.freezing import freeze_text
from lightning_modules.ema import MovingAverage, learnt
from lightning_modules.heads import classify
from lightning_modules.hierarchy import Forest
from lightning_modules.hyperbolic import fit_head
from lightning_modules.precision import Bfloat16
from lightning_modules.robust_finetuning import RobustFinetuning

CLASSES = ("red square", "green disc", "blue square")
TOWERS = ("tiny_vit", "tiny_resnet", "timm_convnext", "timm_resnet")
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("c++") is None, reason="torch.compile wants a compiler"
)


@pytest.fixture(scope="module")
def timm_convnext(tmp_path_factory: pytest.TempPathFactory) -> str:
    tower = {"timm_model_name": "convnext_atto", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32}
    return tiny_model(tmp_path_factory.mktemp("timm_convnext"), tower)


@pytest.fixture(scope="module")
def timm_resnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    tower = {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32}
    return tiny_model(tmp_path_factory.mktemp("timm_resnet"), tower)


def pixels(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def batch() -> dict[str, Any]:
    return {
        "image": pixels(),
        "label": torch.tensor([0, 1, 2, 0]),
        "valid": torch.ones(4, dtype=torch.bool),
        "index": torch.arange(4),
        "key": list("abcd"),
    }


def on_cpu(visual: nn.Module) -> AbstractContextManager[None]:
    return compiled(visual, torch.device("cpu"))


def step(name: str, within: Any = None, compiling: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of a training step, attack included."""
    backbone = load_backbone(ModelConfig(name))
    trained = RobustFinetuning(
        backbone, FARE(clean_weight=1.0), PGD(steps=2), OptimConfig(), total_steps=10, forest=Forest(CLASSES),
        templates=("a {c}",), seed=3, log_every=10**6, compiled=compiling,
    )  # fmt: skip
    trained.setup("fit")
    trained.on_fit_start()
    way: AbstractContextManager[None] = within(backbone.visual) if within else nullcontext()
    with way:
        loss = trained.training_step(batch(), 0)
        loss.backward()
    gradients = {key: weight.grad for key, weight in backbone.visual.named_parameters() if weight.grad is not None}
    return loss.detach(), gradients


@pytest.mark.parametrize("tower", TOWERS)
def test_computing_blocks_twice_changes_no_number(tower: str, request: pytest.FixtureRequest) -> None:
    name = request.getfixturevalue(tower)
    (loss, gradients), (again, twice) = step(name), step(name, recomputed)
    assert torch.equal(loss, again)
    assert gradients.keys() == twice.keys()
    assert all(torch.equal(gradients[key], twice[key]) for key in gradients)


@pytest.mark.parametrize(("architecture", "share"), [("vit_tiny_patch16_224", 0.3), ("resnet18", 0.9)])
def test_computing_blocks_twice_saves_memory_in_attacks_and_in_training(architecture: str, share: float) -> None:
    tower = timm.create_model(architecture, **({"img_size": 48} if "vit" in architecture else {})).eval()
    pictures = torch.rand(4, 3, 48, 48).requires_grad_()

    def attack() -> Tensor:
        return torch.autograd.grad(tower(pictures).square().sum(), pictures)[0]

    def kept() -> Tensor:  # for the gradients of weights
        return tower(pictures.detach())

    gradient = attack()
    whole = [peak_bytes(run, torch.device("cpu")) for run in (attack, kept)]
    with recomputed(tower):
        assert torch.equal(attack(), gradient)
        found = [peak_bytes(run, torch.device("cpu")) for run in (attack, kept)]
    assert all(less < share * more for less, more in zip(found, whole, strict=True)), (found, whole)


def test_blocks_are_as_they_were_and_copies_are_whole(tiny_vit: str) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit)).eval()
    kinds = [type(block) for block in blocks(backbone.visual)]
    with recomputed(backbone.visual):
        other = copy.deepcopy(backbone)
        with torch.no_grad():
            blocks(other.visual)[0].get_parameter("ln_1.weight").mul_(2)
        assert not torch.allclose(other.embed_image(pixels()), backbone.embed_image(pixels()))
    assert [type(block) for block in blocks(backbone.visual)] == kinds


def test_statistics_that_are_trained_are_not_moved_twice(tiny_resnet: str, tiny_vit: str) -> None:
    visual = load_backbone(ModelConfig(tiny_resnet)).train().visual
    with pytest.raises(ConfigError, match="statistics of batch normalisation"), recomputed(visual):
        pass
    with recomputed(load_backbone(ModelConfig(tiny_vit)).train().visual):
        pass


def test_towers_of_another_make_are_refused() -> None:
    for way in (recomputed, on_cpu):
        with pytest.raises(ConfigError, match="blocks of this model's image tower"), way(nn.Linear(2, 2)):
            pass


@needs_compiler
@pytest.mark.slow
def test_compiled_blocks_train_alike(tiny_vit: str) -> None:
    """Through an attack's gradients, too; and are as before afterwards."""
    (loss, gradients), (again, found) = step(tiny_vit), step(tiny_vit, on_cpu, compiling=True)
    torch.testing.assert_close(again, loss, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == found.keys()
    for key in gradients:
        torch.testing.assert_close(found[key], gradients[key], rtol=1e-3, atol=1e-4)


def test_what_training_changes_is_trained_weights_and_statistics(tiny_resnet: str) -> None:
    """And nothing that is made anew with each model, such as the infinities of a mask, which have no average."""
    backbone = load_backbone(ModelConfig(tiny_resnet))
    freeze_text(backbone)
    found = learnt(backbone)
    counts = ("num_batches_tracked",)
    assert found.keys() == {name for name in backbone.state_dict() if ".visual." in name and not name.endswith(counts)}
    assert any(name.endswith("running_mean") for name in found)
    assert all(value.isfinite().all() for value in found.values())


def test_without_a_compiler_one_is_asked_for(tiny_vit: str) -> None:
    settings = {"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}
    visual = load_backbone(ModelConfig(tiny_vit)).visual
    torch.compiler.reset()
    with (
        torch._inductor.config.patch(settings),
        pytest.raises(ConfigError, match=r"trainer\.compile=default finds nothing to compile with"),
        on_cpu(visual),
    ):
        pass


def test_bfloat16_is_for_towers_alone(tiny_vit: str) -> None:
    """Head, temperature and normalisation keep every bit, batches too."""
    backbone = load_backbone(ModelConfig(tiny_vit)).eval()
    backbone.hyperbolic = fit_head(backbone, Hyperbolic(), pixels(), CLASSES, ("a {c}",))
    other, plugin = copy.deepcopy(backbone), Bfloat16()
    plugin.convert_module(other)
    assert {weight.dtype for weight in other.visual.parameters()} == {torch.bfloat16}
    assert other.embed_text(["a"]).dtype == other.embed_image(pixels()).dtype == torch.float32
    assert torch.equal(other.logit_scale, backbone.logit_scale)
    assert torch.equal(other.normalise(pixels()), backbone.normalise(pixels()))
    assert plugin.convert_input(images := pixels()) is images
    assert other.hyperbolic is not None
    assert all(
        torch.equal(one, two)
        for one, two in zip(other.hyperbolic.parameters(), backbone.hyperbolic.parameters(), strict=True)
    )
    with plugin.forward_context():
        assert torch.zeros(()).dtype == torch.float32


def test_a_hyperbolic_head_is_exact_under_autocast(tiny_vit: str) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit)).eval()
    head = fit_head(backbone, Hyperbolic(), pixels(), CLASSES, ("a {c}",))
    with torch.no_grad():
        embeddings, prompts = backbone.embed_image(pixels()), backbone.embed_text(CLASSES)[:, None]
        exact = classify(head, embeddings, head.texts(prompts))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(classify(head, embeddings, head.texts(prompts)), exact)


@pytest.mark.parametrize("decay", [0.05, 0.9])
def test_a_moving_average_is_that_of_a_literal_loop(decay: float) -> None:
    """In float32, also of weights in bfloat16, whose own precision would lose the updates."""
    drawn = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    average = MovingAverage({"w": drawn[0]}, decay)
    expected = drawn[0].double()
    for count in range(1, 30):
        average.update({"w": drawn[count]}, count)
        kept = min(decay, (1 + count) / (10 + count))
        expected = kept * expected + (1 - kept) * drawn[count].double()
    torch.testing.assert_close(average.state_dict()["w"].double(), expected, rtol=1e-5, atol=1e-6)


def test_a_moving_average_goes_on_from_its_state() -> None:
    drawn = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    whole, first = MovingAverage({"w": drawn[0]}, 0.9), MovingAverage({"w": drawn[0]}, 0.9)
    for count in range(1, 9):
        whole.update({"w": drawn[count]}, count)
        if count < 5:
            first.update({"w": drawn[count]}, count)
    second = MovingAverage({"w": drawn[4]}, 0.9)
    second.load_state_dict(first.state_dict())
    for count in range(5, 9):
        second.update({"w": drawn[count]}, count)
    assert torch.equal(second.averages["w"], whole.averages["w"])
