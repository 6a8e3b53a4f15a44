"""Where the ranks of a run come from."""

import os

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

PORTS = range(15000, 30000)


class SlurmStep(SLURMEnvironment):
    """A job step that `srun` started. Requeueing is the run's own affair.

    Lightning's port follows from the job alone, so that two steps of one job, such as the trials of a sweep within one
    allocation, meet at the same one. Here the step counts as well.
    """

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)

    @property
    def main_port(self) -> int:
        """MASTER_PORT where it is set; the same for every rank of a step, and another for the next ones."""
        job, step = (int(os.environ.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        os.environ.setdefault("MASTER_PORT", str(PORTS[(97 * job + step) % len(PORTS)]))
        return int(os.environ["MASTER_PORT"])


def cluster() -> list[ClusterEnvironment]:
    """SLURM's environment where `srun` started this process, and torchrun did not; Lightning finds every other."""
    within = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SlurmStep()] if within else []
