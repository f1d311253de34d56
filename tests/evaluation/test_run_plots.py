"""Which images are shown of a split."""

from __future__ import annotations

import numpy as np

from paddle_resnet.evaluation.metrics import evaluation_of
from paddle_resnet.evaluation.run_plots import choose_mistakes, choose_samples


def test_samples_are_spread_over_the_classes():
    labels = np.array([0, 0, 0, 0, 1, 2, 2])
    assert choose_samples(labels, 3, number=5).tolist() == [0, 4, 5, 1, 6]
    assert sorted(choose_samples(labels, 3, number=40).tolist()) == list(range(7))


def test_samples_of_many_classes_differ_in_class():
    labels = np.repeat(np.arange(100), 3)
    chosen = choose_samples(labels, 100, number=40)
    assert len(set(labels[chosen])) == 40


def test_mistakes_are_sorted_by_confidence():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3], [0.05, 0.95]], np.float32)
    labels = np.array([0, 0, 0, 1, 1])
    evaluation = evaluation_of(scores, labels, ["cat", "dog"], seconds=1.0)
    assert choose_mistakes(evaluation).tolist() == [1, 3, 2]
    assert choose_mistakes(evaluation, number=2).tolist() == [1, 3]
