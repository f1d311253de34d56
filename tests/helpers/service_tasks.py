"""What stands in the place of the service's network: a module of its own, as its process imports it."""

from __future__ import annotations

import contextlib
import os
import time

import numpy as np

from paddle_resnet.service.inference_workers import ANSWER_HEAD, pack_results, read_pictures
from paddle_resnet.service.pictures import Result, Verdict


def answering_process(settings, image_size, connection):
    """The pictures are what it is to do; the answers are those of two classes that are alike."""
    with connection, connection.makefile("rwb") as stream, contextlib.suppress(ConnectionError):
        connection.sendall(ANSWER_HEAD.pack(True, 0))
        while (question := read_pictures(stream))[0]:
            pictures, costly = question
            if b"die" in pictures:
                os._exit(9)
            if b"slow" in pictures:
                time.sleep(600)
            result = Result(Verdict.READ, np.full(2, 0.5), np.zeros((image_size, image_size, 3), np.uint8))
            answer = pack_results([result] * len(pictures), costly)
            stream.write(ANSWER_HEAD.pack(True, len(answer)) + answer)
            stream.flush()
