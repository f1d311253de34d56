"""The exported model behind HTTP: admission, decoding, batching, the network, answers, and the page to look at them.

A request's way: `guard` (its head) -> `envelope` (id, log, metrics) -> `routes` -> `body` (limits) -> `pictures` ->
`batcher` (`fair_queue`) -> `network` (processes) -> its answer. Needs requirements/serve.txt.
"""

from paddle_resnet.service.settings import Settings

__all__ = ["Settings"]
