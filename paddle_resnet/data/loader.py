"""From a split to batches: in random order for training, in order for evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import paddle

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data.augment.batch import Augment, AugmentParams
from paddle_resnet.data.augment.mixing import mix_images, mix_labels
from paddle_resnet.data.normalize import Normalize
from paddle_resnet.data.splits import Split
from paddle_resnet.images import Indices, Pixels
from paddle_resnet.images.decode import resize_and_crop_batch

Batch = list[paddle.Tensor]
Task = TypeVar("Task")
Result = TypeVar("Result")


class TrainLoader:
    """Augmented batches in a new random order every epoch.

    Order and augmentation come from `generator` alone, and only the iterating thread draws from it, never the
    prefetching thread: with its ``bit_generator.state`` restored, the next epoch is the same again.

    An interrupted epoch continues from the generator's state at its beginning, which `state_dict` has, and with
    `first_batch` set: the batches before it are drawn again, and none of their images is read.

    On a CPU the prefetching thread augments; on a GPU the GPU does, unless an augmentation exists on the host alone
    (TrivialAugment). Mixup and cutmix come last, on the device.

    Args:
        split: the training images.
        batch_size: images a batch; an incomplete last batch is dropped, unless it would be the only one.
        image_size: pixels a side of the batches, S.
        resize: pixels a side of an image before the crop.
        normalize: turns pixels into the network's input.
        augment: the augmentations.
        seed: of order and augmentation.
        balanced: draw each class equally often, see `balanced_order`.
        rank_positions: positions in each batch, ``0 .. batch_size - 1``: only these images are yielded, with the same
            values as in the whole batch; the others belong to other ranks. None: all.

    Attributes:
        crop_size: the batches' pixels a side; less than `image_size` for progressive resizing.
        first_batch: batches of the next epoch to leave out; with all of them left out, the generator's state is already
            the one after that epoch.
        indices: the images of the latest batch, those of other ranks included.
    """

    state_name = "TrainLoader"

    def __init__(
        self,
        split: Split,
        batch_size: int,
        image_size: int,
        resize: int,
        normalize: Normalize,
        augment: AugmentConfig,
        seed: int,
        balanced: bool = False,
        rank_positions: Indices | None = None,
    ) -> None:
        self.generator = np.random.default_rng(seed)
        self._split = split
        self._balanced = balanced
        self._rank_positions = rank_positions
        self._batch_size = min(batch_size, len(split))
        self._normalize = normalize
        self._augment = Augment(augment, resize, image_size, normalize.mean)
        self.crop_size = image_size
        self.first_batch = 0
        self.indices: Indices = np.zeros(0, dtype=np.int64)
        self._epoch_start: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self._split) // self._batch_size

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state at the start of the epoch in progress; after its last batch, of the next."""
        return {"generator": self._epoch_start or self.generator.bit_generator.state}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the generator's state; set `first_batch` separately."""
        self.generator.bit_generator.state = state["generator"]

    def names(self) -> list[str]:
        """Return the names of the images of the latest batch."""
        return self._split.names(self.indices)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield ``[images float32 [n, 3, S, S], labels int64 [n, 1]]`` on the current device.

        With mixup or cutmix, the partners' labels and lam follow, see `mix_labels`. With `rank_positions`, n is their
        number.
        """
        first, self.first_batch = self.first_batch, 0
        if first == len(self):
            return
        begin = self.generator.bit_generator.state
        if self._balanced:
            order = balanced_order(self._split.labels, self.generator)
        else:
            order = self.generator.permutation(len(self._split))
        batches = order[: len(self) * self._batch_size].reshape(len(self), self._batch_size)
        size, stored = self.crop_size, self._split.batch(batches[0, :1]).shape[1:]
        tasks = (self._needed(each, self._augment.draw((len(each), *stored), self.generator, size)) for each in batches)
        on_host = paddle.get_device() == "cpu" or self._augment.needs_host

        def read(task: tuple[Indices, Indices, AugmentParams]) -> Pixels:
            _, indices, params = task
            pixels = self._split.batch(indices)
            return self._augment.apply_on_host(pixels, params) if on_host else pixels

        remaining = _prefetched(read, itertools.islice(tasks, first, None))
        for number, ((batch, indices, params), pixels) in enumerate(remaining, first + 1):
            # With the last batch, everything of this epoch has been drawn.
            self._epoch_start = begin if number < len(self) else None
            self.indices = batch
            images = paddle.to_tensor(pixels)
            levels = images if on_host else self._augment.apply_on_device(images, params)
            labels = self._split.labels[indices]
            if params.mix is None:
                yield [self._normalize(levels), _column(labels)]
            else:
                mixed = [mix_images(self._normalize(levels), params.mix), *mix_labels(labels, params.mix)]
                own = self._rank_positions
                yield mixed if own is None else [each[: len(own)] for each in mixed]

    def _needed(self, batch: Indices, params: AugmentParams) -> tuple[Indices, Indices, AugmentParams]:
        """Return the batch, and those of its images that this rank needs, with their parameters."""
        if self._rank_positions is None:
            return batch, batch, params
        needed, mix = self._rank_positions, None
        if params.mix is not None:
            needed, mix = params.mix.select(self._rank_positions)
        return batch, batch[needed], params.select(needed)._replace(mix=mix)


class ValidationLoader:
    """Every image once, in order, with evaluation's resize and crop.

    Several ranks together yield every image once, each of them in equally many batches, none empty. There must be at
    least as many images as ranks. The other arguments are those of `TrainLoader`.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        image_size: int,
        resize: int,
        normalize: Normalize,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._split = split
        self._batches = rank_batches(len(split), batch_size, rank, world_size)
        self._image_size = image_size
        self._resize = resize
        self._normalize = normalize

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield ``[images float32 [n, 3, S, S], labels int64 [n, 1]]`` on the current device."""
        for pixels, labels in read_batches(self._split, self._batches, self._resize, self._image_size):
            yield [self._normalize(paddle.to_tensor(pixels)), _column(labels)]


def rank_batches(images: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Indices]:
    """Divide ``0 .. images - 1`` into batches in order, and return those of one rank.

    A single process gets full batches and an incomplete last one. Several ranks get batches that differ by one image at
    most; there must be at least as many images as ranks.
    """
    indices = np.arange(images)
    if world_size == 1:
        return [indices[start : start + batch_size] for start in range(0, images, batch_size)]
    batches_per_rank = min(-(-images // (batch_size * world_size)), images // world_size)
    return np.array_split(indices, batches_per_rank * world_size)[rank::world_size]


def uint8_batches(split: Split, batch_size: int, resize: int, image_size: int) -> Iterator[tuple[Pixels, Indices]]:
    """Yield every image once, in order, as ``(uint8 [n, S, S, 3], labels int64 [n])``: an exported model's input."""
    return read_batches(split, rank_batches(len(split), batch_size), resize, image_size)


def read_batches(
    split: Split, batches: list[Indices], resize: int, image_size: int
) -> Iterator[tuple[Pixels, Indices]]:
    """Yield the images at each batch's indices, as `uint8_batches` does."""
    tasks = _prefetched(lambda indices: resize_and_crop_batch(split.batch(indices), resize, image_size), batches)
    for indices, pixels in tasks:
        yield pixels, split.labels[indices]


def balanced_order(labels: Indices, generator: np.random.Generator) -> Indices:
    """Draw an epoch's order in which each of the K classes comes equally often: ``N // K`` times, or once more.

    A class's images come in turns, without replacement: none comes twice before each of them came once. So images of a
    rare class with n images come about ``N / (K n)`` times each, and each epoch has other images of a frequent class.
    Which classes get the remainder of N changes from epoch to epoch.

    Args:
        labels: int64 ``[N]``; a class without images does not count.
        generator: the source of random numbers.

    Returns:
        Positions in `labels`, int64 ``[N]``, in random order.
    """
    classes = np.unique(labels)
    quotas = np.full(len(classes), len(labels) // len(classes))
    quotas[generator.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    drawn = []
    for label, quota in zip(classes, quotas, strict=True):
        members = np.flatnonzero(labels == label)
        turns = -(-quota // len(members))
        drawn.append(np.concatenate([generator.permutation(members) for _ in range(turns)])[:quota])
    return generator.permutation(np.concatenate(drawn))


def _column(labels: Indices) -> paddle.Tensor:
    return paddle.to_tensor(labels[:, np.newaxis])


def _prefetched(read: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
    """Read one batch ahead in a thread, which ends with the iterator; its errors are raised here.

    The iterating thread takes the tasks from their iterator.
    """
    remaining = iter(tasks)
    task = next(remaining, None)
    if task is None:
        return
    # The first batch is read in this thread: there is nothing to overlap it with, and where it decodes a whole folder
    # into memory, Ctrl-C stops it.
    result = read(task)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        for following in remaining:
            reading = thread.submit(read, following)
            yield task, result
            task, result = following, reading.result()
        yield task, result
