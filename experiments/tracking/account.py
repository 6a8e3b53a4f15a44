"""Whether a W&B server can be used, looked up where wandb itself looks, without importing it."""

import netrc
import os
from typing import Any
from urllib.parse import urlparse

_SERVER = "https://api.wandb.ai"


def mode(wanted: str) -> Any:
    """wandb's own word for what the configuration says; `auto` heeds WANDB_MODE, then asks whether there is a key."""
    if wanted != "auto":
        return wanted
    return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")


def _has_key() -> bool:
    """Whether a key is configured where wandb itself looks: the environment, then netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", _SERVER)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
