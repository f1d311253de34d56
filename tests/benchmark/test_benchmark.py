"""Benchmarks: arguments, summaries, PyTorch's networks and reports. No test depends on how fast anything is."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from paddle_resnet.benchmark import cases, data, runner, timing
from paddle_resnet.benchmark import infer as infer_report
from paddle_resnet.benchmark import train as train_report
from paddle_resnet.benchmark.cases import TrainCase
from paddle_resnet.benchmark.data import LoaderCase, benchmark_loading
from paddle_resnet.benchmark.predict import benchmark_prediction
from paddle_resnet.benchmark.report import Column, Report, ratio_summary, summarise
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.models import count_parameters, create_model
from paddle_resnet.plots.bar_chart import Bar, Panel

TINY = TrainCase("resnet8", 8, 4)
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch (requirements/bench.txt) is not installed")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--case", "resnet20"], ["case resnet20", "network@sizexbatch"]),
        (["train", "--case", "resnet20@4x128"], ["at least 8"]),
        (["train", "--case", "resnet21@32x4", "--rounds", "1"], ["resnet21", "did you mean"]),
        (["train", "--backends", "onednm"], ["onednm", 'did you mean "onednn"']),
        (["train", "--rounds", "0"], ["--rounds", "at least 1"]),
        (["infer", "nowhere"], ["nowhere"]),
        (["predict", "nowhere", "x.png"], ["nowhere"]),
    ],
)
def test_wrong_use_is_one_line(tool, arguments, words):
    done = tool("benchmark", *arguments)
    assert done.exit_code == 2
    for word in words:
        assert word in done.stderr.strip().splitlines()[-1]


def test_missing_torch_is_a_usage_error(tool, monkeypatch):
    monkeypatch.setattr(cases.importlib.util, "find_spec", lambda name: None)
    done = tool("benchmark", "train", "--against", "torch")
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert "pip install -r requirements/bench.txt" in line


def test_summaries_of_known_numbers():
    assert summarise([3.0, 1.0, 8.0]) == {"median": 3.0, "smallest": 1.0, "largest": 8.0, "count": 3}
    assert summarise([1.0, 2.0])["median"] == 1.5
    runs, references = ([{"speed": speed} for speed in speeds] for speeds in ([2.0, 9.0], [4.0, 3.0]))
    assert ratio_summary(runs, references, "speed")["rounds"] == [0.5, 3.0]
    assert timing.percentiles_ms(list(range(101))) == {"p50_ms": 50_000, "p95_ms": 95_000, "p99_ms": 99_000}
    with pytest.raises(ValueError, match="zip"):
        ratio_summary(runs[:1], references, "speed")


def test_steps_leave_out_the_warm_up():
    # Two slow steps, then three of 2, 4 and 3 seconds, of which 0.5, 1 and 0 are spent waiting.
    measured = timing.step_speed(begins=[5, 15, 20.5, 23, 26], ends=[10, 20, 22, 26, 29], warm_up=2, batch=6)
    assert measured["step_seconds"] == [2, 4, 3]
    assert measured["images_per_second"] == 2.0
    assert measured["waiting_share"] == pytest.approx(1.5 / 9)


def test_training_rows_have_ratios_by_round():
    def run(speed, memory, product):
        common = {"waiting_share": 0.01, "step_seconds": [0.1]}
        return {"images_per_second": speed, "peak_megabytes": memory, "product_gflops": product, **common}

    measured = {
        "onednn": [run(10.0, 90.0, 50.0), run(30.0, 110.0, 80.0)],
        "native": [run(5.0, 100.0, 60.0), run(10.0, 100.0, 70.0)],
    }
    ours, native = train_report.training_rows(TINY, measured, operations=2 * 10**9)
    assert ours["ratio_to_native"]["rounds"] == [2.0, 3.0]
    assert ours["memory_ratio_to_native"]["median"] == 1.0
    assert ours["ratio_to_torch"] is None
    assert ours["share_of_product_rate"] == pytest.approx(20 * 2 / 80)
    assert native["ratio_to_native"]["median"] == 1.0


@pytest.mark.parametrize(
    ("backend", "measured", "counterpart"),
    [
        ("onednn", {"torch", "torch-bf16"}, "torch"),
        ("native", {"torch", "torch-bf16"}, "torch"),
        ("onednn-bf16", {"torch", "torch-bf16"}, "torch-bf16"),
        ("torch-bf16", {"torch", "torch-bf16"}, "torch-bf16"),
        ("onednn-bf16", {"torch"}, "torch"),
    ],
)
def test_torch_is_compared_in_the_same_precision(backend, measured, counterpart):
    assert train_report.torch_counterpart(backend, measured) == counterpart


# 10^9 multiply-accumulates of one image, as torchvision documents them for its weights.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "billions"), [("resnet18", 224, 1.81), ("resnet50", 224, 4.09)])
def test_training_operations_are_six_times_the_published_macs(name, size, billions):
    assert train_report.training_operations(name, size) / 6e9 == pytest.approx(billions, abs=0.01)


def test_inference_ratios_to_onnx_runtime_are_by_round():
    def runs(*speeds):
        return [{**dict.fromkeys(infer_report.METRICS, 1.0), "images_per_second": speed} for speed in speeds]

    case = infer_report.Case("onnxruntime int8", 8, 2)
    measured = {str(case): runs(30.0, 80.0), "onnxruntime fp32, batch 8, threads 2": runs(10.0, 40.0)}
    row = infer_report._row(case, measured)
    assert row["ratio_to_onnx"]["rounds"] == [3.0, 2.0]
    assert infer_report._row(case, {str(case): runs(1.0)})["ratio_to_onnx"] is None


def test_calls_are_timed_for_half_a_second(monkeypatch):
    clock = iter(np.cumsum([0] + 12 * [0.125]).tolist() * 2)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    done = []
    measured = timing.time_calls(lambda: done.append(1), batch=4, calls=3, warm_up=2)
    assert len(done) == 2 + 6  # three calls take 0.375 s, less than half a second
    assert measured["images_per_second"] == pytest.approx(4 / 0.125)
    assert measured["p50_ms"] == measured["p99_ms"] == pytest.approx(125)


@needs_torch
def test_torch_inference_is_timed(monkeypatch):
    from paddle_resnet.benchmark import torch_jobs

    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    job = {"network": train_report.describe("resnet8"), "size": 16, "batch": 2, "threads": 1, "calls": 2, "warm_up": 1}
    for precision in ("float32", "bfloat16"):
        assert torch_jobs.infer({**job, "precision": precision})["images_per_second"] > 0


@needs_torch
@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet18", "resnet50"])
def test_torch_model_equals_the_paddle_model(name):
    import torch

    from paddle_resnet.benchmark.torch_jobs import make_torch_model

    ours, model = create_model(name), make_torch_model(train_report.describe(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(ours)
    shapes = sorted(tuple(p.shape) for p in model.parameters() if p.ndim == 4)
    assert shapes == sorted(tuple(p.shape) for p in ours.parameters() if p.ndim == 4)
    products: list[int] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(
                lambda layer, _, result: products.append(result[0, 0].numel() * layer.weight.numel())
            )
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    linear = model[-1].weight.numel()
    assert sum(products[:-1]) + linear == train_report.training_operations(name, 32) // 6


@pytest.mark.parametrize("name", ["lenet", "resnext50_32x4d", "resnet18_d", "preact_resnet18", "wrn_16_2"])
def test_a_network_that_torch_models_lacks_is_refused(name):
    with pytest.raises(UsageError, match=f"{name}: not available in PyTorch"):
        train_report.describe(name)


def test_jobs_are_interleaved(monkeypatch):
    done = []
    monkeypatch.setattr(runner, "run_job", lambda job, name: done.append(job["key"]) or {"n": len(done)})
    measured = runner.run_jobs({"a": {"key": "A"}, "b": {"key": "B"}}, rounds=2)
    assert done == ["A", "B", "A", "B"]
    assert measured == {"a": [{"n": 1}, {"n": 3}], "b": [{"n": 2}, {"n": 4}]}


def test_a_dead_process_is_a_run_failure():
    dies = (sys.executable, "-c", "import sys; sys.exit('out of memory')")
    with pytest.raises(RunFailure, match="b: the process ended with code 1: out of memory"):
        runner.run_job({}, "b", dies)


def test_torch_jobs_import_no_paddle(project):
    jobs = {job.split(".")[0] for job in runner.JOBS.values() if job.startswith("torch")}
    code = """import sys
from importlib import import_module
from unittest.mock import MagicMock

for name in ("torch", "torch.nn", "torch.nn.functional"):
    sys.modules[name] = MagicMock()
from paddle_resnet.benchmark import runner
for job in sys.argv[1:]:
    import_module(f"paddle_resnet.benchmark.{job}")
sys.exit("paddle" in sys.modules)"""
    environment = {**os.environ, "PYTHONPATH": str(project)}
    assert subprocess.run([sys.executable, "-c", code, *jobs], env=environment).returncode == 0


def train_once(names, folder):
    report = train_report.benchmark_training([TINY], names, rounds=1, steps=2, warm_up=1)
    report.write(folder)
    assert (folder / "train.png").stat().st_size > 5000
    return json.loads((folder / "train.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_training_report_of_a_real_run(tmp_path):
    found = train_once(["native", *(["torch"] if find_spec("torch") else [])], tmp_path)
    assert {"date", "processor", "cores", "versions", "settings", "rows", "process", "platform"} <= found.keys()
    assert found["settings"] == {"rounds": 1, "steps": 2, "warm_up_steps": 1}
    for row in found["rows"]:
        assert row["case"] == "resnet8@8x4"
        assert [len(run) for run in row["step_seconds"]] == [2]
        assert row["images_per_second"]["count"] == 1
        assert 50 < row["peak_megabytes"]["median"] < 20_000
        assert 0 <= row["waiting_share"]["median"] < 1
        assert np.isfinite(row["share_of_product_rate"])


def test_the_command_prints_and_writes_the_report(tool, tmp_path, monkeypatch):
    bar = Bar("a", "onednn", summarise([1.0]))
    report = Report("train", "Speed", {"rounds": 1}, [{"n": 12}], [Column("n", "n")], [Panel("a", "n", [bar])])
    monkeypatch.setattr(train_report, "benchmark_training", lambda **options: report)
    done = tool("benchmark", "train", "--rounds", 1, "--output", tmp_path)
    assert "Speed" in done.stdout and "12" in done.stdout
    settings = json.loads((tmp_path / "train.json").read_text())["settings"]
    assert settings["rounds"] == 1
    assert settings["command_line"].endswith(f"train --rounds 1 --output {tmp_path}")


@pytest.mark.once
@pytest.mark.slow
def test_usage_error_of_a_job_is_raised_here():
    job = {"kind": "infer", "model": "nowhere", "batch": 1, "threads": 1, "calls": 1, "warm_up": 1}
    job |= {"precision": "fp32", "backend": "paddle"}
    with pytest.raises(UsageError, match="infer: nowhere"):
        runner.run_job(job, "infer")


@pytest.mark.once
@pytest.mark.slow
def test_loaders_are_compared_without_torch(monkeypatch, caplog):
    monkeypatch.setattr(data, "WORKERS", (1,))
    case = TrainCase("resnet8", 32, 4)
    source = LoaderCase("PNGs", 32, {"pad": 4, "flip": True}, case, files=8, file_size=(32, 32), file_kind="PNG")
    monkeypatch.setattr(data, "COMPARED", (source,))
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    report = benchmark_loading(1, 2, 1, against=["torch", "paddle"], torch_python="/bin/false")
    assert [row["loader"] for row in report.rows] == ["this project", "paddle"]
    assert "/bin/false has no PyTorch with torchvision, so it is left out" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["infer", *(pytest.param(each, marks=pytest.mark.once) for each in ("data", "predict"))]
)
def test_reports_are_complete(tmp_path, command, monkeypatch):
    """Jobs run in this process; test_training_report_of_a_real_run starts one."""
    from tiny_run import make_run

    from paddle_resnet.benchmark import inference_jobs, training_jobs
    from paddle_resnet.exporting import export

    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    jobs = {"load": training_jobs.load, "train": training_jobs.train}
    jobs |= {"infer": inference_jobs.infer, "predict": inference_jobs.predict}
    monkeypatch.setattr(runner, "run_job", lambda job, name: jobs[job["kind"]](job))
    if command == "data":
        options = {"stored": 12, "augment": {"flip": True}, "case": TINY, "file_size": (20, 16)}
        sources = [LoaderCase(name, files=files, **options) for name, files in (("memory", 0), ("files", 5))]
        report = benchmark_loading(1, 2, 1, sources, backend="native")
        assert [row["source"] for row in report.rows] == ["memory", "files"]
    elif command == "predict":
        run = make_run(tmp_path)
        export(run)
        pictures = str(run.config.data.root / "test")
        report = benchmark_prediction(run.path, [pictures], batch=5, threads=1, rounds=1)
        assert [(row["images"], row["share"]["count"]) for row in report.rows] == [(12, 1)]
        with pytest.raises(UsageError, match="int8"):  # not exported
            benchmark_prediction(run.path, [pictures], 5, 1, 1, precision="int8")
    else:
        run = make_run(tmp_path)
        export(run)
        report = infer_report.benchmark_inference(run.path, [1, 3], [1], rounds=2, calls=4)
        assert [(row["backend"], row["batch"]) for row in report.rows] == [("paddle fp32", 1), ("paddle fp32", 3)]
        assert [row["p95_ms"]["count"] for row in report.rows] == [2, 2]
        with pytest.raises(UsageError, match=r"nothing to measure.*paddle fp32"):
            infer_report.benchmark_inference(run.path, [1], [1], rounds=1, calls=1, precisions=["int8"])
        assert all(row["p50_ms"]["median"] <= row["p99_ms"]["median"] for row in report.rows)
    json_path, plot_path = report.write(tmp_path / "report")
    assert json.loads(json_path.read_text())["command"] == command
    assert plot_path.read_bytes().startswith(b"\x89PNG")
    assert len(report.table().rows) == len(report.rows)
