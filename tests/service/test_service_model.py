"""The service with a real exported model: predictions, Grad-CAM, replaced models, shutdown, workers, the command."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import multiprocessing
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
import httpx
from requirements_met import HAS_ONNX
from service_parts import serve_in_thread, wait_until
from service_soak import ServiceProcess, end_under_load
from tiny_run import SIZE, make_run

from paddle_resnet.errors import UsageError
from paddle_resnet.evaluation.grad_cam import enlarge, grad_cam
from paddle_resnet.exporting import export
from paddle_resnet.inference import Predictor, paddle_backend
from paddle_resnet.inference.inference_config import InferenceConfig, ModelFile, read_checked
from paddle_resnet.inference.predict_many import prediction_workers
from paddle_resnet.service import Settings, worker_process
from paddle_resnet.service.batcher import PendingRequest
from paddle_resnet.service.inference_workers import InferenceWorkers
from paddle_resnet.service.worker_process import Batch, ImageStatus, load_explainer

pytestmark = pytest.mark.slow

SMALL = ("--device", "cpu", "--max-batch", "2", "--streams", "1", "--no-explain")
"""Options of a service that is soon ready."""
WITHOUT_PADDLE = (*SMALL, "--backend", "onnxruntime") if HAS_ONNX else SMALL


@pytest.fixture(scope="module")
def run(exported_run):
    return exported_run


@pytest.fixture(scope="module")
def run_without_paddle(tmp_path_factory):
    """The run of a service with the options `WITHOUT_PADDLE`: how it ends, reloads and shares a port is the same."""
    run = make_run(tmp_path_factory.mktemp("without_paddle"))
    export(run, onnx=HAS_ONNX, images=0)
    return run


@pytest.fixture(scope="module")
def client(run):
    settings = Settings(model=run.path, device="cpu", max_batch=4, threads=2)
    with (
        serve_in_thread(settings) as (port, _, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield client


def encoded(run, name="red/0.png"):
    return (run.config.data.root / "test" / name).read_bytes()


def test_predictions_are_those_of_the_predictor(run, client):
    paths = sorted((run.config.data.root / "test").rglob("*.png"))
    with Predictor(run.path, device="cpu") as predictor:
        expected = predictor.predict(paths)
    files = [("images", path.read_bytes()) for path in paths]
    response = client.post("/predict", files=files).json()
    assert response["model"] == "resnet8"
    for found, prediction in zip(response["predictions"], expected, strict=True):
        assert [each["class"] for each in found["top"]] == [each.label for each in prediction.top]
        shares = [each["probability"] for each in found["top"]]
        assert shares == pytest.approx([each.probability for each in prediction.top], abs=1e-5)


def test_an_unreadable_image_spoils_no_other_request(run, client):
    """Pictures of all requests share batches, and the processes that compute decode them."""
    good, bad = encoded(run), encoded(run)[:60]
    send = {"headers": {"Content-Type": "image/png"}, "timeout": 60}
    (expected,) = client.post("/predict", content=good, **send).json()["predictions"]
    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(lambda data: client.post("/predict", content=data, **send), [good, bad] * 8))
    assert [response.status_code for response in responses] == [200, 422] * 8
    for response in responses[::2]:
        for found, wanted in zip(response.json()["predictions"][0]["top"], expected["top"], strict=True):
            assert found["class"] == wanted["class"]
            assert found["probability"] == pytest.approx(wanted["probability"], abs=1e-5)
    response = client.post("/predict", files=[("images", data) for data in (good, good, bad)])
    assert (response.status_code, response.json()["error"]["image"]) == (422, 2)


def test_a_worker_that_dies_is_replaced(run, client):
    (process,) = multiprocessing.active_children()
    process.kill()
    process.join()
    send = {"content": encoded(run), "headers": {"Content-Type": "image/png"}, "timeout": 60}
    assert client.post("/predict", **send).status_code == 200
    (other,) = multiprocessing.active_children()
    assert other.pid != process.pid


@pytest.mark.once
def test_a_replaced_model_is_not_loaded(run, tmp_path):
    """Its classes differ: with the new files and the old list all predictions would be wrong."""
    folder = tmp_path / "inference"
    shutil.copytree(run.inference_path, folder)
    digest = InferenceConfig.load(folder).digest()
    Predictor(folder, device="cpu", digest=digest).close()
    text = (folder / "inference.yml").read_text()
    (folder / "inference.yml").write_text(text.replace("- blue", "- zebra"))
    workers = InferenceWorkers(Settings(model=folder, device="cpu", max_batch=2), digest, SIZE)
    with pytest.raises(UsageError, match=r"inference\.yml: another model .* start again"):
        workers.wait_until_ready()
    workers.kill()
    processes = prediction_workers(folder, 1, 1, 1, device="cpu", digest=digest)
    with pytest.raises(UsageError, match="another model"), processes:
        pass


@pytest.mark.parametrize("backend", ["paddle", "onnxruntime"])
def test_files_that_change_while_they_are_loaded_are_refused(run, tmp_path, monkeypatch, backend):
    folder = tmp_path / "inference"
    shutil.copytree(run.inference_path, folder)
    config = InferenceConfig.load(folder)
    if backend == "onnxruntime":
        # What is checked is what is loaded: the file is read once.
        (folder / "model.onnx").write_bytes(b"a model")
        file = ModelFile.of(folder / "model.onnx")
        assert read_checked(config, file) == b"a model"
        (folder / "model.onnx").write_bytes(b"another")
        with pytest.raises(UsageError, match="damaged"):
            read_checked(config, file)
        return
    load = paddle_backend._load

    def load_meanwhile(*arguments):
        loaded = load(*arguments)
        (folder / config.files.parameters.name).write_bytes(b"another")
        return loaded

    monkeypatch.setattr(paddle_backend, "_load", load_meanwhile)
    with pytest.raises(UsageError, match="damaged"):
        Predictor(folder, device="cpu", backend="paddle")


def pixels_of(url):
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_an_explanation_is_grad_cam_of_the_run(run, client):
    import paddle

    response = client.post("/explain?class=green", content=encoded(run), headers={"Content-Type": "image/png"}).json()
    network = run.load_network("best")
    picture = pixels_of(response["picture"])
    assert picture.shape == (SIZE, SIZE, 3)
    index = run.classes().index("green")
    maps = grad_cam(network, run.normalize()(paddle.to_tensor(picture[np.newaxis])), [index])
    heat = pixels_of(response["heat"])
    (expected,) = enlarge(maps, *heat.shape[:2])
    np.testing.assert_allclose(heat[..., 3], 255 * expected / max(expected.max(), 1e-12), atol=1)
    assert response["class"] == "green"


def test_the_most_probable_class_is_explained_unless_one_is_named(run, client):
    send = {"content": encoded(run), "headers": {"Content-Type": "image/png"}}
    top = client.post("/predict?top=1", **send).json()["predictions"][0]["top"][0]
    response = client.post("/explain", **send).json()
    assert (response["class"], response["probability"]) == (top["class"], pytest.approx(top["probability"], abs=1e-5))
    refused = client.post("/explain?class=mauve", **send)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "unknown_class")
    assert client.get("/model").json()["explain"] is True


def test_only_the_exported_checkpoint_explains(run, tmp_path):
    import paddle

    folder = tmp_path / "run"
    shutil.copytree(run.inference_path, folder / "inference")
    shutil.copy(run.config_path, folder)
    weights = paddle.load(str(run.checkpoint_path("best") / "model.pdparams"))
    file = folder / "checkpoints" / "best" / "model.pdparams"
    file.parent.mkdir(parents=True)
    with Predictor(folder, device="cpu") as predictor:
        assert load_explainer(predictor) is None
        paddle.save(weights, str(file))
        assert load_explainer(predictor) is not None
        (folder / "config.yaml").rename(tmp_path / "config.yaml")
        assert load_explainer(predictor) is None
        (tmp_path / "config.yaml").rename(folder / "config.yaml")
        paddle.save({**weights, "fc.bias": weights["fc.bias"] + paddle.to_tensor([9.0, 0.0, 0.0])}, str(file))
        assert load_explainer(predictor) is None
        file.write_bytes(b"damaged")
        assert load_explainer(predictor) is None


def test_an_explanation_does_not_wait_until_the_worker_is_taken_for_one_that_hangs(run, monkeypatch):
    loading = threading.Event()
    monkeypatch.setattr(worker_process, "load_explainer", lambda predictor: loading.wait(60) and (lambda *_: {}))
    settings = Settings(model=run.path, device="cpu", max_batch=1, response_timeout=0.1)
    compute = worker_process.make_worker(settings, InferenceConfig.load(run.path).digest())
    explained = Batch([encoded(run)], costly=True, explain="")
    try:
        (early,) = compute(explained)
        assert early.status is ImageStatus.NOT_LOADED
    finally:
        loading.set()
    statuses = {ImageStatus.NOT_LOADED}
    wait_until(lambda: statuses.add(compute(explained)[0].status) or ImageStatus.OK in statuses)

    async def told():
        pending = PendingRequest()
        pending.set_result(0, early)
        return pending.results.exception()

    error = asyncio.run(told())
    assert (error.status, error.code, error.headers) == (503, "unavailable", {"Retry-After": "1"})


def request_of(data):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(
        data
    )
    return head + data


def test_sigterm_under_load_loses_no_accepted_request(run):
    service = ServiceProcess(run.path, *SMALL, "--drain", "0.5")
    ended = end_under_load(service, request_of(encoded(run)), clients=8, seconds=0.5)
    assert ended["exit status"] == 0
    assert ended["accepted"] > 8
    assert ended["accepted and lost"] == 0
    assert ended["answered"] == {200: ended["accepted"]}
    events = [line["event"] for line in service.logged() if line["event"] != "request"]
    assert events[-2:] == ["draining", "stopped"]


def ask_until(end, url, data, responses):
    with httpx.Client(timeout=60) as client:
        while not end.is_set():
            responses.append(client.post(f"{url}/predict", content=data, headers={"Content-Type": "image/png"}))


@pytest.mark.once
def test_sighup_under_load_changes_the_model_and_loses_nothing(run_without_paddle, tmp_path):
    """Each response is by the model that it names, and all that are asked get one."""
    folder = tmp_path / "inference"
    shutil.copytree(run_without_paddle.inference_path, folder)
    before = InferenceConfig.load(folder)
    service = ServiceProcess(folder, *WITHOUT_PADDLE, "--drain", "0.1")
    url, end, responses = f"http://127.0.0.1:{service.port}", threading.Event(), []
    try:
        with ThreadPoolExecutor(4) as threads, contextlib.ExitStack() as finally_:
            finally_.callback(end.set)
            clients = [threads.submit(ask_until, end, url, encoded(run_without_paddle), responses) for _ in range(4)]
            wait_until(lambda: responses)
            text = (folder / "inference.yml").read_text()
            after = text.replace("- blue", "- zebra").replace("- green", "- gnu").replace("- red", "- rhino")
            (folder / "inference.yml").write_text("not a model")
            service.process.send_signal(signal.SIGHUP)
            wait_until(lambda: any("not reloaded" in line["event"] for line in service.logged()))
            (folder / "inference.yml").write_text(after)
            service.process.send_signal(signal.SIGHUP)
            version = InferenceConfig.load(folder).digest()[:12]
            wait_until(lambda: responses[-1].json().get("version") == version)
        assert [each.exception() for each in clients] == [None] * 4
        about, metrics = httpx.get(f"{url}/model").json(), httpx.get(f"{url}/metrics").text
    finally:
        status = service.end()
    assert status == 0 and {response.status_code for response in responses} == {200}
    classes = {before.digest()[:12]: {"blue", "green", "red"}, version: {"zebra", "gnu", "rhino"}}
    for response in responses:
        top = response.json()["predictions"][0]["top"]
        assert {each["class"] for each in top} == classes[response.json()["version"]]
    assert {response.json()["version"] for response in responses} == classes.keys()
    assert (about["run"], about["version"], about["hash"][:12]) == (tmp_path.name, version, version)
    assert f'paddle_resnet_model{{model="resnet8",run="{tmp_path.name}",version="{version}"}} 1.0' in metrics


def test_wrong_use_is_one_line(tool, run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = tool("serve", run.path, "--port", port)
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
        assert f"127.0.0.1:{port}" in done.stderr and "--port" in done.stderr
    done = tool("serve", tmp_path / "nowhere")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith("error: ") and "nowhere" in done.stderr
    token = tmp_path / "token"
    token.write_text("two words")
    done = tool("serve", run.path, "--token-file", token)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1) and "expected one token" in done.stderr
    done = tool("serve", run.path, "--port", free_port(), "--precision", "int8")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert "holds no ONNX model of int8" in done.stderr
    done = tool("serve", run.path, "--port", "70000")
    assert done.exit_code == 2 and "from 1 to 65535" in done.stderr
    done = tool("serve", run.path, "--max-pixels", "179")
    assert done.exit_code == 2 and "a whole number from 1 to 178" in done.stderr
    done = tool("serve", run.path, "--max-wait", "-1")
    assert done.exit_code == 2 and "at least 0" in done.stderr


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_missing_packages_are_named(tool, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "starlette" else True)
    done = tool("serve", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == "error: not installed: starlette; pip install -r requirements/serve.txt\n"


def test_the_benchmark_reports_what_the_service_answered(run, client, tmp_path):
    from paddle_resnet.benchmark.serve.report import LoadCase, benchmark_service

    cases = [LoadCase(2, 1), LoadCase(2, 3, rate=50)]
    began = time.monotonic()
    report = benchmark_service(str(client.base_url), cases, rounds=1, seconds=0.3)
    elapsed = time.monotonic() - began
    for row in report.rows:
        assert row["codes"].keys() == {"200"} and row["wrong"] == 0 and row["lost"] == {}
        assert 0 < row["p50_ms"]["median"] <= row["p99_ms"]["median"] < 1000 * elapsed
        assert row["images_per_second"]["median"] == pytest.approx(row["images"] * row["requests_per_second"]["median"])
    assert report.rows[1]["requests_per_second"]["median"] < 70
    numbers, figure = report.write(tmp_path)
    assert json.loads(numbers.read_text())["settings"]["url"] == str(client.base_url)
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert len(report.table().rows) == 2


def test_the_benchmark_notices_wrong_predictions():
    from paddle_resnet.benchmark.serve.report import ResponseChecker

    def body(**shares):
        top = [{"class": name, "probability": share} for name, share in shares.items()]
        return json.dumps({"predictions": [{"image": 0, "top": top}]}).encode()

    checker = ResponseChecker()
    assert checker.is_consistent(0, body(a=0.7, b=0.3))
    assert checker.is_consistent(0, body(a=0.7005, b=0.2995))
    assert checker.is_consistent(0, body(a=0.7, c=0.3))  # as probable as b, and ranked in its place
    assert not checker.is_consistent(0, body(b=0.7, a=0.3))
    assert not checker.is_consistent(0, body(a=0.69, b=0.31))
    assert checker.is_consistent(1, body(a=0.69, b=0.31))
