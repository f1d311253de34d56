"""What the tests of dead workers run in place of a worker: a module of its own, which its process imports."""

from __future__ import annotations

import contextlib
import os
import time

import numpy as np

from paddle_resnet.service.worker_process import ImageResult, ImageStatus, pack_results, read_request, send_response

CLASSES = 2


def obedient_worker(settings, image_size, connection):
    """Do what the images say: die, sleep, or predict two classes that are equally probable."""
    with connection, contextlib.suppress(ConnectionError):
        send_response(connection, b"cpu")
        while True:
            images, costly = read_request(connection)
            if b"die" in images:
                os._exit(9)
            if b"slow" in images:
                time.sleep(600)
            pixels = np.zeros((image_size, image_size, 3), np.uint8)
            result = ImageResult(ImageStatus.OK, np.full(CLASSES, 0.5), pixels)
            send_response(connection, pack_results([result] * len(images), image_size, CLASSES, costly))
