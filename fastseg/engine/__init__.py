"""Training, evaluation and prediction: short loops over plain PyTorch."""

from fastseg.engine.evaluate import evaluate
from fastseg.engine.predict import predict
from fastseg.engine.train import Recipe, train

__all__ = ["Recipe", "evaluate", "predict", "train"]
