"""A model as shapes without bytes, run to see what its passes cost."""

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from open_clip.transformer import LayerNorm
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from configs.schema.trainer import TrainerConfig
from experiments.bench.memory import peak_bytes
from experiments.costs.flops import FlopCount
from experiments.costs.untrained import unset
from lightning_modules.backbones import Backbone
from lightning_modules.backbones.blocks import recomputed
from lightning_modules.backbones.freezing import eval_mode
from lightning_modules.backbones.text_tower import TextTower
from lightning_modules.backbones.tokens import embed_tokens

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pass:
    """What passes through a tower cost on one device.

    forward, backward  FLOPs of matrix products, convolutions and attention, 2 a multiply-add; all else is left out.
                       What gradient checkpointing computes again is in `backward`.
    bytes              at the worst moment, beyond what was there before; without scratch memory within an operation.
    """

    forward: int = 0
    backward: int = 0
    bytes: int = 0

    @property
    def flops(self) -> int:
        return self.forward + self.backward


@dataclass(frozen=True)
class Setting:
    """What decides the cost of a pass, beside its batch.

    gpu  whether it runs on one. GPUs compute norms in float32 under autocast.
    """

    model: str
    precision: str
    checkpointing: bool
    gpu: bool

    @classmethod
    def of(cls, model: str, trainer: TrainerConfig) -> "Setting":
        return cls(model, trainer.precision, trainer.gradient_checkpointing, trainer.accelerator != "cpu")


@cache
def blueprint(setting: Setting) -> "Blueprint":
    """The blueprint of a setting, made once in a process.

    Raises:
        ConfigError: there is no such model.
        CheckpointError: its configuration can't be had.
    """
    return Blueprint(unset(setting.model), setting)


class Blueprint:
    """A backbone whose tensors have shapes and no bytes, on which passes take no longer than their bookkeeping. Each is
    counted once.

    Shapes: B images, P prompts.

    width       of embeddings.
    text_width  of the text tower's features below its projection.
    context     tokens of a prompt.
    """

    def __init__(self, backbone: Backbone, setting: Setting) -> None:
        if setting.precision == "bf16-true":
            backbone = backbone.to(torch.bfloat16)
        self._setting, self._mode = setting, FakeTensorMode()
        self._known: dict[Hashable, Pass] = {}
        with FakeCopyMode(self._mode):
            self.backbone: Backbone = copy.deepcopy(backbone.channels_last())
        for layer in self.backbone.modules() if setting.gpu else ():
            if isinstance(layer, nn.LayerNorm | nn.GroupNorm):
                _as_on_a_gpu(layer)
        text = self.backbone.architecture["text_cfg"]
        self.width = int(self.backbone.architecture["embed_dim"])
        self.text_width, self.context = int(text.get("width", self.width)), int(text.get("context_length", 77))

    def input_gradient(self, batch: int) -> Pass:
        """A forward of B images, and the gradient of the pixels."""

        def run(forward_ends: Callable[[], None]) -> None:
            with self._autocast():
                pixels = self._pixels(batch).requires_grad_()
                outputs = self.backbone.embed_image(pixels).sum()
                forward_ends()
                torch.autograd.grad(outputs, pixels)

        return self._cost(("input gradient", batch), run)

    def training(self, batches: tuple[int, ...], tokens: bool, gradients_kept: bool) -> Pass:
        """A forward of each batch of B images, and one backward through all of them to the image tower's weights.

        Args:
            tokens: whether the tokens of the images are asked for as well.
            gradients_kept: whether the weights' gradients are there already.
        """

        def run(forward_ends: Callable[[], None]) -> None:
            with self._autocast():
                outputs = [self._embed(self._pixels(batch), tokens) for batch in batches]
            forward_ends()
            torch.autograd.backward(torch.stack([part.float().sum() for part in outputs]).sum())

        return self._cost(("training", batches, tokens, gradients_kept), run, gradients_kept)

    def contrastive(self, batch: int, gradients_kept: bool) -> Pass:
        """A forward of B images and B prompts in training mode, and a backward to the weights of both towers."""

        def run(forward_ends: Callable[[], None]) -> None:
            with self._autocast():
                images = self.backbone.embed_image(self._pixels(batch))
                captions = self._encode(self._captions(batch))
            forward_ends()
            torch.autograd.backward(images.sum() + captions.sum())

        self.backbone.train()
        try:
            return self._cost(("contrastive", batch, gradients_kept), run, gradients_kept)
        finally:
            self.backbone.eval()

    def texts(self, prompts: int) -> Pass:
        """A forward of P prompts, without a gradient."""

        def run(_: Callable[[], None]) -> None:
            with torch.no_grad(), self._autocast(), eval_mode(self.backbone):
                self._encode(self._captions(prompts))

        return self._cost(("texts", prompts), run)

    def text_attack(self, prompts: int) -> Pass:
        """A forward of P prompts, the gradient of their token embeddings, and a forward with these perturbed."""
        tower = TextTower(self.backbone)

        def run(_: Callable[[], None]) -> None:
            tokens = self._captions(prompts)
            shift = torch.zeros(*tokens.shape, self.text_width).requires_grad_()
            with self._autocast():
                torch.autograd.grad(tower.pooled(tokens, shift).sum(), shift)
                with torch.no_grad():
                    tower.pooled(tokens, shift)

        return self._cost(("text attack", prompts), run)

    def _encode(self, tokens: Tensor) -> Tensor:
        clip: Any = self.backbone.clip
        features: Tensor = clip.encode_text(tokens)
        return features

    def _embed(self, pixels: Tensor, tokens: bool) -> Tensor:
        if not tokens:
            return self.backbone.embed_image(pixels)
        pooled, places = embed_tokens(self.backbone.visual, self.backbone.normalise(pixels))
        return torch.cat([pooled.flatten(), places.flatten()])

    def _pixels(self, batch: int) -> Tensor:
        return torch.empty(batch, 3, self.backbone.image_size, self.backbone.image_size)

    def _captions(self, prompts: int) -> Tensor:
        return torch.zeros(prompts, self.context, dtype=torch.int64)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._setting.precision == "bf16-mixed")

    def _cost(self, key: Hashable, run: Callable[[Callable[[], None]], None], gradients_kept: bool = False) -> Pass:
        """Of what is run, which says when its forward ends; what never does is all forward."""
        if key not in self._known:
            with _whole_attention():
                self._known[key] = self._counted(run, gradients_kept)
        return self._known[key]

    def _counted(self, run: Callable[[Callable[[], None]], None], gradients_kept: bool) -> Pass:
        trained = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        again = recomputed(self.backbone.visual) if self._setting.checkpointing else nullcontext()
        forward: list[int] = []
        try:
            with self._mode, again, FlopCount() as flops:
                for parameter in trained if gradients_kept else ():
                    parameter.grad = torch.zeros_like(parameter)
                peak = peak_bytes(lambda: run(lambda: forward.append(flops.total)), CPU)
        finally:
            for parameter in trained:
                parameter.grad = None
        ahead = forward[0] if forward else flops.total
        return Pass(ahead, flops.total - ahead, peak)


@contextmanager
def _whole_attention() -> Iterator[None]:
    """Without the fused attention of inference, which is one operation that no counter looks into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _as_on_a_gpu(layer: nn.Module) -> None:
    """CUDA's autocast computes norms in float32, and so keeps their inputs in it; that of a CPU doesn't."""
    forward, casts_back = layer.forward, isinstance(layer, LayerNorm)

    def wide(features: Tensor) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return forward(features)
        found = forward(features.float())
        return found.to(features.dtype) if casts_back else found

    layer.forward = wide


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of all of them."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
