"""Search rate, decay and label smoothing of a config with Optuna, by validation top-1: pip install "optuna>=4,<6".

python examples/search_with_optuna.py configs/quickstart.yaml --trials 20      the same command goes on with the search
"""

import argparse
from pathlib import Path

import optuna

import paddle_resnet
from paddle_resnet.errors import RunFailure

parser = argparse.ArgumentParser()
parser.add_argument("config")
parser.add_argument("--trials", type=int, default=20)
parser.add_argument("--output", type=Path, default=Path("output/search"))
arguments = parser.parse_args()


def objective(trial: optuna.Trial) -> float:
    """Train a run with what the trial suggests."""
    chosen = {
        "train.learning_rate": trial.suggest_float("train.learning_rate", 1e-3, 1.0, log=True),
        "train.weight_decay": trial.suggest_float("train.weight_decay", 1e-5, 1e-2, log=True),
        "train.label_smoothing": trial.suggest_float("train.label_smoothing", 0.0, 0.2),
    }
    own = {"name": f"trial_{trial.number}", "output": arguments.output, "train.seed": 0}
    config = paddle_resnet.Config.load(arguments.config, [f"{key}={value}" for key, value in (chosen | own).items()])
    try:
        return paddle_resnet.train(config).metrics()["validation"]["top1"]  # never the test split
    except RunFailure as failure:  # such as a loss that is not finite
        raise optuna.TrialPruned(str(failure)) from failure


arguments.output.mkdir(parents=True, exist_ok=True)
study = optuna.create_study(
    storage=f"sqlite:///{arguments.output}/study.db", study_name="search", load_if_exists=True, direction="maximize"
)
study.optimize(objective, n_trials=arguments.trials)
print(study.best_trial.number, study.best_value, study.best_params)
