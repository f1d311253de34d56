"""Mixup and cutmix: parameters, images, loss and metrics, against closed forms."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from scipy.stats import beta, kstest

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import MemorySplit, Normalize, TrainLoader
from paddle_resnet.data.augment.mixing import draw_mix_params
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy

NORMALIZE = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
SIZE = 12


def numbered_batches(seed=0, count=60, **augment):
    """An epoch of images whose pixels and label are the image's number; batches of 20."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, SIZE, SIZE, 3))
    split = MemorySplit(np.ascontiguousarray(images), np.arange(count), "train")
    loader = TrainLoader(split, 20, SIZE, SIZE, NORMALIZE, AugmentConfig(**augment), seed)
    return [[tensor.numpy() for tensor in batch] for batch in loader]


def normal(levels):
    return (levels / 255 - np.array(NORMALIZE.mean)) / np.array(NORMALIZE.std)


def test_mixup_blends_pairs_and_yields_both_labels():
    batches = numbered_batches(mixup=1.0)
    assert sorted(np.concatenate([own for _, own, _, _ in batches]).ravel()) == list(range(60))
    for images, own, partners, lams in batches:
        assert (own.shape, partners.shape, lams.shape) == ((20, 1), (20, 1), (20, 1))
        assert sorted(own) == sorted(partners)
        assert len(np.unique(lams)) == 1
        expected = normal(lams * own + (1 - lams) * partners)
        for row, column in ((0, 0), (5, 11)):
            np.testing.assert_allclose(images[:, :, row, column], expected, atol=1e-5)
    assert len({batch[3][0, 0] for batch in batches}) == len(batches)


def test_cutmix_pastes_a_box_and_lam_is_the_remainder():
    for images, own, partners, lams in numbered_batches(cutmix=1.0):
        own_pixels = normal(own)[:, :, None, None].astype(np.float32)
        box = np.abs(images - own_pixels)[own.ravel() != partners.ravel()].max(axis=(0, 1)) > 1e-6
        shown = np.where(box, normal(partners)[:, :, None, None], own_pixels)
        np.testing.assert_allclose(images, shown, atol=1e-5)
        np.testing.assert_array_equal(box, np.outer(box.any(axis=1), box.any(axis=0)))
        assert lams[0, 0] == pytest.approx(1 - box.mean())


def test_lam_has_the_beta_distribution():
    generator = np.random.default_rng(0)
    config = AugmentConfig(mixup=0.4)
    lams = [draw_mix_params(4, SIZE, config, generator).lam for _ in range(2000)]
    assert kstest(lams, beta(0.4, 0.4).cdf).pvalue > 0.01
    # Of cutmix by hand: a side u has the density 2u, and with its centre anywhere covers u - u^2/4 of the unit line.
    lams = [draw_mix_params(4, 1000, AugmentConfig(cutmix=1.0), generator).lam for _ in range(2000)]
    covered = 2 * (1 / 4 - 1 / 10 + 1 / 96)
    assert abs(np.mean(lams) - (1 - covered)) < 4 * np.std(lams) / 2000**0.5


def test_mix_probability_and_choice_are_respected():
    generator = np.random.default_rng(0)
    config = AugmentConfig(mixup=1.0, cutmix=1.0, mix_probability=0.6)
    drawn = [draw_mix_params(4, 1000, config, generator) for _ in range(1000)]
    whole = sum(params.lam == 1 for params in drawn)
    cut = sum(params.box is not None for params in drawn)
    assert abs(whole - 400) < 4 * (1000 * 0.24) ** 0.5
    assert abs(cut - 300) < 4 * (1000 * 0.21) ** 0.5
    for params in drawn:
        assert params.lam < 1 or list(params.permutation) == [0, 1, 2, 3]


def test_the_seed_alone_decides():
    options = {"mixup": 0.5, "cutmix": 1.0, "erase": 0.5, "trivial_augment": True, "flip": True, "pad": 2}
    first, again, other = (numbered_batches(seed=seed, **options) for seed in (3, 3, 4))
    for batch, twin in zip(first, again, strict=True):
        for tensor, same in zip(batch, twin, strict=True):
            np.testing.assert_array_equal(tensor, same)
    assert not np.array_equal(first[0][0], other[0][0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_are_those_of_the_mixed_target(smoothing):
    """The mixed loss is the cross-entropy against the mixed target, whose gradient is softmax minus target."""
    generator = np.random.default_rng(0)
    images, classes = 7, 5
    logits = generator.normal(size=(images, classes))
    own, partners = generator.integers(0, classes, (2, images, 1))
    lams = np.full((images, 1), 0.3)
    hot = np.eye(classes)
    target = lams * hot[own.ravel()] + (1 - lams) * hot[partners.ravel()]
    target = (1 - smoothing) * target + smoothing / classes
    logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    tensor = paddle.to_tensor(logits.astype("float32"), stop_gradient=False)
    rest = [paddle.to_tensor(own), paddle.to_tensor(partners), paddle.to_tensor(lams.astype("float32"))]
    loss = SmoothedCrossEntropy(smoothing)(tensor, *rest)
    loss.backward()
    assert float(loss) == pytest.approx(-(target * logarithms).sum(axis=1).mean(), rel=1e-6)
    np.testing.assert_allclose(tensor.grad.numpy(), (np.exp(logarithms) - target) / images, atol=1e-7)


def test_mixed_image_counts_by_the_label_of_larger_weight():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], "float32"))
    own, partners = np.array([[0], [0], [1]]), np.array([[1], [1], [2]])
    lams = np.array([[0.6], [0.4], [0.25]], "float32")
    measure = TrainMetrics()
    computed = measure.compute(*(paddle.to_tensor(each) for each in (logits, own, partners, lams)))
    losses, labels, predicted = (each.numpy() for each in computed)
    assert (labels == predicted).tolist() == [True, False, True]
    likelihoods = [[0.7, 0.2], [0.7, 0.2], [0.2, 0.7]]
    expected = [-s * np.log(a) - (1 - s) * np.log(b) for s, (a, b) in zip(lams.ravel(), likelihoods, strict=True)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert measure.update(losses, labels, predicted) == pytest.approx([np.mean(expected), 2 / 3])
