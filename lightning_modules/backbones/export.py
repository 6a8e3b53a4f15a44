"""A folder that open_clip opens: configuration, weights, tokenizer, model card."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from configs.errors import CheckpointError
from lightning_modules.backbones.backbone import Backbone
from lightning_modules.backbones.tokenizer import MERGES_FILE

HEAD_FILE = "hyperbolic_head.json"  # of models that compare by hyperbolic distance; open_clip leaves it alone
_WEIGHTS = "open_clip_model.safetensors"  # the first name that open_clip looks for


def export(backbone: Backbone, folder: Path, half: bool = False) -> Path:
    """Writes a model as `open_clip.create_model("local-dir:...")` reads it, with identical logits.

    The folder appears whole or not at all; an older one of the same name is replaced.

    Args:
        folder: the target.
        half: stores matrices as fp16, which halves the file. open_clip computes in fp32 from it, as `load_backbone`
            does; vectors (norms and their statistics) keep their precision.

    Returns:
        The folder.

    Raises:
        CheckpointError: the folder holds something else than a model, or can't be written.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "open_clip_config.json").is_file():
        raise CheckpointError(f"{folder} is not empty and holds no model; choose another folder to export to")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write(backbone, staging, half)
            _replace(folder, staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} can't be written ({error}); free some space or choose another folder"
        ) from error
    return folder


def _write(backbone: Backbone, folder: Path, half: bool) -> None:
    folder.chmod(0o755)  # mkdtemp's is for the owner alone
    config = {"model_cfg": backbone.architecture, "preprocess_cfg": backbone.preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    # Metadata as transformers and open_clip write it.
    save_file(_weights(backbone, half), folder / _WEIGHTS, metadata={"format": "pt"})
    if backbone.hyperbolic is not None:
        (folder / HEAD_FILE).write_text(json.dumps(backbone.hyperbolic.as_dict(), indent=2) + "\n")
    if backbone.immunity is not None:
        backbone.immunity.save(folder)
    if backbone.merges is not None:
        shutil.copyfile(backbone.merges, folder / MERGES_FILE)
    save_vocabulary: Any = getattr(backbone.tokenizer.encode, "save_pretrained", None)
    if save_vocabulary is not None:
        save_vocabulary(str(folder))
    (folder / "README.md").write_text(_card(backbone))
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors' files are, too


def _weights(backbone: Backbone, half: bool) -> dict[str, Tensor]:
    weights = {}
    for name, value in backbone.clip.state_dict().items():
        matrix = half and value.ndim > 1 and value.is_floating_point()
        # A copy, row-major: safetensors refuses shared storage and channels_last.
        weights[name] = value.detach().to("cpu", torch.float16 if matrix else value.dtype).contiguous().clone()
    return weights


def _replace(folder: Path, staging: Path) -> None:
    if folder.is_dir():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        os.replace(folder, old)  # onto an empty folder
        os.replace(staging, folder)
        shutil.rmtree(old)
    else:
        os.replace(staging, folder)


def _card(backbone: Backbone) -> str:
    return f"""---
library_name: open_clip
pipeline_tag: zero-shot-image-classification
---

# A CLIP model by ImmunoCLIP

{opening(backbone)}
The configuration of the run that made it lies beside this folder.
"""


def opening(backbone: Backbone) -> str:
    """For a model card: how large the model is, and how open_clip opens it, where FOLDER stands for the place."""
    parameters = sum(parameter.numel() for parameter in backbone.clip.parameters())
    vocabulary = f', bpe_path="FOLDER/{MERGES_FILE}"' if backbone.merges is not None else ""
    return f"""{parameters / 1e6:.1f} M parameters, pictures of {backbone.image_size} x {backbone.image_size}.

```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:FOLDER"{vocabulary})
```

FOLDER is where this lies; from the hub, `hf download REPOSITORY --local-dir FOLDER` brings it there.
"""
