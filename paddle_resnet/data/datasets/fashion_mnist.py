"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): four gzipped files in the IDX format of MNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paddle_resnet.data.splits import OfficialSplits
from paddle_resnet.download import OfficialFile, ProgressFn, fetch_if_missing
from paddle_resnet.errors import UsageError
from paddle_resnet.images import Indices, Pixels
from paddle_resnet.paths import paddle_cache

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

_ADDRESS = "https://dataset.bj.bcebos.com/fashion_mnist/"
TRAIN_IMAGES = OfficialFile(_ADDRESS + "train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d")
TRAIN_LABELS = OfficialFile(_ADDRESS + "train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe")
TEST_IMAGES = OfficialFile(_ADDRESS + "t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79")
TEST_LABELS = OfficialFile(_ADDRESS + "t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310")

UNSIGNED_BYTE = 0x08
MAX_BYTES = 1 << 26  # the largest of the four has 47 MB


def load_fashion_mnist(root: Path | None, verify: bool = True, progress: ProgressFn | None = None) -> OfficialSplits:
    """Read all images, 28 x 28 grey in three equal channels, and labels.

    `root` is the folder of the four files, into which they are downloaded; None: Paddle's own cache. `verify` and
    `progress` are as of `load_cifar`.

    Raises:
        UsageError: no network, another MD5, a truncated or damaged file.
    """
    folder = root or paddle_cache("dataset/fashion-mnist")
    return OfficialSplits(
        *_read_pair(TRAIN_IMAGES, TRAIN_LABELS, folder, verify, progress),
        *_read_pair(TEST_IMAGES, TEST_LABELS, folder, verify, progress),
        CLASSES,
    )


def _read_pair(
    images_file: OfficialFile, labels_file: OfficialFile, folder: Path, verify: bool, progress: ProgressFn | None
) -> tuple[Pixels, Indices]:
    images_path = fetch_if_missing(images_file, folder, verify, progress)
    labels_path = fetch_if_missing(labels_file, folder, verify, progress)
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or not len(images):
        raise UsageError(f"{images_path}: expected images of shape [n, 28, 28], found {list(images.shape)}")
    if labels.shape != images.shape[:1]:
        raise UsageError(f"{labels_path}: expected {len(images)} labels, one an image, found {list(labels.shape)}")
    if labels.size and labels.max() >= len(CLASSES):
        raise UsageError(f"{labels_path}: label {labels.max()}, expected 0..{len(CLASSES) - 1}; the file is damaged")
    return np.repeat(images[..., np.newaxis], 3, axis=-1), labels.astype(np.int64)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes: two zeros, a type, the rank, big-endian sizes, the values.

    Raises:
        UsageError: the file is of another kind, or cut short.
    """
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"{path}: truncated or damaged ({error}); delete it to download it again, or put a whole copy there"
        ) from error
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path}: holds more than {MAX_BYTES:,} bytes, which is not Fashion-MNIST")
    if (
        len(content) < 4
        or content[:3] != bytes((0, 0, UNSIGNED_BYTE))
        or not 1 <= content[3] <= 3
        or (len(content) < 4 + 4 * content[3])
    ):
        raise UsageError(
            f"{path}: not an IDX file of unsigned bytes and one to three dimensions, as MNIST's authors wrote them"
        )
    sizes = struct.unpack_from(f">{content[3]}I", content, 4)
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * content[3])
    if values.size != math.prod(sizes):
        raise UsageError(f"{path}: {values.size} values where its head says {list(sizes)}; the file is damaged")
    return values.reshape(sizes)
