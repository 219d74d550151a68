# SPDX-License-Identifier: Apache-2.0
"""Lists of shapes, single-layer models and the weights they are pruned with."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter as LiteRtInterpreter

from tfrewprune.benchmark.layers import (
    SHAPE_FILES,
    Layer,
    build_model,
    load_layers,
    parse_layers,
)
from tfrewprune.benchmark.weights import pruned_weights

CONV = Layer("conv", 8, 6, 16, 48, kernel=(3, 3))


def test_lines_are_read():
    conv, strided, dense, batch = parse_layers(
        """
        # a comment
        a conv 56x28 64->128 k3x5
        b conv 56x56   64 -> 128 k3x3 s2 d2   # another
        c fc 1024->10
        d fc 1024->10 batch4
        """
    )
    assert conv == Layer("a", 56, 28, 64, 128, (3, 5))
    assert (strided.stride, strided.dilation) == (2, 2)
    assert dense == Layer("c", 1, 1, 1024, 10)
    assert batch.input_shape == (4, 1024) and batch.output_shape == (4, 10)


@pytest.mark.parametrize(
    "line", ["a conv 56x56 64->64", "a fc 3", "b pool 3x3", "a fc 0->4"]
)
def test_wrong_lines_are_named(line):
    with pytest.raises(ValueError, match="Line 2 of list.txt"):
        parse_layers(f"ok fc 4->4\n{line}\n", where="list.txt")


@pytest.mark.parametrize("name", SHAPE_FILES)
def test_every_list_that_comes_along_is_read(name):
    layers = load_layers(name)
    assert len({layer.name for layer in layers}) == len(layers) > 4


def test_known_sizes():
    # He et al. 2015, table 1: ResNet-50 has 3.8e9 multiply-adds; VGG-16 15.3e9.
    vgg = {layer.name: layer for layer in load_layers("vgg16")}
    repeats = {"conv3_2": 2, "conv4_2": 2, "conv5_1": 3}
    # The papers count padding as work.
    total = sum(
        layer.pixels * layer.columns * layer.outputs * repeats.get(name, 1)
        for name, layer in vgg.items()
    )
    assert total == pytest.approx(15.3e9, rel=0.01)


@pytest.mark.parametrize(
    "layer",
    [
        Layer("a", 5, 4, 1, 1, (3, 3)),
        Layer("b", 8, 7, 1, 1, (3, 5), stride=2),
        Layer("c", 6, 6, 1, 1, (3, 3), dilation=2),
        Layer("d", 4, 4, 1, 1, (1, 1)),
    ],
    ids=lambda layer: layer.name,
)
def test_work_is_what_meets_the_image(layer):
    # A convolution of ones counts, at each pixel, the taps inside the image.
    taps = layer.kernel[0] * layer.kernel[1]
    image = np.ones(layer.input_shape, np.float32)
    model = build_model(layer, np.ones((1, taps), np.float32), np.zeros(1, np.float32))
    assert layer.macs == _run(model, image).sum()
    assert Layer("fc", 1, 3, 5, 7).macs == 105


def test_a_file_of_one_s_own(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("only fc 8->8\n")
    assert load_layers(str(path)) == [Layer("only", 1, 1, 8, 8)]
    with pytest.raises(ValueError, match="goals"):
        load_layers(str(tmp_path / "other.txt"))


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_model_computes_a_convolution(stride, dilation):
    layer = Layer("conv", 8, 7, 3, 5, (3, 3), stride, dilation)
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((5, 27)).astype(np.float32)
    bias = generator.standard_normal(5).astype(np.float32)
    image = generator.standard_normal(layer.input_shape).astype(np.float32)
    result = _run(build_model(layer, weights, bias), image)
    assert result.shape == layer.output_shape
    assert np.allclose(result, _convolve(layer, image, weights, bias), atol=1e-5)


def test_model_computes_a_matrix_product():
    layer = Layer("fc", 1, 2, 11, 7)
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((7, 11)).astype(np.float32)
    bias = generator.standard_normal(7).astype(np.float32)
    rows = generator.standard_normal((2, 11)).astype(np.float32)
    result = _run(build_model(layer, weights, bias), rows)
    assert np.allclose(result, rows @ weights.T + bias, atol=1e-5)


def test_wrong_weights_are_refused():
    with pytest.raises(ValueError, match=r"\(48, 144\).*\(48, 143\)"):
        build_model(CONV, np.zeros((48, 143), np.float32), np.zeros(48, np.float32))
    with pytest.raises(ValueError, match="bias"):
        build_model(CONV, np.zeros((48, 144), np.float32), np.zeros(4, np.float32))


@pytest.mark.parametrize("structure", ["block16x1", "block8x1", "unstructured"])
@pytest.mark.parametrize("rate", [2, 8])
def test_rate_is_met(structure, rate):
    weights = pruned_weights(CONV, structure, rate)
    assert weights.size / np.count_nonzero(weights) == pytest.approx(rate, rel=0.02)


def test_blocks_live_and_die_together():
    alive = pruned_weights(CONV, "block16x1", 4).reshape(3, 16, 144) != 0
    assert (alive == alive[:, :1]).all()


@pytest.mark.parametrize("filters", [1, 16])
def test_patterns_hold_four_taps_with_the_centre(filters):
    weights = pruned_weights(CONV, f"pattern{filters}", 8)
    taps = (weights != 0).reshape(48 // filters, filters, 9, 16)
    assert (taps == taps[:, :1]).all()
    kernels = taps[:, 0].transpose(0, 2, 1).reshape(-1, 9)
    alive = kernels[kernels.any(axis=1)]
    assert (alive.sum(axis=1) == 4).all() and alive[:, 4].all()
    assert weights.size / np.count_nonzero(weights) == pytest.approx(8, rel=0.06)


@pytest.mark.parametrize(
    ("structure", "rate", "message"),
    [
        ("blocks", 8, "blocks"),
        ("block16x1", 0.5, "at least 1"),
        ("pattern16", 2, "2.25"),
    ],
)
def test_impossible_pruning_is_refused(structure, rate, message):
    with pytest.raises(ValueError, match=message):
        pruned_weights(CONV, structure, rate)


def test_patterns_need_a_3x3_kernel():
    with pytest.raises(ValueError, match="3x3"):
        pruned_weights(Layer("pointwise", 8, 8, 16, 16, (1, 1)), "pattern16", 8)


def _run(model: bytes, values: np.ndarray) -> np.ndarray:
    interpreter = LiteRtInterpreter(model_content=model)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, values)
    interpreter.invoke()
    return interpreter.get_tensor(3)


def _convolve(layer: Layer, image, weights, bias) -> np.ndarray:
    """SAME convolution, one output pixel after the other."""
    _, height, width, _ = layer.output_shape
    reach = 2 * layer.dilation
    kernels = weights.reshape(layer.outputs, 3, 3, layer.inputs)
    total_h = max((height - 1) * layer.stride + reach + 1 - layer.height, 0)
    total_w = max((width - 1) * layer.stride + reach + 1 - layer.width, 0)
    before = ((total_h // 2, total_h - total_h // 2), (total_w // 2, total_w))
    padded = np.pad(image[0], (*before, (0, 0)))
    output = np.empty(layer.output_shape, np.float32)
    step = slice(0, reach + 1, layer.dilation)
    for y in range(height):
        for x in range(width):
            top, left = y * layer.stride, x * layer.stride
            patch = padded[top : top + reach + 1, left : left + reach + 1][step, step]
            output[0, y, x] = np.einsum("hwi,ohwi->o", patch, kernels) + bias
    return output
