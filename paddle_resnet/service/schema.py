"""What the service answers, for its documentation; the answers are written without these classes, for speed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paddle_resnet.service.pictures import JsonPictures


class Ranked(BaseModel):
    """A class and its probability."""

    model_config = ConfigDict(populate_by_name=True)

    label: str = Field(alias="class")
    probability: float = Field(ge=0, le=1)


class PicturePrediction(BaseModel):
    """What the model says of one picture."""

    image: int = Field(description="the picture's number in the request, from 0")
    top: list[Ranked] = Field(description="the most probable classes, the best first")


class Predictions(BaseModel):
    """Of all pictures of a request, in their order."""

    model: str
    predictions: list[PicturePrediction]


class ExplanationAnswer(Ranked):
    """Grad-CAM of one picture."""

    picture: str = Field(description="data URL of a PNG: what the network sees of the picture")
    heat: str = Field(description="data URL of a PNG to lay over it, more opaque where more speaks for the class")


class ModelInfo(BaseModel):
    """The model and the limits."""

    model: str
    classes: list[str]
    image_size: int
    max_images: int
    max_body: int
    max_pixels: int
    formats: list[str]
    explain: bool


class ErrorDetail(BaseModel):
    """Why there is no answer."""

    code: str = Field(description="one word, for programs")
    message: str = Field(description="a line, for people")
    image: int | None = Field(None, description="the picture that is the reason")


class ErrorAnswer(BaseModel):
    """Every answer that is not 200."""

    error: ErrorDetail


class State(BaseModel):
    """Of /healthz and /readyz."""

    status: str


BINARY = {"type": "string", "format": "binary"}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "the body is malformed, or holds no picture"},
    408: {"model": ErrorAnswer, "description": "the body did not arrive in time"},
    413: {"model": ErrorAnswer, "description": "the body is too large, or holds too many pictures"},
    415: {"model": ErrorAnswer, "description": "a body of another type, or compressed"},
    422: {"model": ErrorAnswer, "description": "a picture cannot be read, or has too many pixels"},
    429: {"model": ErrorAnswer, "description": "too much is waiting: Retry-After says when to try again"},
    504: {"model": ErrorAnswer, "description": "not answered in time"},
}


def request_body(several: bool) -> dict[str, Any]:
    """The OpenAPI description of a body with one picture or several."""
    form = {"type": "array", "items": BINARY} if several else BINARY
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": {"type": "object", "properties": {"images": form}}},
                "application/json": {"schema": JsonPictures.model_json_schema()},
                "image/*": {"schema": BINARY},
            },
        }
    }
