"""Small images with lists of them, and the splits that are opened from these."""

import numpy as np
from PIL import Image

from paddle_resnet.config import DataConfig
from paddle_resnet.data import open_splits


def draw(path):
    """Write an image whose pixels tell its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(list(path.name.encode())).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make_lists(root, *, line="images/{i}.png {i%2}", classes="cat\ndog\n", suffix="txt", header="", folder="images"):
    """Write ten images with lists of 6, 2 and 2 lines, in which ``{i}`` and ``{i%2}`` are number and label."""
    for number in range(10):
        draw(root / folder / f"{number}.png")
    for split, numbers in (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 10))):
        lines = [line.replace("{i}", str(i)).replace("{i%2}", str(i % 2)) + "\n" for i in numbers]
        (root / f"{split}.{suffix}").write_text(header + "".join(lines), encoding="utf-8")
    if classes:
        (root / "label.txt").write_text(classes, encoding="utf-8")
    return root


def opened(root, source="image_list", **options):
    return open_splits(DataConfig.model_validate({"source": source, "root": root, "image_size": 8, **options}))


def content(splits):
    """Return the last part of each file's name with the name of its class, by split."""
    return [
        {
            name.rpartition("/")[2]: splits.classes[label]
            for name, label in zip(part.names(np.arange(len(part))), part.labels, strict=True)
        }
        for part in (splits.train, splits.validation, splits.test)
    ]


def cats_and_dogs(numbers, first="cat", second="dog"):
    return {f"{number}.png": (first, second)[number % 2] for number in numbers}
