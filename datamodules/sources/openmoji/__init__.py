"""The OpenMoji open-world benchmark, and the picture-caption pairs that the shipped mini CLIP learns from."""

from datamodules.sources.openmoji.packing import pack_openmoji

__all__ = ["pack_openmoji"]
