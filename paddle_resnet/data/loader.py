"""From a split to batches: for `paddle.Model.fit`, for validation, and for whatever answers scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import paddle

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data.augment.batch import Augment, Changes
from paddle_resnet.data.augment.mixing import mix_images, mix_labels
from paddle_resnet.data.normalize import Normalize
from paddle_resnet.data.sampling import balanced_order
from paddle_resnet.data.splits import Split
from paddle_resnet.images import Indices, Pixels
from paddle_resnet.images.resize import centre_view

Batch = list[paddle.Tensor]
Task = TypeVar("Task")
Result = TypeVar("Result")


class TrainLoader:
    """Augmented batches in a new random order every epoch.

    Its order and its augmentation come from `generator` alone, which is drawn from by whoever iterates (never by the
    prefetching thread): with its ``bit_generator.state`` put back, the next epoch is the same again. `crop_size` is the
    batches' pixels a side, S; it is `image_size` unless set to less before an epoch (progressive resizing).

    An epoch that was stopped goes on with the generator's state of its beginning, which `state_dict` has, and with
    `first_batch` set: what is drawn for the batches before is drawn again, and no image of theirs is read.

    For a CPU the changes are made on the host, by the prefetching thread; for a GPU they are made there, unless some of
    them are made by the host alone (TrivialAugment). Mixup and cutmix come last, on the device.
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
        share: Indices | None = None,
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
            balanced: each class equally often, as `sampling.balanced_order` draws them.
            share: places in each batch, ``0 .. batch_size - 1``: only these images are yielded, as the whole batch
                would hold them; the others are another process's. None: all.
        """
        self.generator = np.random.default_rng(seed)
        self._split = split
        self._balanced = balanced
        self._share = share
        self._batch_size = min(batch_size, len(split))
        self._normalize = normalize
        self._augment = Augment(augment, resize, image_size, normalize.mean)
        self.crop_size = image_size
        self.first_batch = 0
        """Batches of the next epoch that have been seen; all of them: the generator stands behind that epoch."""
        self.indices: Indices = np.zeros(0, dtype=np.int64)
        """Which images the latest batch is of, those of other processes included."""
        self._at_epochs_begin: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self._split) // self._batch_size

    def state_dict(self) -> dict[str, Any]:
        """The generator's state at the beginning of the epoch in progress; after its last batch, that of the next."""
        return {"generator": self._at_epochs_begin or self.generator.bit_generator.state}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """Begin the next epoch as `state` says; `first_batch` is set apart."""
        self.generator.bit_generator.state = state["generator"]

    def names(self) -> list[str]:
        """Names of the images of the latest batch."""
        return self._split.names(self.indices)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield ``[images float32 [n, 3, S, S], labels int64 [n, 1]]`` on the current device.

        With mixup or cutmix, the partners' labels and the shares of the images' own follow, see `mix_labels`. Of a
        process with a `share`, n is the number of its images.
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
        draws = (self._needed(each, self._augment.draw((len(each), *stored), self.generator, size)) for each in batches)
        on_host = paddle.get_device() == "cpu" or self._augment.needs_host

        def read(task: tuple[Indices, Indices, Changes]) -> Pixels:
            _, indices, changes = task
            pixels = self._split.batch(indices)
            return self._augment.on_host(pixels, changes) if on_host else pixels

        unseen = _prefetched(read, itertools.islice(draws, first, None))
        for number, ((batch, indices, changes), pixels) in enumerate(unseen, first + 1):
            # Everything of an epoch has been drawn once its last batch is here.
            self._at_epochs_begin = begin if number < len(self) else None
            self.indices = batch
            images = paddle.to_tensor(pixels)
            levels = images if on_host else self._augment.on_device(images, changes)
            labels = self._split.labels[indices]
            if changes.mixture is None:
                yield [self._normalize(levels), _column(labels)]
            else:
                mixed = mix_images(self._normalize(levels), changes.mixture)
                whole = [mixed, *mix_labels(labels, changes.mixture)]
                yield whole if self._share is None else [each[: len(self._share)] for each in whole]

    def _needed(self, batch: Indices, changes: Changes) -> tuple[Indices, Indices, Changes]:
        """The batch, and those of its images that this process needs, with what was drawn for them."""
        if self._share is None:
            return batch, batch, changes
        needed, mixture = self._share, None
        if changes.mixture is not None:
            needed, mixture = changes.mixture.of(self._share)
        return batch, batch[needed], changes.of(needed)._replace(mixture=mixture)


class ValidationLoader:
    """Every image once, in order, as evaluation sees it."""

    def __init__(
        self,
        split: Split,
        batch_size: int,
        image_size: int,
        resize: int,
        normalize: Normalize,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        """Prepare the batches of `split`; the arguments are those of `TrainLoader`.

        Of several `processes`, each has other images, all of them together every image once, in as many batches as the
        others, none of which is empty (there are to be no fewer images than processes).
        """
        self._split = split
        self._batches = shares(len(split), batch_size, process, processes)
        self._image_size = image_size
        self._resize = resize
        self._normalize = normalize

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield ``[images float32 [n, 3, S, S], labels int64 [n, 1]]`` on the current device."""
        for pixels, labels in chosen_batches(self._split, self._batches, self._resize, self._image_size):
            yield [self._normalize(paddle.to_tensor(pixels)), _column(labels)]


def shares(images: int, batch_size: int, process: int = 0, processes: int = 1) -> list[Indices]:
    """Divide ``0 .. images - 1`` into batches in order, and take those of one process.

    A single process has full batches and an incomplete last one. Several have batches that differ by one image at most
    (there are to be no fewer images than processes).
    """
    everything = np.arange(images)
    if processes == 1:
        return [everything[start : start + batch_size] for start in range(0, images, batch_size)]
    rounds = min(-(-images // (batch_size * processes)), images // processes)
    return np.array_split(everything, rounds * processes)[process::processes]


def uint8_batches(split: Split, batch_size: int, resize: int, image_size: int) -> Iterator[tuple[Pixels, Indices]]:
    """Yield every image once, in order, as ``(uint8 [n, S, S, 3], labels int64 [n])``: an exported model's input."""
    return chosen_batches(split, shares(len(split), batch_size), resize, image_size)


def chosen_batches(
    split: Split, batches: list[Indices], resize: int, image_size: int
) -> Iterator[tuple[Pixels, Indices]]:
    """Yield the images at each batch's places in the split; otherwise as `uint8_batches`."""
    for indices, pixels in _prefetched(lambda each: centre_view(split.batch(each), resize, image_size), batches):
        yield pixels, split.labels[indices]


def _column(labels: Indices) -> paddle.Tensor:
    return paddle.to_tensor(labels[:, np.newaxis])


def _prefetched(read: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
    """Read one batch ahead in a thread, which ends with the iterator; its errors are raised here.

    The tasks are taken from their iterator in the thread of whoever iterates.
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
