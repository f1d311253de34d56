"""docs/experiments/resnet20_in_pytorch.py: that what is compared there is the same training, step by step."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import paddle
import pytest

torch = pytest.importorskip("torch", reason="PyTorch (requirements/bench.txt) is not installed")

from paddle_resnet.config import Config  # noqa: E402
from paddle_resnet.data import MemorySplit, Normalize, Splits  # noqa: E402
from paddle_resnet.models import create_model  # noqa: E402
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy  # noqa: E402
from paddle_resnet.training.optim.optimizer import make_optimizer  # noqa: E402

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "experiments" / "resnet20_in_pytorch.py"


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("resnet20_in_pytorch", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def config(experiment):
    # So much weight decay that three steps show what it is taken of.
    changes = ["train.epochs=2", "train.learning_rate=0.02", "train.label_smoothing=0.1", "train.weight_decay=0.5"]
    return Config.load(experiment.CONFIG, changes)


@pytest.fixture(scope="module")
def splits():
    """96 random pictures of ten classes."""
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (96, 32, 32, 3), dtype=np.uint8), np.arange(96) % 10
    split = MemorySplit(images, labels, "random")
    return Splits(split, split, split, tuple("abcdefghij"), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 32)


def in_our_layout(network):
    """The tensors in their order, which is the same here and there, as Paddle lays them out."""
    state = [(name, tensor.detach().numpy()) for name, tensor in network.state_dict().items()]
    return [array.T if array.ndim == 2 else array for name, array in state if not name.endswith("num_batches_tracked")]


def test_the_first_steps_are_the_same(experiment, config, splits):
    """From the same weights and on the same batches: losses, weights and running statistics after three steps."""
    torch.manual_seed(0)
    theirs, ours = experiment.make_network({**experiment.RESNET20, "depths": [1, 1, 1]}), create_model("resnet8")
    for tensor, array in zip(ours.state_dict().values(), in_our_layout(theirs), strict=True):
        tensor.set_value(np.ascontiguousarray(array))
    steps_per_epoch = 10
    our_optimizer = make_optimizer(ours, config.train, steps_per_epoch)
    optimizer = experiment.make_optimizer(theirs, config.train)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, experiment.WarmupCosine(config.train, 2 * steps_per_epoch))
    our_loss_of, loss_of = SmoothedCrossEntropy(0.1), torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    normalize = Normalize(splits.mean, splits.std)
    for pixels, labels in experiment.augmented_batches(splits.train, 32, 4, np.random.default_rng(0)):
        our_loss = our_loss_of(ours(normalize(paddle.to_tensor(pixels))), paddle.to_tensor(labels.numpy()[:, None]))
        our_loss.backward()
        our_optimizer.step()
        our_optimizer.clear_grad()
        our_optimizer._learning_rate.step()
        loss = loss_of(theirs(experiment.normalized(pixels, splits)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        assert float(our_loss) == pytest.approx(loss.item(), rel=1e-4)
    for (name, tensor), array in zip(ours.state_dict().items(), in_our_layout(theirs), strict=True):
        # The running variance is divided by one less in PyTorch: at least 32 * 8 * 8 values here.
        np.testing.assert_allclose(tensor.numpy(), array, rtol=2e-3, atol=2e-4, err_msg=name)


def test_rates_are_the_same_at_every_step(experiment, config):
    scheduler = make_optimizer(create_model("resnet8"), config.train, 30)._learning_rate
    factors = experiment.WarmupCosine(config.train, 60)
    for step in range(60):
        assert scheduler.get_lr() == pytest.approx(0.02 * factors(step))
        scheduler.step()


def test_a_stopped_training_goes_on_from_its_last_epoch(experiment, config, splits, tmp_path, monkeypatch, capsys):
    """Stopped after one of two epochs, it ends with the result of a training that was not stopped."""
    recipe = Config.load(experiment.CONFIG, ["train.epochs=2", "train.batch_size=32"])
    state = tmp_path / "state.pt"
    measure = experiment.measure
    losses = []

    def record(network, *arguments):
        losses.append(measure(network, *arguments)[1])
        return 0.0, losses[-1]

    monkeypatch.setattr(experiment, "measure", record)
    experiment.train(recipe, splits, 3, tmp_path / "whole.pt")
    whole, losses[:] = list(losses), []
    with monkeypatch.context() as stopping:
        stopping.setattr(
            torch.optim.lr_scheduler.LambdaLR, "step", stop_after(torch.optim.lr_scheduler.LambdaLR.step, 4)
        )
        with pytest.raises(KeyboardInterrupt):
            experiment.train(recipe, splits, 3, state)
    experiment.train(recipe, splits, 3, state)
    assert losses == pytest.approx(whole, rel=1e-6)
    assert capsys.readouterr().out.count("epoch 1/2") == 2


def stop_after(step, calls):
    """Return `step`, interrupted at the call after so many (the first of each schedule is its constructor's)."""
    done = []

    def counted(self):
        done.append(None)
        if len(done) > calls:
            raise KeyboardInterrupt
        step(self)

    return counted


def test_first_weights_are_drawn_alike(experiment):
    """Same spread in each tensor; the linear layer's within Xavier's bound, and its bias 0."""
    torch.manual_seed(0)
    theirs, ours = in_our_layout(experiment.make_network()), create_model("resnet20").state_dict()
    for (name, tensor), array in zip(ours.items(), theirs, strict=True):
        # Of n normal numbers the deviation is known to 1 / sqrt(2 n); five times that on each side.
        assert array.std() == pytest.approx(tensor.numpy().std(), rel=10 / np.sqrt(2 * array.size), abs=1e-7), name
        assert array.mean() == pytest.approx(tensor.numpy().mean(), abs=10 * array.std() / np.sqrt(array.size) + 1e-7)
    bound = np.sqrt(6 / (64 + 10))
    assert 0.95 * bound < abs(theirs[-2]).max() <= bound
    assert 0.95 * bound < abs(ours["fc.weight"].numpy()).max() <= bound


def test_augmentation_reaches_all_crops_and_flips(experiment):
    """An image of one white pixel: where it goes is where the crop is."""
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, 16, 10] = 255
    split = MemorySplit(np.repeat(image, 4000, axis=0), np.zeros(4000, np.int64), "white")
    ((pixels, _),) = experiment.augmented_batches(split, 4000, 4, np.random.default_rng(0))
    _, rows, columns = np.nonzero(pixels[..., 0])
    assert len(rows) == 4000
    assert sorted(set(rows)) == list(range(12, 21))
    # Column 10 moved by up to 4, or mirrored to 21 and moved.
    assert sorted(set(columns)) == [*range(6, 15), *range(17, 26)]
    assert abs((columns > 15).mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)


def test_an_unsupported_recipe_is_refused(experiment, config):
    plain = Config.load(experiment.CONFIG)
    experiment.require_nothing_else(plain)
    for override in ("train.ema=0.9", "augment.cutout=4", "model.dropout=0.1", "evaluation.flip=true"):
        with pytest.raises(experiment.UsageError, match="keys that this program does not know"):
            experiment.require_nothing_else(Config.load(experiment.CONFIG, [override]))


def test_the_comparison_is_welchs(experiment, capsys):
    """Two samples of one variance have 4 degrees of freedom: 2.776 standard errors of sqrt(1/3 + 1/3) points each."""
    experiment.compare([0.80, 0.81, 0.82], [0.81, 0.83, 0.82])
    assert capsys.readouterr().out.splitlines() == [
        "Paddle: 80.00, 81.00, 82.00; mean 81.00, standard deviation 1.00, n = 3",
        "PyTorch: 81.00, 83.00, 82.00; mean 82.00, standard deviation 1.00, n = 3",
        "Paddle - PyTorch: -1.00 points, 95% interval -3.27 to +1.27",
    ]
