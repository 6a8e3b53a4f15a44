import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from configs.errors import DataError
from datamodules.images import SHIFT, Transform, decode, to_float


def encoded(image: Image.Image, form: str = "png", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_stored_pixels_are_left_alone() -> None:
    image = noise(13, 7)
    np.testing.assert_array_equal(Transform()(encoded(image)), np.asarray(image))


@settings(max_examples=30, deadline=None)
@given(width=st.integers(5, 90), height=st.integers(5, 90), size=st.integers(3, 40))
def test_centre_crop_is_clips_preprocessing(width: int, height: int, size: int) -> None:
    image = noise(width, height)
    reference = v2.Compose([v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(size)])
    np.testing.assert_array_equal(Transform(size)(encoded(image)), np.asarray(reference(image)))


def test_grey_palette_and_alpha_become_rgb() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(Transform()(encoded(Image.fromarray(grey)))[..., 1], grey)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(Transform()(encoded(deep))[..., 2], grey)
    palette = noise(8, 8).quantize(16)
    np.testing.assert_array_equal(Transform()(encoded(palette)), np.asarray(palette.convert("RGB")))
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert (Transform()(encoded(clear)) == 255).all()
    solid = Image.new("RGBA", (4, 4), (10, 20, 30, 255))
    assert (Transform()(encoded(solid)) == (10, 20, 30)).all()


def test_exif_orientation_is_applied() -> None:
    image = noise(12, 5)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise when shown
    turned = Transform()(encoded(image, exif=exif))
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(image), k=-1))


def test_large_jpegs_are_decoded_smaller_but_not_below_twice_the_size() -> None:
    large = encoded(noise(800, 640), "jpeg")
    assert decode(large).size == (800, 640)
    shorter = min(decode(large, 64).size)
    assert 128 <= shorter < 640
    assert decode(large, 400).size == (800, 640)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"not a picture", encoded(noise(40, 40))[:300]])
def test_undecodable(content: bytes) -> None:
    with pytest.raises(DataError, match="can't be decoded") as caught:
        Transform()(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [None, 10])
def test_augmentation_depends_on_its_generator_alone(size: int | None) -> None:
    image = encoded(noise(16, 16))
    drawn = [Transform(size)(image, np.random.default_rng(seed)) for seed in range(8)]
    again = [Transform(size)(image, np.random.default_rng(seed)) for seed in range(8)]
    for first, second in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(first, second)
    assert len({picture.tobytes() for picture in drawn}) > 4


def test_small_pictures_are_shifted_and_flipped() -> None:
    image = noise(16, 16)
    padded = np.pad(np.asarray(image), ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="reflect")
    places = range(2 * SHIFT + 1)
    windows = {padded[top : top + 16, left : left + 16].tobytes() for top in places for left in places}
    flipped = 0
    for seed in range(40):
        picture = Transform()(encoded(image), np.random.default_rng(seed))
        upright, mirrored = picture.tobytes() in windows, picture[:, ::-1].tobytes() in windows
        assert upright != mirrored
        flipped += mirrored
    assert 8 < flipped < 32


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 9), (3, 1)])
def test_tiny_pictures_survive(width: int, height: int) -> None:
    for seed in range(4):
        assert Transform()(encoded(noise(width, height)), np.random.default_rng(seed)).shape == (height, width, 3)
        assert Transform(5)(encoded(noise(width, height)), np.random.default_rng(seed)).shape == (5, 5, 3)


def test_to_float() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 8, 32, 1).expand(2, 8, 32, 3).permute(0, 3, 1, 2)
    floats = to_float(pixels)
    assert floats.dtype == torch.float32
    assert floats.is_contiguous()
    assert (floats.min(), floats.max()) == (0, 1)
    torch.testing.assert_close((floats * 255).round().to(torch.uint8), pixels)
    assert to_float(floats) is floats
