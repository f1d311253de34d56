"""A job: PyTorch answering batches of random pixels with the same network, eager, channels last."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from paddle_resnet.benchmark.timing import call_times
from paddle_resnet.benchmark.torch_models import make_twin, prepare_torch


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Time calls: keys `network` (`twins.describe`), `size`, `precision`, `batch`, `threads`, `calls`, `warm_up`."""
    prepare_torch(job["threads"])
    network = make_twin(job["network"]).eval().to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (job["batch"], job["size"], job["size"], 3), dtype=torch.uint8)
    narrow = torch.autocast("cpu", torch.bfloat16) if job["precision"] == "bfloat16" else nullcontext()
    with torch.inference_mode(), narrow:
        return call_times(lambda: _answer(network, pixels), job["batch"], job["calls"], job["warm_up"])


def _answer(network: nn.Module, pixels: Tensor) -> Tensor:
    """Probabilities of raw pixels; permuted, they are channels last as they lie."""
    return network((pixels.permute(0, 3, 1, 2).float() - 120) / 60).softmax(-1)
