"""What the engine `submitit` asks for: of a SLURM cluster, or of this machine in its place."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.compose import compose
from configs.errors import ConfigError
from experiments.sweep.checks import known, one_of
from experiments.sweep.spec import EXPERIMENT
from experiments.sweep.trial import Trial

KINDS = ("slurm", "local")
WARNING_S = 120  # between the cluster's warning and the end of a job: a step, and a checkpoint
REQUEUES = 1000  # time limits that one trial may run into


@dataclass(frozen=True)
class Cluster:
    """The section `slurm` of a sweep, or slurm.KEY=VALUE on the command line. None: the site's default.

    kind           where jobs are queued; None: SLURM where there is srun, this machine elsewhere.
    minutes        of one job. A trial that takes longer is queued again, and goes on.
    cpus_per_task  for each of a trial's processes.
    mem_gb         per node.
    setup          a shell command before each job, such as `module load cuda`.
    """

    kind: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    minutes: int = 240
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    setup: str | None = None

    @staticmethod
    def of(origin: str, section: Mapping[str, Any]) -> "Cluster":
        """Raises ConfigError for an unknown key, a value of the wrong type, a time that is none."""
        known(origin, "slurm.", section, [field.name for field in fields(Cluster)])
        try:
            cluster: Cluster = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Cluster), dict(section)))  # type: ignore[assignment]
        except OmegaConfBaseException as error:
            key = str(error.full_key)
            wanted = get_type_hints(Cluster)[key]
            raise ConfigError(f"slurm.{key} in {origin} must be {wanted}, got {section[key]!r}") from error
        if cluster.kind is not None:
            one_of(origin, "slurm.kind", cluster.kind, KINDS)
        if cluster.minutes < 1:
            raise ConfigError(f"slurm.minutes in {origin} must be 1 at least, got {cluster.minutes}")
        return cluster

    @property
    def where(self) -> Literal["slurm", "local"]:
        """The kind, found out where it is not given."""
        if self.kind is None:
            return "slurm" if shutil.which("srun") else "local"
        return "slurm" if self.kind == "slurm" else "local"

    def executor(self, folder: Path, name: str, needs: "Needs", at_a_time: int) -> Any:
        """submitit's executor for trials with these needs."""
        import submitit

        if self.where == "local":  # a task, in which Lightning starts the other processes
            local = submitit.LocalExecutor(folder)
            gpus = needs.devices if needs.gpus else 0
            local.update_parameters(timeout_min=self.minutes, gpus_per_node=gpus, signal_delay_s=WARNING_S)
            return local
        # The job itself is one process, which replaces the batch shell and takes its signals; the trial's commands are
        # srun's, with a task a device.
        slurm = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES, python=f"exec {sys.executable}")
        asked = {
            **{key: getattr(self, key) for key in ("partition", "account", "qos", "constraint", "cpus_per_task")},
            "mem": None if self.mem_gb is None else f"{self.mem_gb:g}GB",
            "setup": None if self.setup is None else [self.setup],
            "gpus_per_node": needs.devices if needs.gpus else None,
        }
        slurm.update_parameters(
            job_name=name,
            time=self.minutes,
            nodes=needs.nodes,
            ntasks_per_node=needs.devices,
            array_parallelism=at_a_time,
            use_srun=False,
            additional_parameters={"signal": f"B:USR2@{WARNING_S}", "requeue": True},
            **{key: value for key, value in asked.items() if value is not None},
        )
        return slurm

    @property
    def launcher(self) -> tuple[str, ...]:
        """What stands before a trial's commands within its job."""
        if self.where == "local":
            return ()
        cpus = () if self.cpus_per_task is None else (f"--cpus-per-task={self.cpus_per_task}",)  # not inherited
        return ("srun", "--kill-on-bad-exit=1", *cpus)


@dataclass(frozen=True)
class Needs:
    """Nodes and devices that a trial runs on, as its trainer section says."""

    nodes: int
    devices: int
    gpus: bool

    @staticmethod
    def of(trial: Trial) -> "Needs":
        """Those of the trial's experiment."""
        config = compose(str(trial.parameters[EXPERIMENT]), trial.overrides).config.trainer
        return Needs(config.nodes, config.devices, config.accelerator != "cpu")

    def __str__(self) -> str:
        kind = "GPUs" if self.gpus else "processes"
        return f"{self.nodes} nodes x {self.devices} {kind}"
