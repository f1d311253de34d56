"""Serve an exported model over HTTP: a page to drop pictures on, and an interface for programs.

examples:
  paddle-resnet serve output/quickstart                                        then open http://127.0.0.1:8000/
  paddle-resnet serve output/quickstart --streams 4 --port 9000
  curl -F image=@seven.png http://127.0.0.1:8000/predict
  curl -H 'Content-Type: image/png' --data-binary @seven.png http://127.0.0.1:8000/predict?top=1

Addresses: / (the page), /docs, POST /predict, POST /explain (Grad-CAM, where the run's checkpoint lies beside the
exported model), /model, /healthz, /readyz, /metrics; /v2, the Open Inference Protocol of KServe and Triton. Images of
all requests share batches. What waits is bounded: beyond --queue images a request gets 429 at once. SIGTERM and Ctrl-C
end it when all accepted requests are answered. SIGHUP loads the model of MODEL_DIR anew, and loses no request.
With --engine ray it runs on a Ray cluster, which batches and scales (docs/scale.md; requirements/ray.txt).
It listens on this machine alone unless --host says otherwise; docs/serving.md says what to put in front of it then.

Needs: pip install -r requirements/serve.txt
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from paddle_resnet.cli import parsing, program
from paddle_resnet.system.machine import physical_cores

_port = parsing.checked(parsing.whole, lambda port: 1 <= port <= 65_535, "a port from 1 to 65535")
# Pillow reads no image of more than 178.9 million pixels.
_million_pixels = parsing.checked(parsing.whole, lambda number: 1 <= number <= 178, "a whole number from 1 to 178")
_host_name = parsing.checked(
    str, re.compile(r"\*|(\*\.)?[\w.-]+").fullmatch, "a name without a port, such as example.org"
)
_origin = parsing.checked(
    str, re.compile(r"(?i)[a-z][a-z0-9+.-]*://[^/\s]+/?|null").fullmatch, "a site such as https://example.org"
)
_not_negative = parsing.checked(float, lambda value: 0 <= value < 1e6, "a number of at least 0")
PACKAGES = ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An argument's `dest` is its name in `Settings`, which has the defaults."""
    add = parser.add_argument
    add("model", metavar="MODEL_DIR", type=parsing.path, help="an exported model, or the run that holds one")
    add("--host", help="address to listen on; default: 127.0.0.1")
    add("--port", type=_port, metavar="N", help="default: 8000")
    hosts = "a host name of this service, besides localhost, IP addresses and --host; *.NAME: all names below it"
    add("--allow-host", dest="allow_hosts", action="append", type=_host_name, metavar="NAME", help=hosts)
    origins = "a site whose pages may use this service (CORS), such as https://example.org; default: its own page"
    add("--allow-origin", dest="allow_origins", action="append", type=_origin, metavar="URL", help=origins)
    token = "a file with the bearer token that requests need, all but those of health and of the pages"
    add("--token-file", type=parsing.path, metavar="FILE", help=token)
    add("--no-explain", dest="explain", action="store_false", help="no Grad-CAM")
    levels = ["DEBUG", "INFO", "WARNING"]
    add("--log-level", choices=levels, help="WARNING: no line for each request; default: INFO")

    count = parsing.positive_int
    group = parser.add_argument_group("inference")
    add = group.add_argument
    parsing.add_inference_options(group)
    streams = "inference processes, a batch each at a time; default: 2, or 1 on one core"
    add("--streams", type=count, metavar="N", help=streams)
    add("--threads", type=count, metavar="N", help="CPU threads of a batch; default: its share of the cores")
    add("--max-batch", type=count, metavar="N", help="images of a batch; default: 32")
    wait = "milliseconds that an image waits for others to share its batch; default: 2"
    add("--max-wait", type=_scaled(_not_negative, 1e-3), metavar="MS", help=wait)

    add = parser.add_argument_group("limits").add_argument
    add("--queue", type=count, metavar="N", help="images that may wait; default: 256")
    add("--max-images", type=count, metavar="N", help="images of a request; default: 64")
    add("--max-body", type=_scaled(count, 2**20), metavar="MiB", help="size of a request; default: 16")
    pixels = "million pixels of an image, at most 178; default: 16"
    add("--max-pixels", type=_scaled(_million_pixels, 1_000_000), metavar="M", help=pixels)
    drain = "seconds between a stop signal and the close of the port, not ready but serving; default: 1"
    add("--drain", dest="drain_seconds", type=_not_negative, metavar="S", help=drain)
    parsing.add_engine_options(parser)


def main(arguments: argparse.Namespace) -> None:
    program.require("serve.txt", *PACKAGES)
    from paddle_resnet.service import Settings
    from paddle_resnet.service.server import serve

    if on_ray := parsing.uses_ray(arguments, "streams"):
        arguments.threads, arguments.streams, arguments.explain = arguments.threads or 1, 1, False
    # Not program.prepare(): the service's log lines are JSON.
    cores = physical_cores()
    streams = arguments.streams or min(2, cores)  # with two, one computes while the other's batch is on its way
    chosen = {
        name: value for name, value in vars(arguments).items() if value is not None and name in Settings.model_fields
    }
    settings = Settings(**{"threads": max(1, cores // streams), **chosen, "streams": streams})
    if on_ray:
        from paddle_resnet.on_ray.serve import serve_on_ray

        serve_on_ray(settings, arguments.address or "local")
    else:
        serve(settings)


def _scaled(read: Callable[[str], float], unit: float) -> Callable[[str], float]:
    return lambda text: read(text) * unit
