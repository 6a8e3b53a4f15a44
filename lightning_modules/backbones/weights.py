"""What the weights of a model are, in one word."""

import hashlib

import torch
from torch import nn


def weights_digest(module: nn.Module) -> str:
    """sha256 over the names and the bytes of all weights and buffers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
