"""Typed configuration, one file a section. Defaults here are the lowest layer of every run."""

from configs.schema.experiment import ExperimentConfig

__all__ = ["ExperimentConfig"]
