"""A model folder on the Hugging Face hub."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, UserError


class HubError(UserError):
    """The hub can't be reached, or refuses."""


def push(repository: str, folder: Callable[[], Path]) -> str:
    """Uploads a folder as one commit to a repository, and returns the commit's address. Where the repository is not
    there it is made, and is private.

    The token is huggingface_hub's own: of HF_TOKEN, or of an earlier `hf auth login`. It is never printed.

    Args:
        repository: ORGANISATION/NAME.
        folder: makes the folder; called once all is known to be in order.

    Raises:
        ConfigError: no token, or a repository's name that can't be one.
        HubError: the hub can't be reached, or refuses.
    """
    from huggingface_hub import HfApi, get_token

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        raise ConfigError(f"hf-hub:{repository} names no repository; write hf-hub:ORGANISATION/NAME")
    token = get_token()
    if token is None:
        raise ConfigError("there is no token for the Hugging Face hub; set HF_TOKEN, or run `hf auth login`")
    api: Any = HfApi(token=token)
    made = folder()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=made, commit_message="Model and card by ImmunoCLIP")
    except Exception as error:  # the hub's client and its transport raise dozens of kinds
        reason = _first_line(error).replace(token, "...")
        raise HubError(
            f"hf-hub:{repository} was not written ({reason}); check the token's rights and the network"
        ) from error
    return str(commit.commit_url)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
