"""The settings of a service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from paddle_resnet.config.schema import Group
from paddle_resnet.inference.options import BackendName, Precision


def normal_origin(origin: str) -> str:
    """Return an origin as browsers send it: in lower case, without the usual port of its scheme."""
    return re.sub(r"^(http://.+):80$|^(https://.+):443$", r"\1\2", origin.lower())


Origin = Annotated[str, AfterValidator(lambda text: normal_origin(text.rstrip("/")))]


class Settings(Group):
    """Address, model, batching and limits."""

    model: Path = Field(description="an exported model, or the run folder that holds one")
    host: str = Field("127.0.0.1", description="address to listen on; the default is this machine alone")
    port: int = Field(8000, ge=1, le=65535)
    allow_hosts: tuple[str, ...] = Field((), description="host names of this service, besides localhost and IPs")
    allow_origins: tuple[Origin, ...] = Field((), description="other sites whose pages may use this service")
    token_file: Path | None = Field(None, description="holds the bearer token that requests need")
    log_level: str = Field("INFO", description="WARNING: no line for each request")
    device: str = "auto"
    precision: Precision | None = Field(None, description="one that the export offers; None: fp32")
    backend: BackendName | None = Field(None, description="None: the faster one, as in `Predictor`")
    streams: int = Field(1, ge=1, description="inference workers: batches that are computed at the same time")
    threads: int = Field(1, ge=1, description="CPU threads of one batch, which decode its images too")
    explain: bool = Field(True, description="offer Grad-CAM where the run's checkpoint lies beside the exported model")

    max_batch: int = Field(32, ge=1, description="images of one batch")
    max_wait: float = Field(0.002, ge=0, description="seconds that an image waits for others to share its batch")
    queue: int = Field(256, ge=1, description="images admitted and not yet answered; more requests get 429")

    max_body: int = Field(16 * 2**20, ge=1, description="bytes of a request body")
    max_buffered: int = Field(256 * 2**20, ge=1, description="bytes of all bodies together, at least `max_body`")
    max_images: int = Field(64, ge=1, description="images of a request")
    max_pixels: int = Field(16_000_000, ge=1, le=178_000_000, description="pixels of an image; Pillow reads no more")
    max_connections: int = Field(1000, ge=1, description="open connections; more make idle ones close")

    body_timeout: float = Field(30, gt=0, description="seconds until a request body is complete")
    response_timeout: float = Field(30, gt=0, description="seconds until the scores of a request are there")
    keep_alive_timeout: int = Field(15, ge=1, description="seconds that an idle connection stays open")
    drain_seconds: float = Field(1, ge=0, description="between a stop signal and the close of the port")

    @property
    def image_decode_seconds(self) -> float:
        """Processor time that one image may take: 1.5 s for 16 million pixels."""
        return 1.5 * max(1.0, self.max_pixels / 16e6)
