"""Normalisation in numbers, in the state dict, and in an exported graph."""

import numpy as np
import paddle
import pytest

from paddle_resnet.data import Normalize

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 6, 7, 3), dtype=np.uint8)


def test_values_are_the_formula(pixels):
    found = Normalize(MEAN, STD)(paddle.to_tensor(pixels))
    reference = ((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    assert found.dtype == paddle.float32
    np.testing.assert_allclose(found.numpy(), reference, atol=1e-6)


def test_pixels_of_the_host_get_the_layers_bits(pixels):
    normalize = Normalize(MEAN, STD)
    every_level = np.resize(np.arange(256, dtype=np.uint8), (2, 16, 20, 3))
    for some in (pixels, every_level, pixels[:, 1:5, 2:6]):
        np.testing.assert_array_equal(normalize.of_pixels(some).numpy(), normalize(paddle.to_tensor(some)).numpy())


def test_denormalize_inverts_normalize(pixels):
    normalize = Normalize(MEAN, STD)
    images = normalize(paddle.to_tensor(pixels))
    for form in (images, images.numpy()):
        restored = normalize.denormalize(form)
        assert restored.dtype == np.uint8
        np.testing.assert_array_equal(restored, pixels)
    assert normalize.denormalize(np.full((1, 3, 1, 1), 99.0)).max() == 255


def test_it_adds_nothing_to_a_state_dict():
    network = paddle.nn.Sequential(Normalize(MEAN, STD), paddle.nn.Conv2D(3, 4, 3))
    assert sorted(network.state_dict()) == ["1.bias", "1.weight"]
    assert len(network.parameters()) == 2


def test_an_exported_graph_takes_raw_pixels(pixels, tmp_path):
    from paddle import inference

    network = paddle.nn.Sequential(Normalize(MEAN, STD), paddle.nn.Conv2D(3, 4, 3))
    network.eval()
    path = str(tmp_path / "model")
    spec = paddle.static.InputSpec([None, 6, 7, 3], "uint8")
    paddle.jit.save(network, path, input_spec=[spec])
    suffix = ".json" if (tmp_path / "model.json").exists() else ".pdmodel"
    config = inference.Config(path + suffix, path + ".pdiparams")
    config.disable_glog_info()
    predictor = inference.create_predictor(config)
    for count in (3, 1):
        handle = predictor.get_input_handle(predictor.get_input_names()[0])
        handle.copy_from_cpu(pixels[:count])
        predictor.run()
        found = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
        np.testing.assert_allclose(found, network(paddle.to_tensor(pixels[:count])).numpy(), atol=1e-4)
