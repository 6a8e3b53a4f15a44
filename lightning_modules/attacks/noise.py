"""Random numbers as a pure function of (seed, coordinate), so that a sample's noise depends on neither batch, rank nor
device, and no global generator is read or moved.

Seeds are mixed by splitmix64's finaliser (Steele, Lea & Flood 2014), coordinates by a 32-bit finaliser of the same
family (C. Wellons, "lowbias32") with the two halves of the mixed seed as keys: one before it, one in its middle.
"""

import math

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF


def derive(seed: int | Tensor, *counters: int | Tensor) -> Tensor:
    """Seeds for a purpose: `derive(run_seed, index, step)` gives each sample of a step its own.

    Integers and int64 tensors broadcast against each other. The order of the counters matters, and two samples that
    differ in one counter never get the same seed.

    Returns:
        int64, of the broadcast shape, on the tensors' device.
    """
    device = next((value.device for value in (seed, *counters) if isinstance(value, Tensor)), None)
    state = _mix64(_as_int64(seed, device))
    for counter in counters:
        state = _mix64(state + _as_int64(counter, device))
    return state


def uniform(seeds: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Independent uniforms in [-1, 1) on a grid of 2^-23, bit-equal on every device.

    Args:
        seeds: int64 (B,), one per sample.
        shape: the shape of one sample.

    Returns:
        float32 (B, *shape).
    """
    return (_bits24(seeds, shape, stream=0).float() * 2.0**-23).sub_(1.0)


def normal(seeds: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Independent standard normals (Box & Muller 1958), float32 (B, *shape); equal across devices up to rounding."""
    radius = (_bits24(seeds, shape, stream=1).float() + 1.0).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
    return uniform(seeds, shape).mul_(math.pi).cos_().mul_(radius)


def _bits24(seeds: Tensor, shape: torch.Size | tuple[int, ...], stream: int) -> Tensor:
    keys = derive(seeds, stream)[:, None]
    coordinates = torch.arange(math.prod(shape), dtype=torch.int32, device=seeds.device)
    bits = _mix32_(coordinates + _as_int32(keys), _as_int32(keys >> 32))
    return (bits >> 8).bitwise_and_(0xFFFFFF).view(seeds.shape[0], *shape)


def _mix64(state: Tensor) -> Tensor:
    state = state + _signed(0x9E3779B97F4A7C15, 64)
    state = (state ^ _shift(state, 30, 64)) * _signed(0xBF58476D1CE4E5B9, 64)
    state = (state ^ _shift(state, 27, 64)) * _signed(0x94D049BB133111EB, 64)
    return state ^ _shift(state, 31, 64)


def _mix32_(state: Tensor, key: Tensor) -> Tensor:
    """In place: the only buffers that are as large as the noise are this one and one temporary."""
    state.bitwise_xor_(_shift(state, 16, 32)).mul_(0x7FEB352D).bitwise_xor_(key)
    state.bitwise_xor_(_shift(state, 15, 32)).mul_(_signed(0x846CA68B, 32))
    return state.bitwise_xor_(_shift(state, 16, 32))


def _shift(state: Tensor, places: int, width: int) -> Tensor:
    """Logical right shift; torch's own copies the sign bit in."""
    return (state >> places).bitwise_and_((1 << (width - places)) - 1)


def _signed(constant: int, width: int) -> int:
    return constant - (1 << width) if constant >> (width - 1) else constant


def _as_int32(keys: Tensor) -> Tensor:
    """The low 32 bits, sign included, without an overflowing cast."""
    return (((keys & _LOW) ^ 0x80000000) - 0x80000000).to(torch.int32)


def _as_int64(value: int | Tensor, device: torch.device | None) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(torch.int64)
    return torch.full((), _signed(value % (1 << 64), 64), dtype=torch.int64, device=device)
