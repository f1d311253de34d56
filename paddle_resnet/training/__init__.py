"""A run: a config becomes a trained network in a folder."""

from paddle_resnet.results import EpochRecord
from paddle_resnet.training.run_folder import Run
from paddle_resnet.training.seed_runs import SeedReport, SeedsFailed, SeedStatistics, report_seeds, train_seeds
from paddle_resnet.training.trainer import resume, train, train_or_resume

__all__ = [
    "EpochRecord",
    "Run",
    "SeedReport",
    "SeedStatistics",
    "SeedsFailed",
    "report_seeds",
    "resume",
    "train",
    "train_or_resume",
    "train_seeds",
]
