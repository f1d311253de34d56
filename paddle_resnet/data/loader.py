"""From a split to batches: for `paddle.Model.fit`, for validation, and for whatever answers scores."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data.augment import Augment, centre_view
from paddle_resnet.data.normalize import Normalize
from paddle_resnet.data.splits import Indices, Pixels, Split

Batch = list[paddle.Tensor]


class TrainLoader:
    """Augmented batches in a new random order every epoch.

    Its order and its augmentation come from `generator` alone, which is drawn from by whoever iterates (never by the
    prefetching thread): with its ``bit_generator.state`` put back, the next epoch is the same again.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        image_size: int,
        resize: int,
        normalize: Normalize,
        augment: AugmentConfig,
        seed: int,
    ) -> None:
        """Prepare the batches of `split`.

        Args:
            split: the training images.
            batch_size: images a batch; an incomplete last batch is dropped, unless it would be the only one.
            image_size: pixels a side of the batches, S.
            resize: pixels a side that a picture is brought to before the crop.
            normalize: what turns pixels into the network's input.
            augment: the random changes.
            seed: of the order and the changes.
        """
        self.generator = np.random.default_rng(seed)
        self._split = split
        self._batch_size = min(batch_size, len(split))
        self._normalize = normalize
        self._augment = Augment(augment, resize, image_size)

    def __len__(self) -> int:
        return len(self._split) // self._batch_size

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield ``[images float32 [n, 3, S, S], labels int64 [n, 1]]`` on the current device."""
        order = self.generator.permutation(len(self._split))
        batches = order[: len(self) * self._batch_size].reshape(len(self), self._batch_size)
        for indices, pixels in _prefetched(self._split, batches):
            levels = self._augment(paddle.to_tensor(pixels), self.generator)
            yield [self._normalize(levels), _label_column(self._split, indices)]


class ValidationLoader:
    """Every image once, in order, as evaluation sees it."""

    def __init__(self, split: Split, batch_size: int, image_size: int, resize: int, normalize: Normalize) -> None:
        """Prepare the batches of `split`; the arguments are those of `TrainLoader`."""
        self._split = split
        self._batch_size = batch_size
        self._image_size = image_size
        self._resize = resize
        self._normalize = normalize

    def __len__(self) -> int:
        return -(-len(self._split) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield ``[images float32 [n, 3, S, S], labels int64 [n, 1]]`` on the current device."""
        for indices, pixels in _prefetched(self._split, _in_order(self._split, self._batch_size)):
            levels = centre_view(paddle.to_tensor(pixels), self._resize, self._image_size)
            yield [self._normalize(levels), _label_column(self._split, indices)]


def uint8_batches(split: Split, batch_size: int, resize: int, image_size: int) -> Iterator[tuple[Pixels, Indices]]:
    """Yield every image once, in order, as ``(uint8 [n, S, S, 3], labels int64 [n])``: an exported model's input."""
    for indices, pixels in _prefetched(split, _in_order(split, batch_size)):
        levels = centre_view(paddle.to_tensor(pixels), resize, image_size)
        yield levels.numpy().astype(np.uint8), split.labels[indices]


def _in_order(split: Split, batch_size: int) -> list[Indices]:
    return [np.arange(start, min(start + batch_size, len(split))) for start in range(0, len(split), batch_size)]


def _label_column(split: Split, indices: Indices) -> paddle.Tensor:
    return paddle.to_tensor(split.labels[indices][:, np.newaxis])


def _prefetched(split: Split, batches: Iterable[Indices]) -> Iterator[tuple[Indices, Pixels]]:
    """Read one batch ahead in a thread, which ends with the iterator; its errors are raised here."""
    remaining = iter(batches)
    indices = next(remaining, None)
    if indices is None:
        return
    # The first batch is read in this thread: there is nothing to overlap it with, and where it decodes a whole folder
    # into memory, Ctrl-C stops it.
    pixels = split.batch(indices)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        for following in remaining:
            reading = thread.submit(split.batch, following)
            yield indices, pixels
            indices, pixels = following, reading.result()
        yield indices, pixels
