"""Precisions and backends: each is exported, loaded and run; missing ones are usage errors."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
import pytest
from requirements_met import needs_onednn, needs_onnx
from tiny_run import SIZE, make_run, random_pixels

from paddle_resnet.data import uint8_batches
from paddle_resnet.errors import UsageError
from paddle_resnet.exporting import export, onnx, quantization
from paddle_resnet.exporting.quantization import calibration_batches, read_pictures
from paddle_resnet.images.decode import decode_image
from paddle_resnet.inference import Predictor, backends
from paddle_resnet.inference.inference_config import InferenceConfig
from paddle_resnet.system import machine
from paddle_resnet.system.threads import OtherPrograms

pytestmark = pytest.mark.slow

HAS_BFLOAT16 = bool(backends.BFLOAT16_FEATURES & machine.processor().features)
needs_bfloat16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has neither AVX512-BF16 nor AMX-BF16")
AVAILABLE = [
    ("paddle", "fp32"),
    pytest.param("paddle", "bf16", marks=needs_bfloat16),
    pytest.param("onnxruntime", "fp32", marks=needs_onnx),
    pytest.param("onnxruntime", "int8", marks=needs_onnx),
    *(pytest.param("onednn", each, marks=[needs_onnx, needs_onednn]) for each in ("fp32", "int8")),
    pytest.param("onednn", "bf16", marks=[needs_onnx, needs_onednn, needs_bfloat16]),
]


@pytest.fixture(scope="module")
def run(run_of_all_precisions):
    return run_of_all_precisions


@pytest.fixture(scope="module")
def real(run):
    """All 12 test images."""
    return next(iter(uint8_batches(run.splits().test, 12, SIZE, SIZE)))[0]


@pytest.fixture(scope="module")
def float32_scores(run, real):
    """Paddle's scores in float32, which tests/exporting/test_export.py compares with the network's."""
    with Predictor(run.path, "cpu", "fp32", 1, backend="paddle") as predictor:
        return predictor.scores(real)


@pytest.mark.parametrize(("backend", "precision"), AVAILABLE)
def test_each_precision_is_close_to_float32(run, real, float32_scores, backend, precision):
    # bfloat16 has 8 bits of mantissa, int8 7 bits of the largest; the network has 8 layers.
    tolerance = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.05}[precision]
    with Predictor(run.path, "cpu", precision, 1, backend=backend) as predictor:
        assert (predictor.backend, predictor.precision) == (backend, precision)
        scores = predictor.scores(real)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, float32_scores, atol=tolerance)
    if precision != "fp32":
        assert np.abs(scores - float32_scores).max() > 1e-6, "nothing was rounded: this is float32"


@pytest.mark.parametrize(("backend", "precision"), AVAILABLE)
def test_chosen_threads_give_the_scores_of_fixed_ones(run, real, monkeypatch, backend, precision):
    fixed = {}
    for number in (1, 2):
        with Predictor(run.path, "cpu", precision, number, backend=backend) as predictor:
            fixed[number] = predictor.scores(real)
    monkeypatch.setattr("paddle_resnet.inference.predictor._thread_numbers", lambda device: [2, 1])
    monkeypatch.setattr(OtherPrograms, "cores", lambda others: 1.0)
    monkeypatch.setattr(backends, "LOOK_SECONDS", 0)
    monkeypatch.setattr(backends, "LOOK_CALLS", 0)
    monkeypatch.setattr(backends, "fastest", lambda works: (1, dict.fromkeys(works, 1.0)))
    with Predictor(run.path, "cpu", precision, backend=backend) as predictor:
        for number in (2, 1):
            np.testing.assert_array_equal(predictor.scores(real), fixed[number])


@pytest.mark.parametrize(("backend", "precision"), AVAILABLE)
def test_threads_do_not_change_scores(run, backend, precision):
    batches = [random_pixels(1 + seed % 5, seed) for seed in range(24)]
    with Predictor(run.path, "cpu", precision, 1, batch_size=4, backend=backend) as predictor:
        predictor.warm_up()
        expected = [predictor.scores(batch) for batch in batches]
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(predictor.scores, batches))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@needs_onnx
def test_the_onnx_file_has_standard_operations_and_fixed_names(run):
    import onnx

    model = onnx.load(run.inference_path / "model.onnx")
    assert [domain.domain for domain in model.opset_import] == [""]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["images", "probabilities"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    kinds = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in kinds
    assert "Identity" not in kinds


@needs_onnx
def test_int8_takes_raw_pixels_and_keeps_a_float_head(run):
    import onnx

    nodes = onnx.load(run.inference_path / "model_int8.onnx").graph.node
    first = next(node for node in nodes if "images" in node.input)
    assert first.op_type == "Transpose"
    assert not [node for node in nodes if node.op_type in ("Cast", "Sub")]
    maker = {output: node.op_type for node in nodes for output in node.output}
    product = next(node for node in nodes if node.op_type in ("MatMul", "Gemm"))
    assert maker.get(product.input[0]) != "DequantizeLinear"
    # resnet8's 7 convolutions, and two shortcuts' (option A) that became convolutions.
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert len(convolutions) == 9
    assert {maker.get(node.input[1]) for node in convolutions} == {"DequantizeLinear"}


@needs_onnx
def test_two_products_of_int8_fit_in_16_bits(run):
    """As processors add them that have no 8-bit dot product (`vpmaddubsw`)."""
    import onnx

    graph = onnx.load(run.inference_path / "model_int8.onnx").graph
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    stored = {node.output[0]: arrays.get(node.input[0]) for node in graph.node if node.op_type == "DequantizeLinear"}
    weights = [stored[node.input[1]].astype(int) for node in graph.node if node.op_type == "Conv"]
    assert all(2 * 255 * abs(each).max() <= np.iinfo(np.int16).max for each in weights)
    assert all(abs(each).max() > 60 for each in weights)


@pytest.mark.once
@needs_onnx
def test_other_pictures_calibrate_without_the_runs_data(tmp_path, tool):
    run = make_run(tmp_path / "made")
    pictures = run.config.data.root / "test"
    (pictures / "bad.png").write_text("no picture")
    shutil.move(pictures, tmp_path / "others")
    shutil.rmtree(run.config.data.root)
    done = tool("export", run.path, "--precision", "int8", "--calibrate", tmp_path / "others")
    assert (
        done.exit_code == 0 and "checked on 12 real images" in done.stdout and "bad.png: cannot be read" in done.stdout
    )
    batches = list(calibration_batches(run, 4, read_pictures(tmp_path / "others", run.config.data)))
    expected = {decode_image(file, SIZE, SIZE).tobytes() for file in (tmp_path / "others").glob("*/*.png")}
    assert len(batches) == 64 and {image.tobytes() for batch in batches for image in batch} == expected
    with Predictor(run.path, "cpu", "fp32", 1) as whole, Predictor(run.path, "cpu", "int8", 1) as quantised:
        np.testing.assert_allclose(quantised.scores(batches[0]), whole.scores(batches[0]), atol=0.05)
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "gone"):
        done = tool("export", run.path, "--calibrate", tmp_path / folder)
        assert done.exit_code == 2 and f"{folder}: no " in done.stderr


@pytest.mark.once
@needs_onnx
@pytest.mark.parametrize("shift", [0, 1])
def test_a_network_with_views_is_quantised(tmp_path, shift):
    """`export` compares ONNX Runtime's float32 with the network, which averages by itself."""
    run = make_run(tmp_path)
    evaluation = run.config.evaluation.model_copy(update={"flip": True, "shift": shift})
    run.config = run.config.model_copy(update={"evaluation": evaluation})
    export(run, precisions=["int8"])
    with Predictor(run.path, "cpu", "fp32", 1) as whole, Predictor(run.path, "cpu", "int8", 1) as quantised:
        np.testing.assert_allclose(quantised.scores(random_pixels(3)), whole.scores(random_pixels(3)), atol=0.05)
        if not shift:  # a moved copy's mirror image is no view of the mirrored image
            mirrored = quantised.scores(random_pixels(3)[:, :, ::-1])
            np.testing.assert_allclose(mirrored, quantised.scores(random_pixels(3)), atol=0.02)


@needs_onnx
def test_onnx_runtime_is_the_default_on_a_cpu(run, monkeypatch, caplog):
    with Predictor(run.path, "cpu") as predictor:
        assert (predictor.backend, predictor.precision) == ("onnxruntime", "fp32")
    monkeypatch.setattr(backends, "is_installed", lambda: False)
    monkeypatch.setattr("paddle_resnet.console.logger.propagate", True)
    with caplog.at_level(logging.INFO, "paddle_resnet"), Predictor(run.path, "cpu") as predictor:
        assert predictor.backend == "paddle"
    [line] = [message for message in caplog.messages if "ONNX" in message]
    assert "Paddle runs the model, as ONNX Runtime is not installed: pip install onnxruntime" in line
    with pytest.raises(UsageError, match="ONNX Runtime is not installed: pip install"):
        Predictor(run.path, "cpu", "int8")


def test_paddle_is_the_default_without_an_onnx_file(tmp_path):
    run = make_run(tmp_path)
    export(run, images=0)
    with Predictor(run.path, "cpu") as predictor:
        assert predictor.backend == "paddle"
    for precision, option in (("int8", "--precision int8"), ("fp32", "--onnx")):
        with pytest.raises(UsageError, match=f"no ONNX model of {precision}; export the run again with {option}"):
            Predictor(run.path, "cpu", precision, backend="onnxruntime")


@pytest.mark.parametrize(
    ("device", "precision", "backend", "words"),
    [
        ("cpu", "fp16", None, "fp16 is not available on device cpu; expected one of onnxruntime fp32"),
        ("cpu", "bf16", "onnxruntime", "onnxruntime bf16 is not available"),
        ("cpu", None, "tensorrt", "tensorrt fp32 is not available on device cpu"),
        ("gpu:0", "int8", None, "int8 is not available on device gpu:0; expected one of paddle fp32, paddle fp16"),
        ("cpu", "int9", None, r'precision: expected one of fp32, .*, got .int9. .did you mean "int8"'),
        ("cpu", None, "padle", r'backend: expected one of paddle, .*, got .padle. .did you mean "paddle"'),
    ],
)
def test_unsupported_combinations_are_usage_errors(run, device, precision, backend, words):
    with pytest.raises(UsageError, match=words):
        backends.choose(InferenceConfig.load(run.inference_path), device, precision, backend)


@pytest.mark.parametrize(("backend", "precision"), [("paddle", "fp16"), ("tensorrt", "fp32")])
def test_precisions_and_backends_of_a_gpu(run, backend, precision):
    config = InferenceConfig.load(run.inference_path)
    asked = None if backend == "paddle" else backend
    assert backends.choose(config, "gpu:0", precision, asked) == ("gpu:0", backend, precision)


@pytest.mark.parametrize("features", [frozenset({"avx2"}), frozenset({"avx512_bf16"}), frozenset({"amx_bf16"})])
def test_bfloat16_needs_its_processor_feature(run, monkeypatch, features):
    monkeypatch.setattr(machine, "processor", lambda: machine.Processor("x", "Old 86", features))
    config = InferenceConfig.load(run.inference_path)
    if "avx2" not in features:
        assert backends.choose(config, "cpu", "bf16", None) == ("cpu", "paddle", "bf16")
        return
    with pytest.raises(UsageError, match=r"bf16: this processor \(Old 86\) has neither AVX512-BF16 nor AMX-BF16"):
        backends.choose(config, "cpu", "bf16", None)


@needs_onnx
@pytest.mark.parametrize(("name", "precision"), [("model.onnx", "fp32"), ("model_int8.onnx", "int8")])
def test_a_damaged_onnx_file_is_a_usage_error(run, tmp_path, name, precision):
    folder = shutil.copytree(run.inference_path, tmp_path / "inference")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UsageError, match=f"{name}: damaged, as its SHA-256"):
        Predictor(folder, "cpu", precision)


@pytest.mark.once
@needs_onnx
@pytest.mark.parametrize("key", ["image_size", "batch"])
def test_a_description_of_another_input_is_a_usage_error(tmp_path, key):
    run = make_run(tmp_path)
    export(run, onnx=True, images=0, batch=2 if key == "batch" else None)
    path = run.inference_path / "inference.yml"
    path.write_text(re.sub(rf"\b{key}: \d+", f"{key}: 4", path.read_text()))
    with pytest.raises(UsageError, match=r"inference\.yml: describes an input of \[.*4, .*, but model\.onnx takes \["):
        Predictor(run.path, "cpu", backend="onnxruntime")


@pytest.mark.parametrize("missing", ["paddle2onnx", "onnxruntime"])
def test_missing_onnx_packages_are_named_before_writing(tmp_path, monkeypatch, missing):
    run = make_run(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match="pip install -r requirements/onnx"):
        export(run, onnx=True)
    assert not run.inference_path.exists()


@needs_onnx
def test_a_missing_quantisation_package_is_named(monkeypatch, run, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    with pytest.raises(UsageError, match=r"int8 needs .*pip install -r requirements/onnx"):
        quantization.quantize(run.inference_path / "model.onnx", tmp_path / "x.onnx", [])


@needs_onnx
def test_a_conversion_starts_no_program(run, tmp_path, monkeypatch):
    """paddle2onnx 2's optimizer would install packages by itself."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    files = InferenceConfig.load(run.inference_path).files
    paths = (run.inference_path / file.name for file in (files.program, files.parameters))
    onnx.write_onnx_program(*paths, tmp_path / "again.onnx", {})
    assert (tmp_path / "again.onnx").is_file()


@needs_onnx
def test_auto_is_the_cpu_for_onnx_runtime(run, monkeypatch):
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    with Predictor(run.path, backend="onnxruntime") as predictor:
        assert predictor.device == "cpu"
    with pytest.raises(UsageError, match="onnxruntime fp32 is not available on device gpu:0"):
        Predictor(run.path, "gpu", backend="onnxruntime")
