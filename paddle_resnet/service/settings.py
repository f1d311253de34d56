"""What a service is told when it starts, and the predictor that it asks for. It travels to workers as JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from paddle_resnet.inference.options import BackendName, Precision

if TYPE_CHECKING:
    from paddle_resnet.inference import Predictor


VARIABLE = "PADDLE_RESNET_SERVICE"


class Settings(BaseModel):
    """Address, model, batching and limits. Sizes are of one worker process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path = Field(description="an exported model, or the run's folder that holds one")
    host: str = Field("127.0.0.1", description="address to listen on; the default is this machine alone")
    port: int = Field(8000, ge=1, le=65535)
    workers: int = Field(1, ge=1, description="processes that share the port")
    allow_hosts: tuple[str, ...] = Field((), description="names of this service beside localhost and IP addresses")
    allow_origins: tuple[str, ...] = Field((), description="sites whose pages may use it, beside its own")
    device: str = "auto"
    precision: Precision | None = Field(None, description="of those the export offers")
    backend: BackendName | None = Field(None, description="None: the faster one, as `Predictor`")
    streams: int = Field(1, ge=1, description="batches that are computed at the same time, a process each")
    threads: int = Field(1, ge=1, description="CPU threads of one batch")
    decoders: int = Field(1, ge=1, description="threads that decode the pictures of one batch")

    max_batch: int = Field(32, ge=1, description="most images the network is given at once")
    max_wait: float = Field(0.002, ge=0, description="seconds that an image waits for others to share its batch")
    queue: int = Field(256, ge=1, description="images admitted and not yet answered; beyond it requests get 429")

    max_body: int = Field(16 * 2**20, ge=1, description="bytes of a request's body")
    max_buffered: int = Field(256 * 2**20, ge=1, description="bytes of all bodies held at once")
    max_images: int = Field(64, ge=1, description="pictures in a request")
    max_pixels: int = Field(16_000_000, ge=1, description="pixels of one picture")
    request_seconds: float = Field(5, gt=0, description="of decoding the costly pictures of a request")
    client_seconds: float = Field(10, gt=0, description="of decoding a client's costly pictures, at once")
    max_connections: int = Field(
        1000, ge=1, description="open connections; beyond it one that waits for its client is closed"
    )

    body_seconds: float = Field(30, gt=0, description="until its body is there")
    answer_seconds: float = Field(30, gt=0, description="until its pictures are answered")
    idle_seconds: int = Field(15, ge=1, description="that an idle connection is kept open")
    drain_seconds: float = Field(1, ge=0, description="that a stopping service still takes requests, no longer ready")

    explain: bool = Field(True, description="offer Grad-CAM where the run's checkpoint lies beside the exported model")

    digest: str | None = Field(None, description="of `inference.yml`, as the first process has read it")

    @property
    def picture_seconds(self) -> float:
        """Processor time that decoding one picture may take: 1.5 s for one of 16 million pixels."""
        return 1.5 * max(1.0, self.max_pixels / 16e6)

    @classmethod
    def from_environment(cls) -> Settings:
        """Read what `put_into_environment` has left."""
        return cls.model_validate_json(os.environ[VARIABLE])

    def put_into_environment(self) -> None:
        """Leave the settings to processes that this one starts."""
        os.environ[VARIABLE] = self.model_dump_json()


def load_predictor(settings: Settings) -> Predictor:
    """Load the exported model.

    Raises:
        UsageError, RunFailure: it cannot be loaded.
    """
    from paddle_resnet.inference import Predictor

    return Predictor(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        backend=settings.backend,
        threads=settings.threads,
        batch_size=settings.max_batch,
        digest=settings.digest,
    )


def pin_model(settings: Settings, predictor: Predictor) -> Settings:
    """Have all other processes load the model that this one has loaded, or none."""
    return settings.model_copy(update={"digest": predictor.config.digest()})
