"""Serve an exported model over HTTP: a page to drop pictures on, and an interface for programs.

examples:
  paddle-resnet serve output/quickstart                                        then open http://127.0.0.1:8000/
  paddle-resnet serve output/quickstart --workers 2 --port 9000
  curl -F image=@seven.png http://127.0.0.1:8000/predict
  curl -H 'Content-Type: image/png' --data-binary @seven.png http://127.0.0.1:8000/predict?top=1

Addresses: / (the page), /docs, POST /predict, POST /explain (Grad-CAM, where the run's checkpoint lies beside the
exported model), /model, /healthz, /readyz, /metrics. Pictures of all requests share batches. What waits is bounded:
beyond --queue pictures a request gets 429 at once. SIGTERM and Ctrl-C end it when all accepted requests are answered.
It listens on this machine alone unless --host says otherwise; docs/serving.md says what to put in front of it then.

Needs: pip install -r requirements/serve.txt
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from paddle_resnet.cli import program
from paddle_resnet.machine import physical_cores

PACKAGES = ("fastapi", "uvicorn", "httptools", "uvloop", "python_multipart", "prometheus_client")


def main() -> None:
    """Parse the arguments and serve."""
    parser = program.command_parser(__doc__)
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="an exported model, or the run that holds one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=_port, default=8000, metavar="N", help="default: 8000")
    parser.add_argument(
        "--allow-host", action="append", default=[], type=_name, metavar="NAME",
        help="a name of this service, beside localhost, IP addresses and --host; *.NAME: all below it",
    )  # fmt: skip
    parser.add_argument(
        "--allow-origin", action="append", default=[], type=_origin, metavar="URL",
        help="a site whose pages may use this service, such as https://example.org; default: its own page's",
    )  # fmt: skip
    _add_computing(parser)
    _add_limits(parser)
    parser.add_argument("--no-explain", action="store_true", help="no Grad-CAM, whatever lies beside the model")
    parser.add_argument(
        "--log-level", choices=["DEBUG", "INFO", "WARNING"], default="INFO", help="WARNING: no line for each request"
    )
    program.run(parser, _serve, results_in_files=True)


def _add_computing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("computing")
    group.add_argument("--workers", type=program.positive_int, default=1, metavar="N", help="processes; default: 1")
    program.add_inference_options(group)
    group.add_argument(
        "--streams",
        type=program.positive_int,
        metavar="N",
        help="batches computed at the same time, a process each; default: 2, or 1 on one core",
    )
    group.add_argument(
        "--threads",
        type=program.positive_int,
        metavar="N",
        help="CPU threads of a batch; default: the cores are shared out",
    )
    group.add_argument("--max-batch", type=program.positive_int, default=32, metavar="N", help="pictures; default: 32")
    group.add_argument(
        "--max-wait", type=_not_negative, default=2, metavar="MS", help="that a picture waits for others; default: 2"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits of a worker")
    group.add_argument(
        "--queue", type=program.positive_int, default=256, metavar="N", help="pictures that may wait; default: 256"
    )
    group.add_argument(
        "--max-images", type=program.positive_int, default=64, metavar="N", help="in a request; default: 64"
    )
    group.add_argument(
        "--max-body", type=program.positive_int, default=16, metavar="MiB", help="of a request; default: 16"
    )
    group.add_argument(
        "--max-pixels", type=program.positive_int, default=16, metavar="M", help="millions, of a picture; default: 16"
    )
    group.add_argument(
        "--drain",
        type=_not_negative,
        default=1,
        metavar="S",
        help="not ready, but answering, before it ends; default: 1",
    )


def _serve(arguments: argparse.Namespace) -> None:
    program.require("serve.txt", *PACKAGES)
    from paddle_resnet import runtime
    from paddle_resnet.service import Settings
    from paddle_resnet.service.serving import serve

    # Not program.prepare(): the service's lines are JSON.
    runtime.import_paddle()
    share = max(1, physical_cores() // arguments.workers)
    # Two, so that one computes while the other's batch is on its way.
    streams = arguments.streams or min(2, share)
    settings = Settings(
        model=arguments.model,
        host=arguments.host,
        port=arguments.port,
        workers=arguments.workers,
        allow_hosts=tuple(arguments.allow_host),
        allow_origins=tuple(arguments.allow_origin),
        device=arguments.device,
        precision=arguments.precision,
        backend=arguments.backend,
        streams=streams,
        threads=arguments.threads or max(1, share // streams),
        decoders=max(1, share // streams),
        max_batch=arguments.max_batch,
        max_wait=arguments.max_wait / 1000,
        queue=arguments.queue,
        max_images=arguments.max_images,
        max_body=arguments.max_body * 2**20,
        max_pixels=arguments.max_pixels * 1_000_000,
        drain_seconds=arguments.drain,
        explain=not arguments.no_explain,
    )
    serve(settings, arguments.log_level)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def _name(text: str) -> str:
    if not re.fullmatch(r"\*|(\*\.)?[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"expected a name without a port, such as example.org, got {text!r}")
    return text


def _origin(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+/?|null", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f"expected a site such as https://example.org, got {text!r}")
    return text


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value
