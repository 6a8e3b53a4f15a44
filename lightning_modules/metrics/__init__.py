"""Metrics over batches and processes. States are sums or concatenations over valid samples, never means of means."""

from lightning_modules.metrics.accuracy import Accuracy, Count
from lightning_modules.metrics.bootstrap import auroc_interval
from lightning_modules.metrics.hierarchical import Consistency, LevelAccuracy, TreeErrors
from lightning_modules.metrics.ood_detection import OODDetection
from lightning_modules.metrics.selective import aurc, h_score, open_set_accuracy

__all__ = [
    "Accuracy", "Consistency", "Count", "LevelAccuracy", "OODDetection", "TreeErrors", "aurc", "auroc_interval",
    "h_score", "open_set_accuracy",
]  # fmt: skip
