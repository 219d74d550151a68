# SPDX-License-Identifier: Apache-2.0
"""convert(measure=True): this machine decides which layers are packed."""

import dataclasses
import json

import numpy as np
import pytest
from dense_models import add, block_sparse, conv, finish
from tiny_models import Graph

import tfrewprune as trp
from tfrewprune.benchmark import profile
from tfrewprune.benchmark.measure import Ratio, Timing
from tfrewprune.cli import main
from tfrewprune.converter import ConversionError, SkipReason
from tfrewprune.converter.conversion import read_model


def model() -> bytes:
    """A layer with a sum behind it, one without zeros, and one with few zeros."""
    graph = Graph()
    x, z = graph.tensor("x", (1, 14, 14, 32)), graph.tensor("z", (1, 8, 8, 64))
    first = block_sparse((32, 3, 3, 32), keep=1 / 8)
    y = conv(graph, x, first, np.zeros(32), name="pruned")
    y = add(graph, y, x)
    full = np.random.default_rng(0).standard_normal((16, 1, 1, 32))
    y = conv(graph, y, full, np.zeros(16), name="full")
    most = block_sparse((64, 1, 1, 64), keep=0.9)
    most = conv(graph, z, most, np.zeros(64), name="most")
    return finish(graph, [x, z], [y, most])


@pytest.fixture
def fake_ratio(monkeypatch):
    """Layers that are timed get this ratio, dense / packed."""
    ratios: list[float] = []
    real = profile.time_layers

    def timed(packed, **options):
        for layer, ratio in zip(
            real(packed, **options | {"min_seconds": 0.001}), ratios, strict=True
        ):
            dense = Timing(ratio * 1e-6, 0, 0, 1)
            yield dataclasses.replace(
                layer,
                dense=dense,
                packed=Timing(1e-6, 0, 0, 1),
                ratio=Ratio(ratio, ratio, ratio),
            )

    monkeypatch.setattr(profile, "time_layers", timed)
    return ratios


def test_every_layer_with_zeros_is_timed_and_the_report_says_so():
    predicted = trp.convert(model(), minimum_gain=1.5).report
    assert [layer.packed for layer in predicted.layers] == [True, False, False]
    assert "measur" not in str(predicted)
    assert predicted.layers[0].measured_packed_ms is None
    packed = trp.convert(model(), measure=True, minimum_gain=1.5)
    pruned, full, most = packed.report.layers
    for layer in (pruned, most):
        assert layer.measured_dense_ms > 0 and layer.measured_packed_ms > 0
        assert layer.packed or layer.reason.startswith("dense is faster: measured ")
    assert full.skip is SkipReason.NO_ZEROS
    assert full.measured_dense_ms is None
    assert "decided by measuring here" in str(packed.report)


@pytest.mark.filterwarnings("ignore:convert packed none")
@pytest.mark.parametrize("first", [0.5, 3.0])
@pytest.mark.parametrize("most", [0.99, 1.01])
def test_measured_ratios_decide(fake_ratio, first, most):
    fake_ratio[:] = [first, most]
    packed = trp.convert(model(), measure=True)
    decided = {layer.name: layer for layer in packed.report.layers}
    assert decided["pruned"].packed == (first > 1)
    assert decided["most"].packed == (most > 1)
    if most < 1:
        assert decided["most"].skip is SkipReason.DENSE_IS_FASTER
        assert "measured 0.99 us dense, 1 us packed" in decided["most"].reason
    operators = len(read_model(packed).subgraphs[0].operators)
    assert operators == (3 if first > 1 else 4), "a packed layer takes the sum along"
    if max(first, most) > 1:
        assert packed.report.difference < 1e-3


def test_minimum_gain_counts_for_measured_times(fake_ratio):
    fake_ratio[:] = [3.0, 1.5]
    report = trp.convert(model(), measure=True, minimum_gain=2).report
    assert [layer.packed for layer in report.layers] == [True, False, False]


def test_another_target_cannot_be_measured():
    with pytest.raises(ConversionError, match="times this machine.*'arm-small'"):
        trp.convert(model(), measure=True, target="arm-small")


def test_command_line(tmp_path, capsys, fake_ratio):
    source, target = tmp_path / "in.tflite", tmp_path / "out.tflite"
    source.write_bytes(model())
    words = ["convert", str(source), str(target), "--no-verify", "--measure"]
    fake_ratio[:] = [4.0, 0.5]
    assert main(words) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "decided by measuring here, one thread: 1 of 2 layers run packed" in out
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["measured"] is True
    first, _, last = document["decisions"]
    assert first["measured_dense_ms"] == pytest.approx(4 * first["measured_packed_ms"])
    assert last["skip"] == "DENSE_IS_FASTER"
    assert main([*words[:4], "--target", "portable"]) == 0
    assert main([*words, "--target", "portable"]) == 1
    assert "times this machine" in capsys.readouterr().err
