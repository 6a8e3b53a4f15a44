"""Pictures: decoding and transforms on uint8, and the step to floats. Normalisation lives in the model."""

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from configs.errors import DataError

SHIFT = 4  # pixels
CROP_SCALE = (0.9, 1.0)  # of the area; CLIP was trained with it (open_clip's image_transform)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10
ORIENTATION = 0x0112  # of EXIF
BICUBIC = Image.Resampling.BICUBIC
NPY = b"\x93NUMPY"  # how a .npy file begins
FLIP = Image.Transpose.FLIP_LEFT_RIGHT


def to_float(image: Tensor) -> Tensor:
    """Pixels as contiguous float32 in [0, 1]; uint8 is scaled, floats keep their values."""
    if image.is_floating_point():
        return image.to(torch.float32, memory_format=torch.contiguous_format)
    return image.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


@dataclass(frozen=True)
class Transform:
    """Encoded bytes -> uint8 (H, W, 3), RGB; float (H, W, 3) in [0, 1] for pixels that are stored as floats.

    Args:
        image_size: side of the square that comes out; None keeps the stored pixels. Floats are never resized.
    """

    image_size: int | None = None

    def __call__(self, encoded: bytes, random: np.random.Generator | None = None) -> np.ndarray:
        """Decode and transform; with `random` a random crop and flip, without it the centre.

        Raises:
            DataError: the bytes are not a picture that can be decoded, or floats of another size than `image_size`.
        """
        if encoded.startswith(NPY):
            return self._exact(encoded, random)
        image = decode(encoded, self.image_size)
        if random is None:
            return np.asarray(image if self.image_size is None else centre_crop(image, self.image_size))
        if self.image_size is None:
            return _shift_and_flip(np.asarray(image), random)
        image = _random_crop(image, self.image_size, random)
        # Pillow's flip: a view of numpy's would be copied to its batch pixel by pixel, at ten times the time.
        return np.asarray(image.transpose(FLIP) if random.random() < 0.5 else image)

    def _exact(self, encoded: bytes, random: np.random.Generator | None) -> np.ndarray:
        pixels = decode_floats(encoded)
        if self.image_size is not None and pixels.shape[:2] != (self.image_size, self.image_size):
            size = "x".join(str(side) for side in pixels.shape[1::-1])
            raise DataError(
                f"the image is stored as floats of size {size}, which are never resized (data.image_size="
                f"{self.image_size} asks for it; set it to null, and the model resizes)"
            )
        return pixels if random is None else _shift_and_flip(pixels, random)


def decode_floats(encoded: bytes) -> np.ndarray:
    """Float (H, W, 3) in [0, 1] from the bytes of a .npy file. DataError where they hold anything else."""
    try:
        pixels = np.load(io.BytesIO(encoded), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"the image can't be decoded ({str(error).splitlines()[0]})") from error
    if pixels.dtype.kind != "f" or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(f"the image is an array {pixels.shape} of {pixels.dtype}, not floats of height x width x 3")
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise DataError("the image has values that are not in [0, 1]")
    return pixels


def decode(encoded: bytes, image_size: int | None = None) -> Image.Image:
    """RGB, upright by its EXIF orientation; transparent pixels are laid over white, 16-bit greys scaled to 8.

    A JPEG far larger than `image_size` is decoded at a half, quarter or eighth, never below twice that size.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(encoded))
        if image_size is not None:
            image.draft(None, (2 * image_size, 2 * image_size))
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return _rgb(image)
    except UnidentifiedImageError as error:  # whose text is of the object in memory
        raise DataError("the image can't be decoded (it is of no format that Pillow knows)") from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds, and document none
        raise DataError(
            f"the image can't be decoded ({str(error).splitlines()[0] if str(error) else error!r})"
        ) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size` (bicubic), then the central square: CLIP's preprocessing, rounded as torchvision does."""
    width, height = image.size
    shorter = min(width, height)
    width, height = int(size * width / shorter), int(size * height / shorter)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), BICUBIC).crop((left, top, left + size, top + size))


def _random_crop(image: Image.Image, size: int, random: np.random.Generator) -> Image.Image:
    width, height = image.size
    for _ in range(CROP_ATTEMPTS):
        area = width * height * random.uniform(*CROP_SCALE)
        ratio = math.exp(random.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            return image.resize((size, size), BICUBIC, box=(left, top, left + w, top + h))
    return centre_crop(image, size)


def _shift_and_flip(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    shifted = _shift(pixels, random)
    return shifted[:, ::-1] if random.random() < 0.5 else shifted


def _shift(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Move (H, W, 3) by up to SHIFT pixels; what comes in at the borders is their reflection."""
    height, width = pixels.shape[:2]
    margin = min(SHIFT, height - 1, width - 1)
    top, left = random.integers(0, 2 * margin + 1, size=2)
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    return padded[top : top + height, left : left + width]
