"""The exported model behind HTTP. Needs requirements/serve.txt.

A request passes `protocol` (bytes, connections) -> `app` (request id, log, routes) and `access` (hosts, token) ->
`predict` or `open_inference` -> `request_body` (limits) -> `batcher` -> `inference_workers` -> `worker_process`.
"""

from paddle_resnet.service.settings import Settings

__all__ = ["Settings"]
