"""Recipe parts that meet data and deployment: cutout, growing crops, and the mirror image at test time."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
import yaml
from tiny_run import SIZE, make_run, quickstart

from paddle_resnet import distributed
from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import Normalize, ValidationLoader, open_splits
from paddle_resnet.data.augment import host
from paddle_resnet.data.augment.batch import Augment
from paddle_resnet.data.augment.boxes import draw_cutout_mask
from paddle_resnet.errors import UsageError
from paddle_resnet.evaluation import evaluate, measure_split
from paddle_resnet.evaluation.report import network_scorer
from paddle_resnet.exporting import export
from paddle_resnet.inference import Predictor
from paddle_resnet.models import count_parameters, create_model
from paddle_resnet.training import train
from paddle_resnet.training.callbacks.recipe import crop_sizes
from paddle_resnet.training.run_folder import Run
from paddle_resnet.training.setup import open_data_and_network, whiten_stem

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("side", [4, 5])
def test_cutout_squares_are_uniform_and_clipped(side):
    size, count = 9, 4000
    hidden = draw_cutout_mask((count, size, size, 3), side, np.random.default_rng(0))
    # A pixel is hidden where the centre is one of so many of the image's rows, and so for columns.
    before, after = side // 2, (side - 1) // 2
    rows = np.array([sum(-before <= pixel - centre <= after for centre in range(size)) for pixel in range(size)])
    expected = np.outer(rows, rows) / size**2
    assert np.abs(hidden.mean(axis=0) - expected).max() < 4 * (0.25 / count) ** 0.5
    for square in hidden[:100]:
        tall, wide = square.any(axis=1), square.any(axis=0)
        np.testing.assert_array_equal(square, np.outer(tall, wide))
        for line in (tall, wide):
            (changes,) = np.nonzero(np.diff(line))
            assert len(changes) <= 2
            assert line.sum() == side or (line.sum() < side and (line[0] or line[-1]))


def test_cutout_fills_with_the_mean_colour():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), dtype=np.uint8)
    augment = Augment(AugmentConfig(cutout=6), 12, 12, mean=(0.2, 0.4, 1.0))
    found = host.augment(pixels, augment.draw(len(pixels), np.random.default_rng(1)))
    changed = (found != pixels).any(axis=-1)
    areas = changed.sum(axis=(1, 2))
    assert areas.min() >= 9
    assert areas.max() <= 36
    np.testing.assert_allclose(found[changed], np.broadcast_to([51, 102, 255], found[changed].shape), rtol=1e-6)


def test_crops_grow_linearly_then_stay():
    assert crop_sizes(24, 32, 8) == [24, 24, 24, 28, 28, 28, 32, 32]
    assert crop_sizes(16, 32, 16) == [16] * 3 + [20] * 3 + [24] * 3 + [28] * 3 + [32] * 4
    assert crop_sizes(32, 32, 3) == [32, 32, 32]
    assert crop_sizes(20, 33, 2)[-1] == 33
    assert crop_sizes(24, 32, 1) == [32]


def test_the_network_sees_the_crops_grow(tmp_path, monkeypatch):
    seen: list[int] = []
    original = paddle.Model.train_batch

    def note(model, inputs, *arguments, **options):
        seen.append(inputs[0].shape[-1])
        return original(model, inputs, *arguments, **options)

    monkeypatch.setattr(paddle.Model, "train_batch", note)
    sizes = ["data.image_size=16", "train.first_size=8"]
    quick = ["model.name=resnet8", "train.epochs=4", "train.batch_size=640", "device=cpu", f"output={tmp_path}"]
    train(quickstart([*sizes, *quick]))
    assert seen == [8, 8, 8, 8, 12, 12, 16, 16]


def test_crops_do_not_shrink():
    with pytest.raises(UsageError, match=r"train\.first_size \(40\) must be at most data\.image_size \(16\)"):
        quickstart(["train.first_size=40"])


def test_a_shift_leaves_something_of_the_image():
    with pytest.raises(UsageError, match=r"evaluation\.shift \(16\) must be less than data\.image_size \(16\)"):
        quickstart(["evaluation.shift=16"])
    assert quickstart(["evaluation.shift=15"]).evaluation.shift == 15


@pytest.mark.parametrize(("layers", "residuals"), [(8, 1), (11, 2)])
def test_fast_networks_have_their_shapes(layers, residuals):
    network = create_model(f"fast_resnet{layers}")
    # By hand: 3x3 convolutions, 2x2 ones, BatchNorms (scale and shift), head.
    widening = 24 * 64 + 64 * 256 + 256 * 256
    convolutions = 9 * (widening + residuals * (64 * 64 + 2 * 256 * 256)) + 24 * 12
    batch_norms = 24 + (1 + residuals) * (64 + 2 * 256)
    assert count_parameters(network) == convolutions + 2 * batch_norms + 2570
    network.eval()
    with paddle.no_grad():
        stages = network.forward_stages(paddle.rand([1, 3, 32, 32]))
    assert [stage.shape for stage in stages] == [[1, 64, 15, 15], [1, 256, 7, 7], [1, 256, 3, 3]]


def test_whitening_uses_the_training_images():
    config = quickstart()
    splits = open_splits(config.data)
    network = create_model("fast_resnet8")
    before = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    normalize = Normalize(splits.mean, splits.std)
    whiten_stem(network.conv1, splits.train, splits.resize, 16, normalize)
    changed = [name for name, tensor in network.state_dict().items() if (tensor.numpy() != before[name]).any()]
    assert changed == ["conv1.0.weight"]
    assert [name for name, weight in network.named_parameters() if weight.stop_gradient and "_" not in name] == changed
    images = next(iter(ValidationLoader(splits.train, 500, 16, splits.resize, normalize)))[0]
    filtered = network.conv1[0](images).numpy().transpose(1, 0, 2, 3).reshape(24, -1)
    moments = filtered @ filtered.T / filtered.shape[1]
    # The digits are grey: of a patch's 12 numbers 4 differ, and the largest eigenvalues belong to those.
    # Theirs come to 1, but for what is added to the smallest of them.
    np.testing.assert_allclose(np.diag(moments)[9:12], 1, atol=0.1)
    np.testing.assert_allclose(moments[8:12, 8:12], np.diag(np.diag(moments)[8:12]), atol=0.05)


@pytest.fixture(scope="module")
def flipping_run(tmp_path_factory):
    """The run of random weights, with `evaluation.flip` and `evaluation.shift`."""
    run = make_run(tmp_path_factory.mktemp("flip"))
    config = run.config.model_copy(
        update={"evaluation": run.config.evaluation.model_copy(update={"flip": True, "shift": 1})}
    )
    config.save(run.config_path)
    return Run.open(run.path)


def by_hand(run, pixels):
    """The network's probabilities of pixels, softmaxed in float64."""
    normal = (pixels / 255 - np.array(run.splits().mean)) / np.array(run.splits().std)
    inputs = np.ascontiguousarray(normal.transpose(0, 3, 1, 2).astype(np.float32))
    with paddle.no_grad():
        logits = run.load_network("best")(paddle.to_tensor(inputs)).numpy().astype(np.float64)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.usefixtures("without_plots")
def test_views_average_measured_and_exported_scores(flipping_run):
    from paddle_resnet.data import uint8_batches

    splits = flipping_run.splits()
    pixels = np.concatenate([images for images, _ in uint8_batches(splits.test, 12, splits.resize, SIZE)])
    as_is, mirrored = by_hand(flipping_run, pixels), by_hand(flipping_run, pixels[:, :, ::-1])
    assert np.abs(as_is - mirrored).max() > 1e-3
    up_left, down_right = np.zeros_like(pixels), np.zeros_like(pixels)
    up_left[:, :-1, :-1], down_right[:, 1:, 1:] = pixels[:, 1:, 1:], pixels[:, :-1, :-1]
    moved = [by_hand(flipping_run, each[:, :, ::step]) for each in (up_left, down_right) for step in (1, -1)]
    averaged = (as_is + mirrored) / 4 + sum(moved) / 8
    evaluation = evaluate(flipping_run)
    np.testing.assert_allclose(evaluation.scores, averaged, atol=1e-5)
    assert evaluation.single_view_top1 == np.mean(as_is.argmax(axis=1) == evaluation.labels)
    assert flipping_run.metrics()["test"]["single_view_top1"] == evaluation.single_view_top1
    folder = export(flipping_run).path
    config = yaml.safe_load((folder / "inference.yml").read_text())
    assert (config["flip"], config["shift"]) == (True, 1)
    with Predictor(folder, device="cpu") as predictor:
        np.testing.assert_allclose(predictor.scores(pixels), averaged, atol=1e-4)
        np.testing.assert_allclose(predictor.scores(pixels[:1]), averaged[:1], atol=1e-4)


def test_ranks_count_the_single_view_of_all_images(flipping_run, monkeypatch):
    """Each of two ranks sends what it has; then both get the sums."""
    alone, scorer = measure_split(flipping_run, scorer_of(flipping_run)), scorer_of(flipping_run)
    sent = ([], [])
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "joined", lambda rank=rank: distributed.Ranks(rank, 2))
        monkeypatch.setattr(
            distributed, "all_reduce_sum", lambda values, rank=rank: sent[rank].append(values) or np.array(values)
        )
        measure_split(flipping_run, scorer)
    sums = [np.add(*each) for each in zip(*sent, strict=True)]
    monkeypatch.setattr(distributed, "all_reduce_sum", lambda values: sums.pop(0))
    together = measure_split(flipping_run, scorer)
    np.testing.assert_allclose(together.scores, alone.scores, atol=1e-6)
    assert together.single_view_top1 == alone.single_view_top1


def scorer_of(run):
    return network_scorer(run, run.load_network("best"))


@pytest.mark.parametrize("with_weights", [True, False])
def test_whitening_filters_from_a_file_are_not_trained(tmp_path, with_weights):
    """Nor those of a checkpoint that follows, for which the file need not be read."""
    file = tmp_path / "fast.pdparams"
    given = create_model("fast_resnet8")
    paddle.save(given.state_dict(), str(file))
    config = quickstart(["model.name=fast_resnet8", f"model.pretrained={file}", f"output={tmp_path}", "device=cpu"])
    network = open_data_and_network(Run.new(config), with_weights=with_weights)
    network.freeze(None)
    frozen = [name for name, each in network.named_parameters() if each.stop_gradient and "_" not in name]
    assert frozen == ["conv1.0.weight"]
    same = (network.conv1[0].weight.numpy() == given.conv1[0].weight.numpy()).all()
    assert same == with_weights


def test_whitening_filters_stay_frozen():
    network = create_model("fast_resnet8")
    network.conv1.whiten(paddle.randn([4, 3, 32, 32]))
    network.freeze("layer1")
    network.freeze(None)
    assert network.conv1[0].weight.stop_gradient
    assert not network.conv1[3].weight.stop_gradient
