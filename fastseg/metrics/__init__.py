"""Streaming metrics: update, compute, reset, all-reduce."""

from fastseg.metrics.confusion import ConfusionMatrix, SegmentationScores, foreground, scores

__all__ = ["ConfusionMatrix", "SegmentationScores", "foreground", "scores"]
