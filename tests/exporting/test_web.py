"""The browser's page in headless Chromium, against the Predictor."""

from __future__ import annotations

import functools
import json
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from tiny_run import SIZE

from paddle_resnet.errors import UsageError
from paddle_resnet.exporting.platforms import RUNTIME_FILES, write_web
from paddle_resnet.images.decode import decode_image
from paddle_resnet.inference import Predictor

pytest.importorskip("selenium", reason="Selenium (requirements/dev.txt) is not installed")
from browser import headless_chromium, needs_chromium
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PROJECT = Path(__file__).resolve().parents[2]
RUNTIME = Path(os.environ.get("ONNXRUNTIME_WEB", PROJECT / "node_modules" / "onnxruntime-web" / "dist"))
pytestmark = pytest.mark.slow
needs_runtime = pytest.mark.skipif(
    not RUNTIME.is_dir(), reason="needs the npm package onnxruntime-web; ONNXRUNTIME_WEB names its folder dist"
)


@pytest.fixture(scope="module")
def run(run_of_all_precisions):
    pytest.importorskip("paddle2onnx")
    return run_of_all_precisions


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """PNG and JPEG files of many sizes, some turned by EXIF, some transparent."""
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(100):
        width, height = (int(side) for side in generator.integers(SIZE // 2, 5 * SIZE, 2))
        channels = 4 if number % 5 == 4 else 3
        small = generator.integers(0, 256, (4, 4, channels), dtype=np.uint8)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        if number % 5 < 2:
            exif = Image.Exif()
            exif[0x0112] = 1 + number % 8
            image.save(folder / f"{number:03}.jpg", quality=95, exif=exif)
        else:
            image.save(folder / f"{number:03}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with headless_chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """A function that serves a folder and returns its address."""
    servers = []

    def serve(folder):
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@needs_chromium
@needs_runtime
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_browser_predicts_the_same(run, pictures, browser, served, tmp_path, precision):
    write_web(run, tmp_path / "page", str(RUNTIME), [precision])
    browser.get(served(tmp_path / "page"))
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, pictures)))
    wait = WebDriverWait(browser, 60, poll_frequency=0.2)
    wait.until(lambda _: len(browser.find_elements(By.CSS_SELECTOR, "#answers li[data-scores]")) == len(pictures))
    items = browser.find_elements(By.CSS_SELECTOR, "#answers li")
    found = [json.loads(item.get_attribute("data-scores")) for item in items]
    backend = {"backend": "onnxruntime", "precision": precision, "device": "cpu"}
    expected = Predictor(run.inference_path, **backend).predict(pictures)
    for path, answer, prediction in zip(pictures, found, expected, strict=True):
        assert answer["name"] == path.name
        assert answer["label"] == prediction.label
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
        # One level more or less in tall pictures, see preprocess.js.
        tolerance = 1e-3 if upright.width >= upright.height else 1e-2
        assert answer["probability"] == pytest.approx(prediction.top[0].probability, abs=tolerance)


@needs_chromium
@needs_runtime
@pytest.mark.once
@pytest.mark.parametrize(("resize", "size"), [(16, 16), (36, 32), (32, 24)])
def test_the_pages_pixels_are_pillows(run, browser, served, tmp_path, resize, size):
    write_web(run, tmp_path / "page", str(RUNTIME))
    browser.get(served(tmp_path / "page"))
    generator = np.random.default_rng(3)
    for height, width in ((40, 40), (37, 90), (64, 21), (9, 7)):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = browser.execute_script(
            "const [data, width, height, resize, size] = arguments;"
            "return Array.from(preprocess.resizeAndCrop({ data, width, height }, resize, size))",
            pixels.ravel().tolist(), width, height, resize, size,
        )  # fmt: skip
        difference = np.array(found).reshape(size, size, 3) - decode_image(pixels, resize, size).astype(int)
        assert np.abs(difference).max() <= (0 if width >= height else 1)


def test_the_description_has_the_exports_values(run, tmp_path):
    write_web(run, tmp_path / "page", "https://example.org/ort/")
    description = json.loads((tmp_path / "page" / "description.json").read_text(encoding="utf-8"))
    assert description["classes"] == list(run.classes())
    assert description["size"] == SIZE
    assert description["runtime"] == "https://example.org/ort/"
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert 'src="https://example.org/ort/ort.wasm.min.js"' in page
    assert not (tmp_path / "page" / "runtime").exists()


def test_a_wrong_runtime_is_named(run, tmp_path):
    with pytest.raises(UsageError, match=f"has no {RUNTIME_FILES[0]}: expected the folder dist of the npm package"):
        write_web(run, tmp_path / "page", str(tmp_path))
    assert not (tmp_path / "page").exists()
