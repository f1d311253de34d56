"""What the tests of dead workers run in place of a worker: a module of its own, which its process imports."""

from __future__ import annotations

import os
import time

import numpy as np

from paddle_resnet.service.worker_process import ImageResult, ImageStatus


def make_obedient_worker(settings, digest):
    """Return what does as the images say: die, sleep, or predict two classes that are equally probable.

    Each file ``die*`` in the model's folder is one process that dies while it loads. While there is a file ``hang``,
    none gets ready.
    """
    while (settings.model / "hang").exists():
        time.sleep(0.05)
    for file in settings.model.glob("die*"):
        file.unlink()
        os._exit(9)

    def compute(batch):
        texts = [image for image in batch.images if isinstance(image, bytes)]
        if b"die" in texts:
            os._exit(9)
        if b"slow" in texts:
            (settings.model / "slow").touch()
            time.sleep(600)
        if b"fail" in texts:
            return "a traceback"
        return [ImageResult(ImageStatus.OK, np.full(2, 0.5))] * len(batch.images)

    return compute
