"""What `test_distributed` launches in two processes: each does its part, and writes down what it got."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import paddle_resnet  # noqa: F401, I001  (prepares the process before paddle is imported)
import numpy as np
import paddle
from paddle import nn

from paddle_resnet import onednn, distributed, runtime
from paddle_resnet.config import Config
from paddle_resnet.errors import RunFailure, Stopped, UsageError
from paddle_resnet.models.sync_batch_norm import synchronize_batch_norm
from paddle_resnet.onednn import layers
from paddle_resnet.training import resume, train
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.callbacks.steps import StepSeeds
from paddle_resnet.training.resume_checks import folder_of_main_process

EPSILON = 1e-5
SHARES = (slice(0, 3), slice(3, 5))
"""Of five images: the first process's three, and the second one's two."""


def normalised():
    """Five images ``[5, 4, 6, 3]`` (channels first), far from zero, with scale, shift and the output's gradient."""
    generator = np.random.default_rng(0)
    images = generator.normal(5, 2, (5, 4, 6, 3)) * np.array([1, 3, 0.1, 1])[:, None, None]
    weight, bias = generator.normal(size=(2, 4))
    gradient = generator.normal(size=images.shape)
    return [each.astype(np.float32) for each in (images, weight, bias, gradient)]


def normalise(layer, channels_last, dtype="float32"):
    """Let this process's images through the layer, and back; return results channels first."""
    axes = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    back = (0, 3, 1, 2) if channels_last else (0, 1, 2, 3)
    images, weight, bias, gradient = normalised()
    own = SHARES[distributed.joined().rank]
    layer.weight.set_value(weight)
    layer.bias.set_value(bias)
    x = paddle.to_tensor(images[own].transpose(axes).copy(), stop_gradient=False)
    y = layer(x.astype(dtype)).astype("float32")
    y.backward(paddle.to_tensor(gradient[own].transpose(axes).copy()))
    return {
        "output": y.numpy().transpose(back),
        "x_gradient": x.grad.numpy().transpose(back),
        "weight_gradient": layer.weight.grad.numpy(),
        "bias_gradient": layer.bias.grad.numpy(),
        "mean": layer._mean.numpy(),
        "variance": layer._variance.numpy(),
    }


def normalisations():
    """Batch normalisation over both processes: by Paddle's operators, by oneDNN, and with the ReLU behind it."""
    native = nn.Sequential(nn.BatchNorm2D(4, epsilon=EPSILON))
    synchronize_batch_norm(native, "cpu")
    results = {"native": normalise(native[0], False)}
    kinds = [("onednn", layers.SyncBatchNorm, "float32"), ("onednn_relu", layers.SyncBatchNormReLU, "float32")]
    if onednn.bfloat16_unavailable_reason() is None:
        kinds.append(("bfloat16", layers.SyncBatchNorm, "bfloat16"))
    for name, kind, dtype in kinds if onednn.unavailable_reason("cpu") is None else ():
        layer = nn.BatchNorm2D(4, epsilon=EPSILON)
        layer.__class__ = kind
        results[name] = normalise(layer, True, dtype)
    return {f"{name}.{part}": value for name, parts in results.items() for part, value in parts.items()}


def messages():
    """What the processes tell each other."""
    number = distributed.joined().rank
    tensors = [paddle.full([2, 3], 1.0 + 2 * number), paddle.full([4], 10.0 * number)]
    distributed.all_reduce_mean(tensors)
    first = paddle.full([3], 7.0 + number)
    distributed.broadcast([first])
    means = TrainMetrics()
    losses, predicted = ([1.0, 2, 3], [1, 1, 0]) if number == 0 else ([10.0], [1])
    means.update(np.array(losses), np.ones(len(losses), np.int64), np.array(predicted))
    try:
        distributed.check_equal_across_ranks({"a": 1, "b": number})
        different = ""
    except UsageError as error:
        different = str(error)
    return {
        "total": distributed.all_reduce_sum([1.5, number]),
        "largest": distributed.all_reduce_max(number - 3),
        "average": [tensor.numpy().ravel().tolist() for tensor in tensors],
        "first": first.numpy().tolist(),
        "means": means.accumulate(),
        "different": different,
    }


def ahead(folder):
    """Whether the first process's file is there when the other one comes."""
    file = folder / "ahead"
    with distributed.main_process_first():
        if distributed.is_main_process():
            file.touch()
        return file.exists()


CHECKPOINTS = {"checkpoints/best/model": bytes(range(250)) * 10, "checkpoints/a b\n\u4e2d/c": b""}
"""Of the first process: a file of more than one message, and an empty one."""


def checkpoints_seen(folder):
    """Which of them each process sees in its own folder of the run, or in its copy."""
    own = folder / f"host{distributed.joined().rank}"
    distributed.MESSAGE_BYTES, message = 1000, distributed.MESSAGE_BYTES
    for name, content in CHECKPOINTS.items() if distributed.is_main_process() else ():
        (own / name).parent.mkdir(parents=True)
        (own / name).write_bytes(content)
    with folder_of_main_process(own) as seen:
        found = [name for name, content in CHECKPOINTS.items() if (seen / name).read_bytes() == content]
    distributed.MESSAGE_BYTES = message
    return [found, seen.exists(), own.exists()]


def waited_through_signals():
    """Count the signals that come while the other process is waited for."""
    caught = []
    earlier = signal.signal(signal.SIGALRM, lambda number, frame: caught.append(number))
    if distributed.is_main_process():
        time.sleep(0.3)
    else:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    distributed.barrier()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, earlier)
    return len(caught)


def signalled_at(step, signals):
    """Let the second process receive signals at the beginning of a step of the run."""
    original = StepSeeds.on_train_batch_begin

    def begin(seeds, number, logs=None):
        original(seeds, number, logs)
        if distributed.joined().rank == 1 and seeds._epoch * seeds.params["steps"] + number == step:
            for which in signals:
                os.kill(os.getpid(), which)

    StepSeeds.on_train_batch_begin = begin
    return original


def runs(folder):
    """Train the runs of the test; return how those ended that did not come to their end."""
    ends = {}
    for name in ("plain", "whole", "early"):
        train(Config.load(folder / f"{name}.yaml"))
    config = Config.load(folder / "through.yaml")
    train(config)
    original = signalled_at(5, [signal.SIGTERM] * 3)
    try:
        train(config.model_copy(update={"name": "stopped"}))
    except Stopped as stopped:
        ends["stopped"] = [stopped.args[0], stopped.exit_code]
    StepSeeds.on_train_batch_begin = original
    resume(config.output / "stopped")
    try:
        train(Config.load(folder / "diverging.yaml"))
    except RunFailure as failure:
        ends["diverging"] = str(failure)
    return ends


def die(folder):
    """Kill the second process within the second epoch of a run."""
    signalled_at(6, [signal.SIGKILL])
    train(Config.load(folder / "through.yaml").model_copy(update={"name": "died"}))


def main():
    folder = Path(sys.argv[1])
    distributed.join(runtime.select_device("cpu"))
    number = distributed.joined().rank
    np.savez(folder / f"normalisations.{number}.npz", **normalisations())
    seen = {"messages": messages(), "ahead": ahead(folder), "signals": waited_through_signals()}
    seen |= {"checkpoints": checkpoints_seen(folder), "ends": runs(folder)}
    seen["messages"]["total"] = seen["messages"]["total"].tolist()
    (folder / f"seen.{number}.json").write_text(json.dumps(seen))
    try:
        die(folder)
    except RunFailure as failure:
        (folder / f"failure.{number}").write_text(str(failure))
        raise


if __name__ == "__main__":
    main()
