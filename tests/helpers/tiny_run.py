"""A run small enough to test with: pictures of three colours, an untrained network saved as its best checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (220, 30, 20)}
SIZE = 16
QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"


def quickstart(overrides=()):
    """Return the config of the quickstart with these overrides."""
    from paddle_resnet.config import Config

    return Config.load(QUICKSTART, overrides)


def make_pictures(root: Path, per_class: dict[str, int]) -> Path:
    """Write `root/<split>/<class>/<i>.png`: noisy pictures of 24 x 20 pixels in the class's colour."""
    generator = np.random.default_rng(0)
    for split, number in per_class.items():
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = np.clip(np.array(colour) + generator.integers(-60, 60, (20, 24, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root


def make_run(folder: Path, checkpoint: bool = True):
    """Make a run of resnet8 on such pictures in `folder`, with random weights and running statistics."""
    import paddle

    from paddle_resnet.config import Config
    from paddle_resnet.models import create_model
    from paddle_resnet.training.run_folder import Run

    root = make_pictures(folder / "pictures", {"train": 8, "test": 4})
    config = Config.model_validate(
        {
            "name": "tiny",
            "output": str(folder / "output"),
            "device": "cpu",
            "data": {"source": "image_folder", "root": str(root), "image_size": SIZE, "validation_fraction": 0.25},
            "model": {"name": "resnet8"},
        }
    )
    run = Run.new(config)
    with run.create():
        pass
    if checkpoint:
        paddle.seed(1)
        network = create_model("resnet8", num_classes=len(COLOURS))
        # One forward pass in training mode: running statistics as after training, not the initial 0 and 1.
        network.train()
        batch = paddle.to_tensor(run.splits().train.batch(np.arange(12))[:, :SIZE, :SIZE])
        for _ in range(10):
            network(run.normalize()(batch))
        run.checkpoint_path("best").mkdir(parents=True)
        paddle.save(network.state_dict(), str(run.checkpoint_path("best") / "model.pdparams"))
    return run


def random_pixels(images: int, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Return noise, uint8 `[images, size, size, 3]`."""
    return np.random.default_rng(seed).integers(0, 256, (images, size, size, 3), dtype=np.uint8)
