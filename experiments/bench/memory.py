"""How much memory a computation needs at its peak, beyond what was there before."""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Bytes of all tensors alive at the worst moment of a run, those that were alive before it left out.

    On a CPU every tensor that an operation returns is counted from then on until it is freed, what autograd saves
    included; scratch memory within one operation is not seen. CUDA's allocator counts for itself.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return int(torch.cuda.max_memory_allocated()) - int(before)
    with _Ledger() as ledger:
        run()
    return ledger.peak


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that operations return, each storage once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for value in _tensors((*args, *kwargs.values())):
            self._known.add(value.untyped_storage())  # a view of it, returned below, is nothing new
        found = func(*args, **kwargs)
        for value in _tensors(found):
            self._enter(value.untyped_storage())
        self.peak = max(self.peak, self.alive)
        return found

    def _enter(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.alive += size
        weakref.finalize(storage, self._leave, size)

    def _leave(self, size: int) -> None:
        self.alive -= size


def _tensors(value: Any) -> Iterator[Tensor]:
    """What an operation takes or returns: a tensor, or tensors in sequences, among other things."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
