"""What one of several processes may use of a machine."""

import os
from pathlib import Path


def share(slot: int, jobs: int) -> dict[str, str]:
    """The environment of one of `jobs` processes: its share of the processor's threads, and its accelerators.

    Of G accelerators slot s has s, s + jobs, ...; where there are more jobs than accelerators they take turns.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = int(os.environ.get("OMP_NUM_THREADS") or cores)
    environment = {"OMP_NUM_THREADS": str(max(1, threads // jobs))}
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = _accelerators() if listed is None else [name for name in listed.split(",") if name]
    if devices:
        mine = devices[slot::jobs] or [devices[slot % len(devices)]]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    return environment


def _accelerators() -> list[str]:
    """Indices of NVIDIA's devices, without loading torch."""
    return sorted((path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")), key=int)
