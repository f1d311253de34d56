"""From a split to batches: in random order for training, in order for evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np
import paddle

from paddle_resnet.config import AugmentConfig
from paddle_resnet.console import logger
from paddle_resnet.data.augment.batch import Augment
from paddle_resnet.data.augment.host import AugmentParams
from paddle_resnet.data.augment.mixing import MixParams, mix_images, mix_labels
from paddle_resnet.data.normalize import Normalize
from paddle_resnet.data.reading import PictureSplit, Request, read_ahead
from paddle_resnet.data.splits import Split
from paddle_resnet.errors import UsageError
from paddle_resnet.images import Indices, Mask, Pixels

Batch = list[paddle.Tensor]
PREFETCH = 2  # batches that are read ahead
FLIP_STREAM = 1  # with the seed, the seed of the first epoch's alternating flips, which are not the generator's


class TrainLoader:
    """Augmented batches in a new random order every epoch.

    Order and augmentation come from `generator` alone, and only the iterating thread draws from it, never a worker:
    with its ``bit_generator.state`` restored, the next epoch is the same again.

    An interrupted epoch continues from the generator's state at its beginning, which `state_dict` has, and with
    `first_batch` set: the batches before it are drawn again, and none of their images is read.

    The workers augment (`read_ahead`). Mixup and cutmix come last, on the device.

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
        prefetch: batches that are read ahead.

    Attributes:
        crop_size: the batches' pixels a side; less than `image_size` for progressive resizing.
        mixes: whether mixup and cutmix, if they are set, change the batches.
        epoch: number of the next epoch, from 0: alternating flips depend on it.
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
        prefetch: int = PREFETCH,
    ) -> None:
        self.generator = np.random.default_rng(seed)
        self._split = split
        self._balanced = balanced
        self._rank_positions = rank_positions
        self._batch_size = min(batch_size, len(split))
        self._normalize = normalize
        self._resize = resize
        self._prefetch = prefetch
        self._crops: str | None = None
        if isinstance(split, PictureSplit) and augment.scale is not None:
            self._crops = "in memory" if split.in_memory else "in files"
        self._augment = Augment(augment, resize, image_size, normalize.mean)
        self._first_flips: Mask | None = None
        if augment.flip == "alternating":
            self._first_flips = np.random.default_rng([seed, FLIP_STREAM]).random(len(split)) < 0.5
        self.crop_size = image_size
        self.mixes = True
        self.epoch = 0
        self.first_batch = 0
        self.indices: Indices = np.zeros(0, dtype=np.int64)
        self._epoch_start: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self._split) // self._batch_size

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state at the start of the epoch in progress; after its last batch, of the next."""
        return {"generator": self._epoch_start or self.generator.bit_generator.state, "crops": self._crops}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the generator's state; set `first_batch` separately.

        Raises:
            UsageError: pictures in memory and decoded ones give different crops, and the run began with the others.
        """
        began = state.get("crops")
        if began is None and self._crops is not None:
            logger.info("the run began with crops of the pictures' centre squares; now they are of whole pictures")
        elif began != self._crops:
            raise UsageError(
                f"data.memory_mb: the run began with crops of pictures {began}, but now they would be {self._crops}, "
                "which differ slightly; put data.memory_mb back"
            )
        self.generator.bit_generator.state = state["generator"]

    def names(self) -> list[str]:
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
        size, mixes, odd_epoch = self.crop_size, self.mixes, self.epoch % 2 == 1

        def draw(batch: Indices) -> Request:
            params = self._augment.draw(len(batch), self.generator, size, mixes)
            if self._first_flips is not None:
                params = params._replace(flipped=self._first_flips[batch] ^ odd_epoch)
            return self._request(batch, params)

        requests = itertools.islice(map(draw, batches), first, None)
        for number, (request, pixels) in enumerate(read_ahead(self._split, requests, self._prefetch), first):
            # With the last batch, everything of this epoch has been drawn.
            self._epoch_start = begin if number + 1 < len(self) else None
            self.indices = batches[number]
            labels, mix = self._split.labels[request.indices], _mix_of(request)
            images = self._normalize.of_pixels(pixels)
            if mix is None:
                yield [images, _column(labels)]
            else:
                mixed = [mix_images(images, mix), *mix_labels(labels, mix)]
                own = self._rank_positions
                yield mixed if own is None else [each[: len(own)] for each in mixed]

    def preview(self, indices: Indices, draws: int) -> Iterator[Pixels]:
        """Yield the images at `indices` in `draws` random augmentations, uint8 ``[n, S, S, 3]``; no epoch changes."""
        every = (self._augment.draw(len(indices), self.generator, self.crop_size) for _ in range(draws))
        requests = (Request(indices.copy(), params, self._resize, None) for params in every)
        for request, pixels in read_ahead(self._split, requests, self._prefetch):
            images, mix = self._normalize.of_pixels(pixels), _mix_of(request)
            yield self._normalize.denormalize(images if mix is None else mix_images(images, mix))

    def _request(self, batch: Indices, params: AugmentParams) -> Request:
        """Request those of a batch's images that this rank needs, with their parameters."""
        if self._rank_positions is not None:
            needed, mix = self._rank_positions, None
            if params.mix is not None:
                needed, mix = params.mix.select(self._rank_positions)
            batch, params = batch[needed], params.select(needed)._replace(mix=mix)
        return Request(batch, params, self._resize, None)


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
        prefetch: int = PREFETCH,
    ) -> None:
        self._split = split
        self._prefetch = prefetch
        self._batches = rank_batches(len(split), batch_size, rank, world_size)
        self._image_size = image_size
        self._resize = resize
        self._normalize = normalize

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield ``[images float32 [n, 3, S, S], labels int64 [n, 1]]`` on the current device."""
        for pixels, labels in read_batches(self._split, self._batches, self._resize, self._image_size, self._prefetch):
            yield [self._normalize.of_pixels(pixels), _column(labels)]


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
    split: Split, batches: list[Indices], resize: int, image_size: int, prefetch: int = PREFETCH
) -> Iterator[tuple[Pixels, Indices]]:
    """Yield the images at each batch's indices, as `uint8_batches` does."""
    requests = (Request(indices, None, resize, image_size) for indices in batches)
    for request, pixels in read_ahead(split, requests, prefetch):
        yield pixels, split.labels[request.indices]


def balanced_order(labels: Indices, generator: np.random.Generator) -> Indices:
    """Draw an epoch's order in which each of the K classes comes equally often: ``N // K`` times, or once more.

    A class's images come in turns, without replacement: none comes twice before each of them came once. So images of a
    rare class with n images come about ``N / (K n)`` times each, and each epoch has other images of a frequent class.
    Which classes get the remainder of N changes from epoch to epoch. A class without images does not count.

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


def _mix_of(request: Request) -> MixParams | None:
    return request.params.mix if request.params is not None else None


def _column(labels: Indices) -> paddle.Tensor:
    return paddle.to_tensor(labels[:, np.newaxis])
