"""A run: a config becomes a trained network in a folder."""

from paddle_resnet.training.run_folder import EpochRecord, RunFolder
from paddle_resnet.training.train import train

__all__ = ["EpochRecord", "RunFolder", "train"]
