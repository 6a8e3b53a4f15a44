"""Metrics over batches and processes. States are sums or concatenations over valid samples, never means of means."""

from lightning_modules.metrics.accuracy import Accuracy, Count
from lightning_modules.metrics.hierarchical import Consistency, LevelAccuracy, TreeErrors
from lightning_modules.metrics.ood_detection import OODDetection

__all__ = ["Accuracy", "Consistency", "Count", "LevelAccuracy", "OODDetection", "TreeErrors"]
