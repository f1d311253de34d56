"""A job: the same network in PyTorch, eager and channels last, on batches of random pixels."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from paddle_resnet.benchmark.timing import time_calls
from paddle_resnet.benchmark.torch_models import make_torch_model, prepare_torch


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Time calls: keys `network` (see `networks.describe`), `size`, `precision`, and those of `infer.exported`."""
    prepare_torch(job["threads"])
    network = make_torch_model(job["network"]).eval().to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (job["batch"], job["size"], job["size"], 3), dtype=torch.uint8)

    def predict() -> Tensor:
        # Permuted, the pixels are channels last without a copy.
        return network((pixels.permute(0, 3, 1, 2).float() - 120) / 60).softmax(-1)

    autocast = torch.autocast("cpu", torch.bfloat16) if job["precision"] == "bfloat16" else nullcontext()
    with torch.inference_mode(), autocast:
        return time_calls(predict, job["batch"], job["calls"], job["warm_up"])
