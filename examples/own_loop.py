"""Measure training with `paddle.Model` or a loop of your own, from plain Paddle to the speed of `paddle-resnet train`.

python examples/own_loop.py                          each step in a process of its own, by turns
python examples/own_loop.py --steps loader train     two of them
python examples/own_loop.py --network resnet18 --batch 64 --size 64
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time

STEPS = {
    "plain": "paddle.Model, paddle.io.DataLoader, one thread",
    "threads": "+ import paddle_resnet: all cores",
    "accelerate": "+ paddle_resnet.accelerate(network)",
    "loader": "+ paddle_resnet.data.Loader",
    "loop": "the same in a loop of your own",
    "train": "paddle-resnet train",
}
IMAGES = 1280
"""About as many as a run trains with, of scikit-learn's 1,797."""


def main() -> None:
    """Measure one step, or all of them and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", choices=STEPS, nargs="+", default=list(STEPS))
    parser.add_argument("--here", action="store_true", help="measure the one step in this process")
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--epochs", type=int, default=2, help="measured, after one that is not")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.here:
        print(measure(options.steps[0], options.network, options.batch, options.size, options.epochs))
        return
    speeds = {step: [] for step in options.steps}
    for _ in range(options.rounds):
        for step, found in speeds.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--here", "--steps", step]
            threads = {"OMP_NUM_THREADS": "1"} if step == "plain" else {}
            done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, check=True)
            found.append(float(done.stdout.split()[-1]))
    last = options.steps[-1]
    print(f"| step | images/s | share of {last}, by round |\n|---|---|---|")
    for step, found in speeds.items():
        shares = [speed / whole for speed, whole in zip(found, speeds[last], strict=True)]
        speed = f"{statistics.median(found):.0f} ({min(found):.0f}-{max(found):.0f})"
        share = f"{statistics.median(shares):.2f} ({min(shares):.2f}-{max(shares):.2f})"
        print(f"| {STEPS[step]} | {speed} | {share} |")


def measure(step: str, name: str, batch: int, size: int, epochs: int) -> float:
    """Return the images per second of a step: the median over its epochs."""
    import paddle_resnet

    paddle_resnet.prepare(log=False)
    if step == "train":
        return train(name, batch, size, epochs)
    import paddle

    network = paddle_resnet.create_model(name, num_classes=10)
    if step not in ("plain", "threads"):
        paddle_resnet.accelerate(network)
    batches = loader(batch, size) if step in ("loader", "loop") else data_loader(batch, size)
    rate = paddle.optimizer.lr.CosineAnnealingDecay(0.1, T_max=(epochs + 1) * len(batches))
    optimizer = paddle.optimizer.Momentum(rate, parameters=network.parameters(), weight_decay=5e-4, use_nesterov=True)
    loss = paddle.nn.CrossEntropyLoss()
    ends = [time.perf_counter()]
    if step == "loop":
        for _ in range(epochs + 1):
            network.train()
            for images, labels in batches:
                loss(network(images), labels).backward()
                optimizer.step()
                optimizer.clear_grad()
                rate.step()
            ends.append(time.perf_counter())
    else:

        class Clock(paddle.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
                ends.append(time.perf_counter())

        model = paddle.Model(network)
        model.prepare(optimizer, loss, paddle.metric.Accuracy())
        model.fit(batches, epochs=epochs + 1, verbose=0, callbacks=[Clock()])
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    return len(batches) * batch / statistics.median(seconds)


def digits(size: int):  # noqa: ANN201
    """Return scikit-learn's digits as uint8 pixels [IMAGES, size, size], and their classes."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = (found.images * (255 / 16)).round().astype(np.uint8)
    resized = [np.asarray(Image.fromarray(each).resize((size, size))) for each in pixels[:IMAGES]]
    return np.stack(resized), found.target[:IMAGES]


def loader(batch: int, size: int):  # noqa: ANN201
    """Return the digits in batches of this package's loader."""
    from paddle_resnet.data import Loader

    return Loader(*digits(size), batch, shuffle=True, augment={"pad": size // 8})


def data_loader(batch: int, size: int):  # noqa: ANN201
    """Return the same in batches of Paddle's."""
    import numpy as np
    import paddle
    from paddle.vision import transforms
    from PIL import Image

    change = transforms.Compose(
        [
            transforms.RandomCrop(size, padding=size // 8),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )

    class Digits(paddle.io.Dataset):
        def __init__(self) -> None:
            super().__init__()
            pixels, self.labels = digits(size)
            self.pictures = [Image.fromarray(each).convert("RGB") for each in pixels]

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int):  # noqa: ANN204
            return change(self.pictures[index]), np.array([self.labels[index]])

    return paddle.io.DataLoader(Digits(), batch_size=batch, shuffle=True, drop_last=True)


def train(name: str, batch: int, size: int, epochs: int) -> float:
    """Return the speed that `paddle-resnet train` writes into history.csv."""
    import paddle_resnet
    from paddle_resnet.system import threads as openmp

    threads = openmp.count()  # those of the other steps, where `auto` might take fewer beside other programs
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "output": folder,
            "data": {"source": "digits", "image_size": size},
            "augment": {"pad": size // 8},
            "model": {"name": name},
            "train": {"batch_size": batch, "epochs": epochs + 1, "threads": threads},
        }
        run = paddle_resnet.train(paddle_resnet.Config.from_values(values))
        return statistics.median(record.images_per_second for record in run.history()[1:])


if __name__ == "__main__":
    main()
