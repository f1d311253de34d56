"""The Open Inference Protocol with the official client, `tritonclient`; the predictor itself says what is right."""

from __future__ import annotations

import base64
import json
import socket
import struct

import numpy as np
import pytest

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
pytest.importorskip("tritonclient", reason="tritonclient (requirements/dev.txt) is not installed")
if not hasattr(socket, "AF_UNIX"):
    pytest.skip("gevent, on which tritonclient rests, needs sockets of POSIX here", allow_module_level=True)
import httpx
from service_parts import serve_in_thread
from tiny_run import SIZE, random_pixels
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

import paddle_resnet
from paddle_resnet.inference import Predictor
from paddle_resnet.service import Settings

pytestmark = pytest.mark.slow

MODEL = "resnet8"
CLASSES = ["blue", "green", "red"]


@pytest.fixture(scope="module")
def run(exported_run):
    return exported_run


@pytest.fixture(scope="module")
def port(run):
    settings = Settings(model=run.path, device="cpu", max_batch=8, max_images=10, explain=False)
    with serve_in_thread(settings) as (port, _, _):
        yield port


@pytest.fixture(scope="module")
def client(port):
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        yield client


@pytest.fixture(scope="module")
def predictor(run):
    with Predictor(run.path, device="cpu") as predictor:
        yield predictor


def encoded_pictures(run, number):
    paths = sorted((run.config.data.root / "test").rglob("*.png"))
    return [path.read_bytes() for path in paths[:number]]


def pixels_tensor(pixels, *, binary):
    tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return tensor


def images_tensor(images, *, binary):
    texts = images if binary else [base64.b64encode(image).decode() for image in images]
    tensor = triton.InferInput("images", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=np.object_), binary_data=binary)
    return tensor


def assert_is(result, expected):
    """Compare a response with the predictor's probabilities, `[N, classes]`."""
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=0, atol=1e-6)
    labels = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("label")]
    assert labels == [CLASSES[index] for index in expected.argmax(1)]


def test_health_and_metadata(client, port):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    server = client.get_server_metadata()
    assert (server["version"], server["extensions"]) == (paddle_resnet.__version__, ["binary_tensor_data"])
    model = client.get_model_metadata(MODEL)
    (version,) = model["versions"]
    assert client.is_model_ready(MODEL, version) and client.get_model_metadata(MODEL, version) == model
    assert not client.is_model_ready(MODEL, "2") and not client.is_model_ready("other")
    assert httpx.get(f"http://127.0.0.1:{port}/model").json()["hash"].startswith(version)
    tensors = {each["name"]: (each["datatype"], each["shape"]) for each in model["inputs"] + model["outputs"]}
    assert tensors == {
        "pixels": ("UINT8", [-1, SIZE, SIZE, 3]),
        "images": ("BYTES", [-1]),
        "probabilities": ("FP32", [-1, 3]),
        "label": ("BYTES", [-1]),
    }


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("binary", [False, True])
def test_pixels_get_the_predictors_scores(client, predictor, batch, binary):
    pixels = random_pixels(batch)
    result = client.infer(MODEL, [pixels_tensor(pixels, binary=binary)], request_id="seven")
    assert_is(result, predictor.scores(pixels))
    assert result.get_response()["id"] == "seven"


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("binary", [False, True])
def test_encoded_images_get_the_predictors_scores(run, client, predictor, batch, binary):
    images = encoded_pictures(run, batch)
    expected = predictor.scores(np.stack([predictor.decode(image) for image in images]))
    assert_is(client.infer(MODEL, [images_tensor(images, binary=binary)]), expected)


def test_outputs_are_those_asked_for(client, predictor):
    pixels = random_pixels(2)
    outputs = [
        triton.InferRequestedOutput("label", binary_data=False),
        triton.InferRequestedOutput("probabilities", binary_data=True),
    ]
    result = client.infer(MODEL, [pixels_tensor(pixels, binary=True)], outputs=outputs)
    assert [(each["name"], "data" in each) for each in result.get_response()["outputs"]] == [
        ("label", True),
        ("probabilities", False),
    ]
    assert_is(result, predictor.scores(pixels))
    (only,) = client.infer(MODEL, [pixels_tensor(pixels, binary=True)], outputs=outputs[:1]).get_response()["outputs"]
    assert only["name"] == "label"


def test_data_in_json_may_be_nested(port, predictor):
    pixels = random_pixels(1)
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, SIZE, SIZE, 3], "data": pixels.tolist()}
    response = httpx.post(f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer", json={"inputs": [tensor]}).json()
    (found,) = [each["data"] for each in response["outputs"] if each["name"] == "probabilities"]
    np.testing.assert_allclose(found, predictor.scores(pixels)[0], atol=1e-6)


def wrong(name, shape, datatype, data=None):
    tensor = triton.InferInput(name, shape, datatype)
    tensor.set_data_from_numpy(np.zeros(shape, np.uint8) if data is None else data)
    return [tensor]


@pytest.mark.parametrize(
    ("inputs", "status", "says"),
    [
        (lambda: wrong("other", [1, SIZE, SIZE, 3], "UINT8"), "400", "expected the input pixels"),
        (lambda: wrong("pixels", [1, SIZE, SIZE, 4], "UINT8"), "400", "expected the input pixels"),
        (lambda: wrong("pixels", [SIZE, SIZE, 3], "UINT8"), "400", "expected the input pixels"),
        (lambda: wrong("pixels", [1, SIZE, SIZE, 3], "FP32", np.zeros((1, SIZE, SIZE, 3), np.float32)), "400", "UINT8"),
        (lambda: wrong("pixels", [11, SIZE, SIZE, 3], "UINT8"), "413", "more than 10 images"),
        (lambda: 2 * wrong("pixels", [1, SIZE, SIZE, 3], "UINT8"), "400", "inputs"),
        (lambda: [images_tensor([b"a text"], binary=True)], "422", "image 0 cannot be read"),
        (lambda: [images_tensor([b"a text"], binary=False)], "422", "image 0 cannot be read"),
    ],
)
def test_wrong_inputs_are_errors_of_the_protocol(client, inputs, status, says):
    with pytest.raises(InferenceServerException) as error:
        client.infer(MODEL, inputs())
    assert error.value.status() == status and says in error.value.message()


def test_unknown_names_are_errors_of_the_protocol(client):
    pixels = [pixels_tensor(random_pixels(1), binary=True)]
    with pytest.raises(InferenceServerException, match="outputs"):  # each would be in the response
        client.infer(MODEL, pixels, outputs=[triton.InferRequestedOutput("label")] * 3)
    with pytest.raises(InferenceServerException, match="not served") as error:
        client.infer("other", pixels)
    assert error.value.status() == "404"
    with pytest.raises(InferenceServerException, match="not served"):
        client.infer(MODEL, pixels, model_version="1")
    with pytest.raises(InferenceServerException, match="probabilities"):
        client.infer(MODEL, pixels, outputs=[triton.InferRequestedOutput("other")])
    with pytest.raises(InferenceServerException, match="classification"):
        client.infer(MODEL, pixels, outputs=[triton.InferRequestedOutput("label", class_count=2)])
    with pytest.raises(InferenceServerException, match="compressed"):
        client.infer(MODEL, pixels, request_compression_algorithm="gzip")


PIXELS = {"name": "pixels", "datatype": "UINT8", "shape": [1, SIZE, SIZE, 3]}
TEXTS = {"name": "images", "datatype": "BYTES", "shape": [2]}
IMAGES = {**TEXTS, "parameters": {"binary_data_size": 10}}


@pytest.mark.parametrize(
    ("inputs", "binary", "length"),
    [
        ([{**PIXELS, "data": [256] * SIZE * SIZE * 3}], b"", None),
        ([{**PIXELS, "data": [0.5] * SIZE * SIZE * 3}], b"", None),
        ([{**PIXELS, "data": ["a"] * SIZE * SIZE * 3}], b"", None),
        ([{**PIXELS, "data": [None] * SIZE * SIZE * 3}], b"", None),
        ([{**PIXELS, "data": [[1], [2, 3]]}], b"", None),
        ([{**PIXELS, "data": [1]}], b"", None),
        ([{**PIXELS, "shape": [2**39, SIZE, SIZE, 3]}], b"", None),
        ([{**PIXELS, "parameters": {"binary_data_size": 9}}], bytes(SIZE * SIZE * 3), 0),
        ([PIXELS], bytes(SIZE * SIZE * 3), 0),
        ([IMAGES], struct.pack("<I", 6) + b"abcdef", 0),
        ([IMAGES], struct.pack("<I", 2**32 - 1) + b"abcdef", 0),
        ([{**TEXTS, "data": ["YQ=="]}], b"", None),
        ([{**TEXTS, "data": ["YQ==", 7]}], b"", None),
        ([], b"", None),
        (7, b"", None),
        ([{**PIXELS, "data": [2**3000] * SIZE * SIZE * 3}], b"", None),
        ([PIXELS], b"", "-1"),
        ([PIXELS], b"", "9" * 30),
        ([PIXELS], b"", "5"),
    ],
)
def test_damaged_requests_are_refused(port, inputs, binary, length):
    """`length` is the header's: None, none; 0, the right one."""
    text = json.dumps({"inputs": inputs}).encode()
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length or len(text))}
    response = httpx.post(f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer", content=text + binary, headers=headers)
    assert response.status_code in (400, 413)
    assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize(("announced", "binary"), [(SIZE * SIZE * 3, bytes(SIZE * SIZE * 3)), (0, b""), (None, b"a")])
def test_data_and_bytes_behind_the_json_are_not_both_taken(port, announced, binary):
    tensor = {**PIXELS, "data": [7] * SIZE * SIZE * 3, "parameters": {"binary_data_size": announced}}
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    response = httpx.post(f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer", content=text + binary, headers=headers)
    assert response.status_code == 400 and "both data and binary_data_size" in response.json()["error"]


def test_pixels_of_too_many_lists_are_told_how_to_be_sent(port):
    nested = np.zeros((2, 224, 224, 3), int).tolist()
    content = json.dumps({"inputs": [{**PIXELS, "shape": [2, 224, 224, 3], "data": nested}]})
    response = httpx.post(f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer", content=content)
    assert response.status_code == 400 and "one flat list, or binary" in response.json()["error"]
