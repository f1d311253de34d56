"""The Open Inference Protocol, version 2, over HTTP: the routes of KServe and Triton, with binary tensors.

The input is either ``pixels``, UINT8 ``[N, S, S, 3]``, or ``images``, BYTES ``[N]``: encoded images, in JSON as base64.
Outputs are ``probabilities``, FP32 ``[N, classes]``, and ``label``, BYTES ``[N]``, the class. See
https://github.com/kserve/open-inference-protocol and Triton's extension for binary data.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from paddle_resnet import __version__
from paddle_resnet.inference.predictor import decide, rank
from paddle_resnet.service.errors import ServiceError, malformed, too_many_images
from paddle_resnet.service.predict import InferencePipeline, ServedModel, scores_of
from paddle_resnet.service.request_body import decode_base64, parse_json
from paddle_resnet.service.worker_process import ImageData, ImageResult

JSON_LENGTH = "Inference-Header-Content-Length"  # where the JSON of a body ends and its tensors begin
Size = Annotated[int, Field(ge=0, lt=2**40)]


class _Parameters(BaseModel):
    binary_data_size: Size | None = None
    binary_data: bool | None = None
    classification: None = None
    shared_memory_region: None = None


class _Input(BaseModel):
    name: str
    datatype: str
    shape: list[Size]
    parameters: _Parameters = _Parameters()
    data: list[Any] | None = None


class _Output(BaseModel):
    name: Literal["probabilities", "label"]
    parameters: _Parameters = _Parameters()


class _RequestParameters(BaseModel):
    binary_data_output: bool = False


class _InferRequest(BaseModel):
    """The JSON of a request. Parameters that are not listed here are ignored, as the protocol allows."""

    id: str | None = None
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[_Output], Field(max_length=2)] = []
    parameters: _RequestParameters = _RequestParameters()


def open_inference_routes(pipeline: InferencePipeline, is_ready: Callable[[], bool]) -> list[Route]:
    """Return the protocol's routes; `is_ready` says whether to send requests."""

    async def server(request: Request) -> Response:
        return JSONResponse({"name": "paddle_resnet", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        if "name" in request.path_params:
            _check_named(request, pipeline.model)
        return JSONResponse({"ready": is_ready()}, 200 if is_ready() else 503)

    async def metadata(request: Request) -> Response:
        _check_named(request, model := pipeline.model)
        size = model.config.input.image_size
        inputs = [
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, size, size, 3]},
            {"name": "images", "datatype": "BYTES", "shape": [-1]},
        ]
        outputs = [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(model.config.classes)]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ]
        about = {"name": model.config.model, "versions": [model.name["version"]], "platform": "paddle_resnet"}
        return JSONResponse({**about, "inputs": inputs, "outputs": outputs})

    async def infer(request: Request) -> Response:
        call = _InferCall(request, pipeline.settings.max_images)
        async with pipeline.run(request, call.images) as (model, results):
            return call.response(model, results)

    routes = [Route("/v2", server), Route("/v2/health/live", live), Route("/v2/health/ready", ready)]
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [Route(model, metadata), Route(f"{model}/ready", ready)]
        routes.append(Route(f"{model}/infer", infer, methods=["POST"]))
    return routes


def _check_named(request: Request, model: ServedModel) -> None:
    version = model.name["version"]
    if request.path_params["name"] != model.config.model or request.path_params.get("version", version) != version:
        raise ServiceError(404, "not_found", "this model or version is not served; GET /model names the one that is")


class _InferCall:
    """One call of `infer`: its images, and then its response."""

    def __init__(self, request: Request, max_images: int) -> None:
        self._http_request, self._max_images = request, max_images

    def images(self, body: bytes, model: ServedModel) -> Sequence[ImageData]:
        """Parse a body, or raise a ServiceError."""
        _check_named(self._http_request, model)
        length = self._http_request.headers.get(JSON_LENGTH, str(len(body)))
        if not length.isascii() or not length.isdecimal() or len(length) > 12:
            raise malformed(f"{JSON_LENGTH}: expected the length of the JSON")
        end = int(length)
        self._request = parse_json(body[:end], _InferRequest)
        (tensor,) = self._request.inputs
        size = model.config.input.image_size
        shapes = {("pixels", "UINT8"): [[size, size, 3]], ("images", "BYTES"): [[], [1]]}
        if not tensor.shape or tensor.shape[1:] not in shapes.get((tensor.name, tensor.datatype), []):
            raise malformed(f"expected the input pixels, UINT8 [N, {size}, {size}, 3], or images, BYTES [N]")
        if tensor.shape[0] == 0:
            raise malformed("the input holds no image")
        if tensor.shape[0] > self._max_images:
            raise too_many_images(self._max_images)
        binary = body[end:]
        if tensor.data is not None and (binary or tensor.parameters.binary_data_size is not None):
            raise malformed("the input has both data and binary_data_size, or bytes behind the JSON; send one of them")
        if tensor.data is None and tensor.parameters.binary_data_size != len(binary):
            raise malformed("binary_data_size is not the number of bytes behind the JSON")
        return _pixels(tensor, binary) if tensor.name == "pixels" else _encoded_images(tensor, binary)

    def response(self, model: ServedModel, results: Sequence[ImageResult]) -> Response:
        """Return the outputs that were asked for, all if none was."""
        scores = scores_of(results)
        labels = [decide(best, model.config.threshold) for (best,) in rank(scores, model.config.classes, 1)]
        texts = [label.encode() for label in labels]
        tensors = {
            "probabilities": ("FP32", scores, scores.astype("<f4").tobytes()),
            "label": ("BYTES", np.array(labels), b"".join(struct.pack("<I", len(text)) + text for text in texts)),
        }
        outputs, binary = [], b""
        for output in self._request.outputs or [_Output(name="probabilities"), _Output(name="label")]:
            datatype, values, data = tensors[output.name]
            described = {"name": output.name, "datatype": datatype, "shape": list(values.shape)}
            chosen = output.parameters.binary_data
            if self._request.parameters.binary_data_output if chosen is None else chosen:
                outputs.append({**described, "parameters": {"binary_data_size": len(data)}})
                binary += data
            else:
                outputs.append({**described, "data": values.reshape(-1).tolist()})
        head = {"model_name": model.config.model, "model_version": model.name["version"], "outputs": outputs}
        text = json.dumps(head if self._request.id is None else {**head, "id": self._request.id}).encode()
        if not binary:
            return Response(text, media_type="application/json")
        return Response(text + binary, media_type="application/octet-stream", headers={JSON_LENGTH: str(len(text))})


def _pixels(tensor: _Input, binary: bytes) -> list[np.ndarray]:
    """Return images, uint8 ``[S, S, 3]``."""
    if tensor.data is None:
        pixels = np.frombuffer(binary, np.uint8)
    else:
        try:
            # Not without a type: that of texts would take as much for each as for the longest.
            values = np.array(tensor.data, np.float64).reshape(-1)
        except (ValueError, TypeError, OverflowError):
            values = np.full(1, np.nan)
        with np.errstate(invalid="ignore"):
            pixels = values.astype(np.uint8)
        if not np.array_equal(pixels, values):
            raise malformed("data: expected whole numbers from 0 to 255, flat or nested as the shape says")
    if len(pixels) != math.prod(tensor.shape):
        raise malformed(f"data: expected {math.prod(tensor.shape):,} values, as the shape says")
    return list(pixels.reshape(tensor.shape))


def _encoded_images(tensor: _Input, binary: bytes) -> list[bytes]:
    number = tensor.shape[0]
    if tensor.data is not None:
        texts = [each for each in tensor.data if isinstance(each, str)]
        if not len(texts) == len(tensor.data) == number:
            raise malformed(f"data: expected {number} base64 texts, as the shape says")
        return [decode_base64(text, image) for image, text in enumerate(texts)]
    images: list[bytes] = []
    start = 0
    while start + 4 <= len(binary) and len(images) < number:
        (length,) = struct.unpack_from("<I", binary, start)
        images.append(binary[start + 4 : start + 4 + length])
        start += 4 + length
    if start != len(binary) or len(images) != number:
        raise malformed(f"expected {number} images behind the JSON, each after its length as 4 bytes")
    return images
