"""What the sections of the lesson on what a network sees share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.what_it_sees.measures import Pictures, Trained
from paddle_resnet.plots.style import percent, shortened
from paddle_resnet.results import Evaluation
from paddle_resnet.training.run_folder import RunFolder

LONGEST_NAME = 9


@dataclass(frozen=True, eq=False)
class Subject:
    """The page, the trained network, the test images, and how it answered them.

    Attributes:
        page: where the lesson is written.
        run: the training.
        trained: the network of its best checkpoint.
        test: the test images as the network sees them.
        evaluation: its scores for them, in their order.
        full: whether they are photographs.
    """

    page: Page
    run: RunFolder
    trained: Trained
    test: Pictures
    evaluation: Evaluation
    full: bool

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""
        return self.evaluation.classes

    def one_of_each_class(self) -> np.ndarray:
        """The first test image of each class, by its index."""
        return np.array([np.flatnonzero(self.test.labels == label)[0] for label in range(len(self.classes))])

    def class_name(self, label: int) -> str:
        """A class's name, short enough to stand above a picture."""
        return shortened(self.classes[label], LONGEST_NAME)

    def true_name(self, index: int) -> str:
        """The class of a test image."""
        return self.classes[self.test.labels[index]]

    def answer(self, label: int, probability: float) -> str:
        """An answer and how sure it was: ``3: 90.0%``."""
        return f"{self.class_name(label)}: {percent(float(probability))}"
