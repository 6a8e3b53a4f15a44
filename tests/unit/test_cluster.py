"""Ranks that SLURM started: who they are, who requeues them, and where they meet."""

import pytest
from lightning.pytorch import Trainer

from experiments.cluster import PORTS, SlurmStep, cluster

STEP = {
    "SLURM_JOB_ID": "4242", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "sweep", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NODELIST": "localhost",
}  # fmt: skip


@pytest.fixture(autouse=True)
def slurm(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A job step of one task."""
    for name in ("MASTER_PORT", "MASTER_ADDR"):
        monkeypatch.setenv(name, "")  # so that what is set within the test is undone
        monkeypatch.delenv(name)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_trainer_within_a_job_step_is_a_rank_that_is_not_requeued_by_lightning() -> None:
    trainer = Trainer(accelerator="cpu", devices=1, strategy="ddp", plugins=cluster(), logger=False)
    environment = trainer.strategy.cluster_environment
    assert isinstance(environment, SlurmStep)
    assert not environment.auto_requeue
    assert environment.creates_processes_externally
    assert (environment.world_size(), environment.global_rank(), environment.local_rank()) == (1, 0, 0)


def test_steps_of_one_job_meet_at_different_ports(slurm: pytest.MonkeyPatch) -> None:
    ports = []
    for job, step in (("4242", "0"), ("4242", "1"), ("4243", "0"), ("14242", "0")):
        slurm.setenv("SLURM_JOB_ID", job)
        slurm.setenv("SLURM_STEP_ID", step)
        slurm.delenv("MASTER_PORT", raising=False)
        ports.append(SlurmStep().main_port)
        assert SlurmStep().main_port == ports[-1]  # every rank's
    assert len(set(ports)) == 4
    assert all(port in PORTS for port in ports)


def test_a_port_that_is_set_stays(slurm: pytest.MonkeyPatch) -> None:
    slurm.setenv("MASTER_PORT", "23456")
    assert SlurmStep().main_port == 23456


def test_a_person_at_a_prompt_and_torchrun_come_first(slurm: pytest.MonkeyPatch) -> None:
    assert cluster()
    slurm.setenv("SLURM_JOB_NAME", "interactive")
    assert not cluster()
    slurm.setenv("SLURM_JOB_NAME", "sweep")
    for name in ("GROUP_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        slurm.setenv(name, "1")
    assert not cluster()
