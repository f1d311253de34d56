"""Errors of the service: each has a code, says nothing of the machine, and costs no other request."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
import httpx
from image_bytes import chunk, png_start
from service_parts import FORM, IMAGE, MAX_BODY, form, picture, running

from paddle_resnet.service import Settings
from paddle_resnet.service.telemetry import JsonFormatter
from paddle_resnet.service.worker_process import BoundedDecoder, ImageResult, ImageStatus

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("top", ["0", "-1", "1.5", "%C2%B2", "five", "", "9" * 5000])
def test_a_wrong_top_is_refused(client, top):
    response = client.post(f"/predict?top={top}", content=picture(), headers=IMAGE)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_parameter")


def png(width, height, *extra):
    """A PNG that says its size, and has no pixels."""
    return png_start(width, height) + b"".join(extra) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JSON = {"Content-Type": "application/json"}
DEEP = b'{"images": ' + 20_000 * b"[" + 20_000 * b"]" + b"}"
TEXT_BOMB = png(9, 9, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000), 9)))

ERRORS = {
    "no type": ({}, b"abc", 415, "unsupported_type"),
    "a form of fields": ({"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", 415, "unsupported_type"),
    "compressed": ({**IMAGE, "Content-Encoding": "gzip"}, b"\x1f\x8b", 415, "unsupported_type"),
    "nothing": (IMAGE, b"", 422, "unreadable_image"),
    "a text": (IMAGE, b"a text", 422, "unreadable_image"),
    "half a picture": (IMAGE, picture(size=(90, 90))[:90], 422, "unreadable_image"),
    "a format of no browser": (IMAGE, picture(kind="TIFF"), 422, "unreadable_image"),
    "PostScript": (IMAGE, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "unreadable_image"),
    "too many pixels": (IMAGE, picture(size=(101, 100)), 422, "image_too_large"),
    "a bomb": (IMAGE, png(60_000, 60_000), 422, "image_too_large"),
    "a zip bomb in a text": (IMAGE, TEXT_BOMB, 422, "unreadable_image"),
    "no parts": (FORM, b"--x7--\r\n", 400, "no_image"),
    "no boundary": ({"Content-Type": "multipart/form-data"}, form([picture()]), 400, "malformed_body"),
    "another boundary": (FORM, form([picture()], boundary=b"y8"), 400, "malformed_body"),
    "a form cut short": (FORM, form([picture()])[:-9], 400, "malformed_body"),
    "too many parts": (FORM, form([b""] * 31), 413, "too_many_images"),
    "one part is no picture": (FORM, form([picture(), b"text"]), 422, "unreadable_image"),
    "no JSON": (JSON, b"{", 400, "malformed_body"),
    "deep JSON": (JSON, DEEP, 400, "malformed_body"),
    "JSON that is no object": (JSON, b'["YQ=="]', 400, "malformed_body"),
    "other JSON": (JSON, b'{"images": [1]}', 400, "malformed_body"),
    "unknown keys": (JSON, b'{"images": ["YQ=="], "path": "/etc/passwd"}', 400, "malformed_body"),
    "no base64": (JSON, b'{"images": ["***"]}', 400, "malformed_body"),
    "too many in JSON": (JSON, json.dumps({"images": ["YQ=="] * 31}).encode(), 413, "too_many_images"),
    "announced too large": (IMAGE, bytes(MAX_BODY + 1), 413, "body_too_large"),
}


@pytest.mark.parametrize(("headers", "body", "status", "code"), ERRORS.values(), ids=ERRORS)
def test_an_error_has_its_code(client, headers, body, status, code):
    response = client.post("/predict", content=body, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    message = response.json()["error"]["message"]
    for known in ("multipart/form-data", "application/json", "/docs"):
        message = message.replace(known, "")
    assert "/" not in message
    assert client.post("/predict", content=picture(), headers=IMAGE).status_code == 200


def test_the_bad_image_is_numbered(client):
    error = client.post("/predict", content=form([picture(), picture(), b"text"]), headers=FORM).json()["error"]
    assert error["image"] == 2


@pytest.fixture
def clock_at_rest(monkeypatch):
    """Processor time that does not pass: an image is refused for what its header predicts alone."""
    monkeypatch.setattr("paddle_resnet.service.worker_process.time.thread_time", lambda: 0.0)


def test_a_jpeg_of_many_scans_is_refused(clock_at_rest):
    """Each scan of a progressive one goes over all pixels, and an empty one takes 31 bytes."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    scan = data[data.rindex(b"\xff\xda") : data.rindex(b"\xff\xd9")]
    repeated = data[: data.rindex(b"\xff\xd9")] + 100 * scan + b"\xff\xd9"
    decoder = BoundedDecoder(resize=8, image_size=8, max_pixels=10_000, max_seconds=1e-3)
    assert decoder.decode(data).shape == (8, 8, 3)
    assert decoder.decode(repeated).status is ImageStatus.TOO_SLOW
    with_a_film = data + 150 * b"\xff\xda\x00\x00"  # behind the picture, as a telephone's
    assert decoder.decode(with_a_film).shape == (8, 8, 3)


def test_an_image_with_damaged_metadata_is_read(client):
    """EXIF that is none, and a text beyond Pillow's limits."""
    exif = b"\xff\xe1\x00\x10Exif\0\0nonsense"
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2 << 20)))
    jpeg, png = picture(kind="JPEG"), picture(kind="PNG")
    damaged = [jpeg[:20] + exif + jpeg[20:], png[:33] + text + png[33:]]
    assert client.post("/predict", content=form(damaged), headers=FORM).status_code == 200


def test_decoding_stops_at_its_time_limit(monkeypatch):
    """Each look at the clock takes 10 ms: a file of thousands of little blocks has many."""
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("paddle_resnet.service.worker_process.time.thread_time", lambda: 0.01 * next(ticks))
    data = picture(kind="GIF")
    comments = data[:13] + data[13 : data.index(b",")] + 5000 * b"!\xfe\x01a\0" + data[data.index(b",") :]
    decoder = BoundedDecoder(resize=8, image_size=8, max_pixels=10_000, max_seconds=1.5)
    assert decoder.decode(data).shape == (8, 8, 3)
    assert decoder.decode(comments).status is ImageStatus.TOO_SLOW
    assert decoder.decode(comments, cheap_only=True) == ImageResult(ImageStatus.COSTLY)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pillow_reads_images_of_as_many_pixels_as_may_be_chosen(tmp_path):
    limit = 178_000_000
    assert Settings(model=tmp_path, max_pixels=limit).max_pixels == limit
    with pytest.raises(ValueError, match="178000000"):
        Settings(model=tmp_path, max_pixels=limit + 1)
    decoder = BoundedDecoder(resize=8, image_size=8, max_pixels=limit, max_seconds=1)
    assert decoder.decode(png(limit // 4, 4)).status is ImageStatus.TOO_SLOW  # 9 s, as its header says
    assert decoder.decode(png(limit // 4 + 1, 4)).status is ImageStatus.TOO_LARGE


def test_a_slow_image_is_costly(clock_at_rest):
    decoder = BoundedDecoder(resize=8, image_size=8, max_pixels=10_000_000, max_seconds=1.5)
    large = picture(size=(2000, 2000))
    result = decoder.decode(large, cheap_only=True)
    assert result.status is ImageStatus.COSTLY
    assert decoder.decode(large).shape == (8, 8, 3)
    assert decoder.decode(picture(size=(2000, 2000), kind="JPEG"), cheap_only=True).shape == (8, 8, 3)


def test_names_are_not_echoed(client):
    hostile = b"../../etc/passwd<script>"
    response = client.post("/predict", content=form([b"text"], filename=hostile, name=hostile), headers=FORM)
    assert response.status_code == 422
    assert b"passwd" not in response.content and b"script" not in response.content


def test_a_large_chunked_body_is_refused_early(service):
    """Without a Content-Length: the response comes before the body is complete."""
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    response = service.talk(head, *[piece] * 7)
    assert response.startswith(b"HTTP/1.1 413 ") and b"body_too_large" in response


@pytest.mark.parametrize("announced", [b"50", b"-5", b"1" * 400, b"abc"])
def test_a_wrong_content_length(monkeypatch, tmp_path, announced):
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %s\r\n\r\nabc"
        % announced
    )
    with running(monkeypatch, tmp_path, max_body=MAX_BODY, body_timeout=0.3) as service:
        response = service.talk(head)
    assert response.split(b" ")[1] in (b"400", b"408", b"413")


def test_a_malformed_form_has_no_other_log_line_than_its_request(project):
    program = (
        "import json\nfrom paddle_resnet.service import request_body, telemetry\ntelemetry.configure_logging()\n"
        "try:\n    request_body.split_body(b'hello', 'multipart/form-data; boundary=x', 3)\n"
        "except request_body.ServiceError as error:\n    print(error.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("malformed_body\n", "")


def test_unknown_addresses_and_methods(client):
    assert client.get("/nowhere").json()["error"]["code"] == "not_found"
    response = client.get("/predict")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert client.get("/model").json()["explain"] is False
    response = client.post("/explain", content=picture(), headers=IMAGE)
    assert response.status_code == 404 and "--no-explain or on Ray" in response.json()["error"]["message"]


def test_an_internal_error_is_logged_and_does_not_leak(monkeypatch, tmp_path):
    with running(monkeypatch, tmp_path) as service:
        service.predictor.fault = RuntimeError("secret of /home/user")
        response = httpx.post(f"{service.url}/predict", content=picture(), headers={**IMAGE, "X-Request-ID": "abc"})
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
        assert "secret" not in response.text and "Traceback" not in response.text
        service.predictor.fault = None
        assert httpx.post(f"{service.url}/predict", content=picture(), headers=IMAGE).status_code == 200
    (line,) = [line for line in service.lines if line.getMessage() == "internal error"]
    written = json.loads(JsonFormatter().format(line))
    assert written["request_id"] == "abc" and "secret of /home/user" in written["traceback"]
