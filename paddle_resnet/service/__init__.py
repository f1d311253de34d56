"""The exported model behind HTTP. Needs requirements/serve.txt.

A request passes `protocol` (bytes, connections) -> `middleware` (hosts, request id, log, metrics) -> `app` (routes) ->
`request_body` (limits, images) -> `predict` -> `batcher` -> `inference_workers` (processes that decode and compute).
"""

from paddle_resnet.service.settings import Settings

__all__ = ["Settings"]
