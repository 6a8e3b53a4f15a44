"""What the system says of processes, and does with them."""

import ctypes
import os
import sys

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


def alive(pid: int) -> bool:
    """Whether there is a process of this number on this machine, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def end_with_parent(number: int) -> None:
    """On Linux: this process gets the signal `number` when its parent ends, however that ends. Nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, number)
