"""`Loader`: batches of a user's own array or `paddle.io.Dataset`, without a config or a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from paddle import io
from PIL import Image

from paddle_resnet.config import AugmentConfig
from paddle_resnet.config.loading import check_config
from paddle_resnet.data.loader import Batch, TrainLoader, ValidationLoader
from paddle_resnet.data.normalize import Normalize
from paddle_resnet.data.splits import MemorySplit
from paddle_resnet.errors import UsageError, require_count, shown
from paddle_resnet.images import Indices, Pixels
from paddle_resnet.images.decode import decode_image, resize_and_crop_batch


class Dataset(Protocol):
    """What `paddle.io.Dataset` has: a length, and items that begin with an image and its label."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Loader:
    """Batches of your own images, for `paddle.Model.fit` or a loop of your own.

    Pixels stay uint8 in memory; a thread augments and normalises whole batches while the network computes.

        >>> import numpy as np
        >>> from paddle_resnet.data import Loader
        >>> pixels = np.zeros([100, 32, 32, 3], np.uint8)
        >>> labels = np.arange(100) % 10
        >>> train = Loader(pixels, labels, batch_size=32, shuffle=True, augment={"pad": 4, "flip": True})
        >>> [tuple(images.shape) for images, labels in train]
        [(32, 3, 32, 32), (32, 3, 32, 32), (32, 3, 32, 32)]
        >>> test = Loader(pixels, labels, batch_size=32)
        >>> [tuple(labels.shape) for images, labels in test]
        [(32, 1), (32, 1), (32, 1), (4, 1)]

    Args:
        images: uint8 ``[N, H, W, 3]`` or grey ``[N, H, W]``; or a `paddle.io.Dataset` whose items begin with an image
            (PIL, or uint8 of one of these shapes) and a label. A dataset is read once, into memory.
        labels: of an array's images, integers ``[N]`` of at least 0; None for a dataset, which has them.
        batch_size: images a batch.
        shuffle: for training: a new random order every epoch, without an incomplete last batch. Otherwise every image
            comes once, in order.
        augment: with `shuffle`: an `AugmentConfig`, or its keys as in the group ``augment`` of a config.
        image_size: pixels a side of the batches, S; other images are resized and cropped. None: as the first image.
        mean: of ``pixel / 255``, which is subtracted: a number, or one for each channel.
        std: its standard deviation, by which is divided. Give training, test and prediction the same.
        seed: of order and augmentation.

    Attributes:
        normalize: the layer that turned pixels into images, for pixels from elsewhere.

    Raises:
        UsageError: pixels, labels or augmentation are not as above.
    """

    def __init__(
        self,
        images: Pixels | Dataset,
        labels: Sequence[int] | np.ndarray | None = None,
        batch_size: int = 128,
        *,
        shuffle: bool = False,
        augment: AugmentConfig | Mapping[str, Any] | None = None,
        image_size: int | None = None,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.25,
        seed: int = 0,
    ) -> None:
        require_count("batch_size", batch_size)
        if image_size is not None:
            require_count("image_size", image_size)
        require_count("seed", seed, least=0)
        if not isinstance(augment, AugmentConfig | Mapping | None):
            raise UsageError(f'augment: expected keys with values, as {{"flip": True}}, got {shown(repr(augment))}')
        if augment is not None and not shuffle:
            raise UsageError("augment: is for training; give shuffle=True too, or leave it out")
        pixels, classes = _read_array(images, labels) if labels is not None else _read_dataset(images, image_size)
        if classes.min() < 0:
            raise UsageError(f"labels: expected integers of at least 0, got {classes.min()}")
        size = pixels.shape[1] if image_size is None else image_size
        if pixels.shape[1:3] != (size, size):
            pixels = resize_and_crop_batch(pixels, size, size)
        split = MemorySplit(pixels, classes, "image")
        self.normalize = Normalize(_by_channel("mean", mean), _by_channel("std", std))
        self._batches: TrainLoader | ValidationLoader
        if shuffle:
            if not isinstance(augment, AugmentConfig):
                augment = check_config(AugmentConfig, augment or {}, (), "augment")
            self._batches = TrainLoader(split, batch_size, size, size, self.normalize, augment, seed)
        else:
            self._batches = ValidationLoader(split, batch_size, size, size, self.normalize)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield ``[images float32 [n, 3, S, S], labels int64 [n, 1]]`` on the current device.

        With mixup or cutmix, two tensors follow: the labels of the images mixed in, int64 ``[n, 1]``, whose weight is
        ``1 - lam``, and lam, float32 ``[n, 1]``.
        """
        return iter(self._batches)


def _read_array(images: Any, labels: Any) -> tuple[Pixels, Indices]:
    if isinstance(images, io.Dataset):
        raise UsageError("labels: a dataset has its own; give it without labels, as Loader(dataset, batch_size=64)")
    classes = np.asarray(labels)
    if classes.shape[1:] == (1,):  # as a batch of paddle has them
        classes = classes[:, 0]
    if classes.ndim != 1 or classes.dtype.kind not in "iu" or len(classes) == 0:
        raise UsageError(f"labels: expected integers [N] or [N, 1], got {classes.dtype} {list(classes.shape)}")
    pixels = np.asarray(images)
    _require_uint8(pixels)
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4 or len(pixels) != len(classes) or pixels.shape[-1] not in (1, 3):
        expected = f"[{len(classes)}, H, W, 3] or [{len(classes)}, H, W], as there are {len(classes)} labels"
        raise UsageError(f"images: expected {expected}, got {list(pixels.shape)}")
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels, classes


def _read_dataset(dataset: Any, image_size: int | None) -> tuple[Pixels, Indices]:
    unfit = isinstance(dataset, np.ndarray | io.IterableDataset)
    if unfit or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UsageError("images: expected an array with labels, or a dataset with a length and items (image, label)")
    pictures: list[Pixels] = []
    labels = np.zeros(len(dataset), np.int64)
    for index in range(len(dataset)):
        item = dataset[index]
        label = np.asarray(item[1] if isinstance(item, tuple | list) and len(item) > 1 else None)
        if label.size != 1 or label.dtype.kind not in "iub":
            raise UsageError(f"images: item {index}: expected (image, integer), got {shown(item)}")
        image = item[0]
        if not isinstance(image, Image.Image):
            image = np.asarray(image)
            _require_uint8(image)
        size = image_size or (pictures[0].shape[0] if pictures else min(np.asarray(image).shape[:2]))
        pictures.append(decode_image(image, size, size, f"image {index}"))
        labels[index] = label.item()
    if not pictures:
        raise UsageError("images: the dataset has no items")
    return np.stack(pictures), labels


def _require_uint8(pixels: np.ndarray) -> None:
    if pixels.dtype != np.uint8:
        raise UsageError(
            f"images: expected uint8 pixels 0..255, got {pixels.dtype}; leave out transforms such as ToTensor and "
            "Normalize, as the loader does both"
        )


def _by_channel(argument: str, value: Any) -> tuple[float, ...]:
    try:
        values = np.ravel(value).tolist() * (3 if np.ndim(value) == 0 else 1)
    except ValueError:  # lists of different lengths
        values = []
    is_right = len(values) == 3 and all(isinstance(each, int | float) and 0 <= each <= 1 for each in values)
    if not is_right or (argument == "std" and 0 in values):
        least = "above 0" if argument == "std" else "of at least 0"
        raise UsageError(
            f"{argument}: expected a number, or three, {least} and at most 1, as of pixels in 0..1, got {shown(value)}"
        )
    return tuple(values)
