"""One drawing on a hard 64-pixel picture: background, clutter, placement, colour, occlusion, blur, noise.

Every choice comes from one generator, so a rendering is a pure function of (drawing, seed). The strengths below make
the benchmark: settled before any method was compared, and frozen under `VERSION`; a change is a new version.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datamodules.sources.openmoji.drawings import DRAWING_SIZE, as_array, drawing

VERSION = "1"
SIZE = 64  # pixels of a finished rendering


@dataclass(frozen=True)
class Difficulty:
    """Ranges that a rendering draws from. Lengths are shares of the picture's side."""

    scale: tuple[float, float]
    rotation_deg: float
    clutter: float  # shapes behind the drawing, at most
    occluders: float  # shapes before it, at most
    occluder_size: tuple[float, float]
    background: float  # spread of the background's colours
    opacity: tuple[float, float]
    saturation: tuple[float, float]
    hue_shift: float  # of the colour circle, either way
    blur: float  # pixels of the finished picture, standard deviation
    noise: float  # of the pixel range, standard deviation
    contrast: tuple[float, float]
    brightness: float


EASY = Difficulty(
    scale=(0.85, 0.98), rotation_deg=8.0, clutter=0.0, occluders=0.0, occluder_size=(0.08, 0.15), background=0.2,
    opacity=(1.0, 1.0), saturation=(0.9, 1.1), hue_shift=0.01, blur=0.0, noise=0.0, contrast=(0.95, 1.0),
    brightness=0.02,
)  # fmt: skip
HARD = Difficulty(
    scale=(0.42, 0.95), rotation_deg=35.0, clutter=5.0, occluders=3.0, occluder_size=(0.12, 0.36), background=0.6,
    opacity=(0.55, 1.0), saturation=(0.1, 1.3), hue_shift=0.06, blur=1.2, noise=0.11, contrast=(0.5, 1.1),
    brightness=0.15,
)  # fmt: skip


def between(strength: float) -> Difficulty:
    """EASY at 0, HARD at 1, linear in every range."""

    def mix(easy: Any, hard: Any) -> Any:
        if isinstance(easy, tuple):
            return tuple(mix(e, h) for e, h in zip(easy, hard, strict=True))
        return (1 - strength) * easy + strength * hard

    return Difficulty(**{f.name: mix(getattr(EASY, f.name), getattr(HARD, f.name)) for f in fields(Difficulty)})


def render(hexcode: str, rng: np.random.Generator, strength: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """A rendering of the drawing with this code point, (64, 64, 3) uint8, of a strength drawn from this range."""
    difficulty = between(rng.uniform(*strength))
    canvas = _background(rng, difficulty)
    _shapes(canvas, rng, difficulty.clutter, (0.1, 0.5))
    glyph = _recolour(as_array(_place(drawing(hexcode), rng, difficulty)), rng, difficulty)
    opacity = rng.uniform(*difficulty.opacity)
    picture = as_array(canvas)
    picture = picture * (1 - opacity * glyph[..., 3:]) + opacity * glyph[..., :3]
    front = Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8))
    _shapes(front, rng, difficulty.occluders, difficulty.occluder_size)
    return _degrade(front, rng, difficulty)


def _background(rng: np.random.Generator, difficulty: Difficulty) -> Image.Image:
    """A coarse random colour field, smooth or nearly flat."""
    cells = int(rng.integers(1, 6))
    base = rng.uniform(0, 1, 3)
    field = base + rng.uniform(0, difficulty.background) * rng.standard_normal((cells, cells, 3))
    coarse = Image.fromarray((field.clip(0, 1) * 255).astype(np.uint8))
    return coarse.resize((DRAWING_SIZE, DRAWING_SIZE), Image.Resampling.BICUBIC)


def _shapes(canvas: Image.Image, rng: np.random.Generator, most: float, size: tuple[float, float]) -> None:
    """Draw flat ellipses, boxes and bars at random places, in place."""
    pen = ImageDraw.Draw(canvas)
    for _ in range(round(rng.uniform(0, most))):
        width, height = rng.uniform(*size, 2) * DRAWING_SIZE
        x, y = rng.uniform(-0.1, 1.1, 2) * DRAWING_SIZE
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        match rng.integers(3):
            case 0:
                pen.ellipse(box, fill=colour)
            case 1:
                pen.rectangle(box, fill=colour)
            case _:
                pen.line(box, fill=colour, width=int(rng.integers(3, 12)))


def _place(glyph: Image.Image, rng: np.random.Generator, difficulty: Difficulty) -> Image.Image:
    """Scale, rotate, mirror and shift the drawing; most of it stays inside the picture."""
    side = rng.uniform(*difficulty.scale)
    angle = np.deg2rad(rng.uniform(-difficulty.rotation_deg, difficulty.rotation_deg))
    mirror = -1 if rng.random() < 0.5 else 1
    slack = max(0.0, 1 - side) / 2 + 0.06
    shift = rng.uniform(-slack, slack, 2) * DRAWING_SIZE
    cos, sin, half = np.cos(angle) / side, np.sin(angle) / side, DRAWING_SIZE / 2
    # Image.transform maps a pixel of the result to one of the source
    a, b, d, e = mirror * cos, mirror * sin, -sin, cos
    c = half - a * (half + shift[0]) - b * (half + shift[1])
    f = half - d * (half + shift[0]) - e * (half + shift[1])
    return glyph.transform(glyph.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)


def _recolour(glyph: np.ndarray, rng: np.random.Generator, difficulty: Difficulty) -> np.ndarray:
    """Rotate the hue and scale the saturation about the grey axis; alpha stays."""
    turn = 2 * np.pi * rng.uniform(-difficulty.hue_shift, difficulty.hue_shift)
    saturation = rng.uniform(*difficulty.saturation)
    grey = np.full((3, 3), 1 / 3)
    skew = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    chroma = np.cos(turn) * (np.eye(3) - grey) + np.sin(turn) * skew
    matrix = (grey + saturation * chroma).astype(np.float32)
    alpha = glyph[..., 3:]
    return np.concatenate([(glyph[..., :3] @ matrix.T).clip(0, alpha), alpha], axis=-1)


def _degrade(picture: Image.Image, rng: np.random.Generator, difficulty: Difficulty) -> np.ndarray:
    """Halve the picture, then blur, contrast, brightness and sensor noise."""
    small = picture.reduce(DRAWING_SIZE // SIZE).filter(ImageFilter.GaussianBlur(rng.uniform(0, difficulty.blur)))
    pixels = np.asarray(small, dtype=np.float32) / 255
    pixels = 0.5 + rng.uniform(*difficulty.contrast) * (pixels - 0.5)
    pixels += rng.uniform(-difficulty.brightness, difficulty.brightness)
    pixels += rng.uniform(0, difficulty.noise) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return (pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)
