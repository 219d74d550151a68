# SPDX-License-Identifier: Apache-2.0
"""A whole model of keras.applications, pruned, packed and timed."""

import pytest
from ai_edge_litert.interpreter import Interpreter

from tfrewprune.benchmark import models
from tfrewprune.benchmark.compare import random_inputs, run_once


@pytest.mark.slow
def test_mobilenet_v2(monkeypatch):
    seen = []
    build = models.pruned_model
    monkeypatch.setattr(
        models, "pruned_model", lambda *words: seen.append(build(*words)) or seen[0]
    )
    result = models.measure_model("mobilenet_v2", min_seconds=0.3)
    # 300.8 million multiply-adds (Sandler et al. 2018, table 4), of which the
    # first convolution, the depthwise ones and the classifier stay.
    assert 5.5 < result["mac_rate"] < 8
    assert result["ratio"]["median"] > 1.1
    assert result["claimed_nodes"] > 25
    assert result["packed_bytes"] < 0.6 * result["dense_bytes"]
    pointwise = [x for x in result["layers"] if x["packed"]]
    assert all(layer["shape"][1:3] == [1, 1] for layer in pointwise)
    assert models.model_table([result]).row_count == 1
    # What LiteRT keeps bounds what packing can give.
    assert 1.2 < result["ratio_limit"] < result["mac_rate"]
    whole = result["packed"]["median"]
    parts = result["packed_layers_seconds"] + result["litert_seconds"]
    assert 0.4 * whole < parts < 2.5 * whole
    assert len([step for step in result["steps"] if step["packed"]]) == len(pointwise)

    # Outputs that say nothing would agree with anything.
    interpreter = Interpreter(model_content=seen[0])
    first, second = (
        run_once(interpreter, random_inputs(interpreter, seed))[0] for seed in (0, 1)
    )
    assert abs(first - second).max() > 0.05 * abs(first).max()


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="resnet50.*'alexnet'"):
        models.measure_model("alexnet")
