"""The official ImageNet weights: fetched once, kept where Paddle keeps them."""

from __future__ import annotations

from pathlib import Path

from paddle.vision.models.resnet import model_urls

from paddle_resnet import download
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError
from paddle_resnet.files import home_folder, md5_of
from paddle_resnet.models.registry import list_models


def official_weights(name: str | None, report: download.Report | None = None) -> Path:
    """Return the file of the model's official weights in ``~/.cache/paddle/hapi/weights/``, downloaded if need be.

    Args:
        name: the model's name; None: a network that is none of `list_models()`.
        report: called with (bytes so far, bytes in all) while the file is downloaded.

    Raises:
        UsageError: there are none for this model, they cannot be fetched, or the file there is not the official one.
        RunFailure: the file cannot be written.
    """
    if name not in model_urls:
        official = ", ".join(known for known in list_models() if known in model_urls)
        raise UsageError(
            f'no official "imagenet" weights for {name or "a network without a name"}; there are some for {official}'
        )
    url, md5 = model_urls[name]
    path = home_folder() / ".cache" / "paddle" / "hapi" / "weights" / url.rsplit("/", 1)[-1]
    if not path.exists():
        logger.info("downloading %s to %s", url, path)
        download.fetch(url, path, md5, report)
    elif (found := md5_of(path)) != md5:
        raise UsageError(
            f"{path}: MD5 is {found}, that of the official file is {md5}; "
            "delete it to download it again, or give its path to load it as your own"
        )
    return path
