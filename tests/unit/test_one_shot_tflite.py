# SPDX-License-Identifier: Apache-2.0
"""prune_one_shot on `.tflite` files whose Keras source is lost."""

import json
import subprocess
import sys

import dense_models
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from dense_models import (
    conv,
    dynamic_range,
    finish,
    fully_connected,
    half,
    half_model,
    plain,
    run,
)
from tiny_models import Graph, Operator

from tfrewprune.cli import main
from tfrewprune.converter import convert
from tfrewprune.converter.densify import read_weights, write_weights
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.oneshot import prune_one_shot
from tfrewprune.oneshot.tflite_model import TFLiteSource, specs_of
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Column, Head, NofM, RowColumn

X = np.random.default_rng(0).standard_normal((96, 8, 8, 4)).astype(np.float32)
X = X + np.roll(X, 1, 1) + np.roll(X, 1, 2)
EACH = Recipe(Rule(["b", "c"], rate=2), method="magnitude")


BLIND = """
import sys

class Blind:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras", "tensorflow"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blind())
from tfrewprune.cli import main
sys.exit(main({words!r}))
"""


def weights(*shape) -> np.ndarray:
    scale = np.sqrt(2 / np.prod(shape[1:]))
    return np.random.default_rng(1).standard_normal(shape).astype("float32") * scale


def model_bytes(shared_bias: bool = False, halved: bool = False) -> bytes:
    """Two convolutions and two dense layers; the second one is given no bias."""
    graph = Graph()
    constant = half if halved else Graph.constant
    x = graph.tensor("x", (1, 8, 8, 4), signature=(-1, 8, 8, 4))
    bias = graph.constant("zeros", np.zeros(16))
    y = conv(graph, x, weights(16, 3, 3, 4), bias, activation="RELU", name="a")
    own = bias if shared_bias else np.full(16, 0.1, np.float32)
    if halved:
        own = half(graph, "bias", np.zeros(16))
    kernel = constant(graph, "kernel", weights(16, 3, 3, 16))
    y = conv(graph, y, kernel, own, (2, 2), activation="RELU", name="b")
    y = fully_connected(graph, y, weights(32, 256), activation="RELU", name="c")
    y = fully_connected(graph, y, weights(4, 32), np.zeros(4), name="d")
    return finish(graph, [x], [y])


def rows_of(result) -> dict:
    return {row.layer: row for row in result.layers}


@pytest.mark.parametrize("halved", [False, True], ids=["float32", "float16"])
def test_weights_are_written_back_and_packed(halved, tmp_path):
    content = model_bytes(shared_bias=True, halved=halved)
    copy = bytes(content)
    result = prune_one_shot(content, X, recipe=EACH)
    assert content == copy
    (dense,), (pruned,) = run(content, X), run(result.tflite, X)
    difference = (
        np.square(dense - pruned).sum() / np.square(dense - dense.mean(0)).sum()
    )
    assert result.output_error == pytest.approx(float(difference), rel=1e-3)
    assert difference < 0.2
    rows = rows_of(result)
    for name in ("b", "c"):
        assert rows[name].rate == pytest.approx(2, rel=0.03)
    for name, reason in (("a", "no rule"), ("d", "no rule")):
        assert reason in rows[name].reason
    # As a path, and on to the packed file.
    (tmp_path / "m.tflite").write_bytes(content)
    again = prune_one_shot(tmp_path / "m.tflite", X, recipe=EACH)
    assert again.tflite == result.tflite
    packed = convert(result, tmp_path / "packed.tflite", minimum_gain=0)
    assert {r.name for r in packed.report.packed} >= {"b", "c"}
    # float16 stays float16, behind its DEQUANTIZE.
    types = [t.type for t in read_model(result.tflite).subgraphs[0].tensors]
    assert (schema.TensorType.FLOAT16 in types) == halved


def test_a_model_of_fixed_batch_is_run_input_by_input(rng):
    graph = Graph()
    x = graph.tensor("x", (1, 4, 16))
    y = plain(graph, "ABS", [x], (1, 4, 16))
    shape = graph.tensor(
        "shape", (2,), np.array([1, 64], np.int32).tobytes(), schema.TensorType.INT32
    )
    flat = plain(graph, "RESHAPE", [y, shape], (1, 64), "flat")
    z = fully_connected(graph, flat, weights(32, 64), np.zeros(32), name="wide")
    content = finish(graph, [x], [z])
    data = rng.standard_normal((200, 4, 16)).astype("float32")
    result = prune_one_shot(content, data, recipe=Recipe(Rule("wide", rate=2)))
    found = [run(result.tflite, row[None])[0][0] for row in data[:20]]
    expected = [run(content, row[None])[0][0] for row in data[:20]]
    assert np.square(np.subtract(found, expected)).mean() < 0.6 * np.var(expected)
    assert rows_of(result)["wide"].rate == pytest.approx(2, rel=0.05)


def test_data_by_the_names_of_the_signature():
    model = read_model(model_bytes())
    (index,) = model.subgraphs[0].inputs
    entry = schema.TensorMapT(name=b"image", tensorIndex=int(index))
    signature = schema.SignatureDefT(inputs=[entry], signatureKey=b"serving_default")
    model.tree.signatureDefs = [signature]
    (spec,) = specs_of(write_model(model))
    assert (spec.name, spec.path) == ("x", ("image",))


def test_bytes_for_parts_of_one_are_told():
    """A converter folds a rescaling into the weights: then bytes are what is due."""
    data = np.random.default_rng(0).integers(0, 256, (96, 8, 8, 4), np.uint8)
    with pytest.warns(UserWarning, match="integers for float inputs.*'a' puts out"):
        result = prune_one_shot(model_bytes(), data, recipe=EACH)
    assert "integers for float inputs" in rows_of(result)["b"].note
    folded = read_model(model_bytes())
    layer = find_layers(folded)[0]
    stored = folded.subgraphs[0].tensors[layer.source.tensor]
    kernel = read_weights(folded, stored) / 255
    folded.tree.buffers[stored.buffer].data = write_weights(stored, kernel, None)
    result = prune_one_shot(write_model(folded), data, recipe=EACH)
    assert rows_of(result)["b"].note is None


def test_numbers_outside_a_table_are_refused():
    graph = Graph()
    ids = graph.tensor("ids", (1, 4), dtype=schema.TensorType.INT32)
    table = graph.constant("table", weights(10, 16))
    options = schema.GatherOptionsT(axis=0)
    y = graph.tensor("rows", (1, 4, 16))
    kind = schema.BuiltinOptions.GatherOptions
    code = schema.BuiltinOperator.GATHER
    graph.operators.append(Operator(code, [table, ids], [y], b"", options, kind))
    y = fully_connected(graph, y, weights(32, 64), np.zeros(32), name="wide")
    content = finish(graph, [ids], [y])
    numbers = np.random.default_rng(0).integers(0, 10, (96, 4))
    recipe = Recipe(Rule("wide", rate=2))
    assert prune_one_shot(content, numbers, recipe=recipe).pruned_rate > 1.9
    for place in (0, 90):
        wrong = np.array(numbers)
        wrong[place, 2] = 10
        with pytest.raises(ValueError, match=r"out of bounds.*int32 from 0 to 10"):
            prune_one_shot(content, wrong, recipe=recipe)


def test_rules_patterns_and_ends():
    rows = rows_of(prune_one_shot(model_bytes(), X, rate=2))
    assert rows["a"].reason == "first convolution (skip_first=True)"
    assert rows["d"].reason == "last classifier (skip_last=True)"
    assert rows["c"].reason is None
    recipe = Recipe([Rule("c", skip=True), Rule("b", rate=2), Rule("*", rate=2)])
    result = prune_one_shot(model_bytes(), X, recipe=recipe)
    assert "left dense by rule 'c'" in rows_of(result)["c"].reason
    assert "c" not in result.losses
    with pytest.raises(ValueError, match=r"'nothing' matches no layer.*a, b, c, d"):
        prune_one_shot(model_bytes(), X, recipe=Recipe(Rule("nothing", rate=2)))


def test_what_only_keras_models_have_is_refused():
    for rule, expected in (
        (Rule("*", structure=Head(), rate=2), "the heads of its layers.*Head in Rule"),
        (Rule("*", kind="CONV_2D", rate=2), "classes of its.*kind='CONV_2D'"),
    ):
        with pytest.raises(ValueError, match=expected):
            prune_one_shot(model_bytes(), X, recipe=Recipe(rule))
    rules = [Rule("*", rate=2), Rule("b", rate=4)]
    with pytest.raises(ValueError, match="Rule 'b' never applies"):
        prune_one_shot(model_bytes(), X, recipe=Recipe(rules))


def test_a_structure_of_one_rate_needs_no_other():
    recipe = Recipe(Rule("c", structure=NofM(2, 4)))
    rows = rows_of(prune_one_shot(model_bytes(), X, recipe=recipe))
    assert rows["c"].rate == pytest.approx(2)


def test_rows_of_the_last_layer_stay():
    recipe = Recipe(Rule(["c", "d"], structure=RowColumn(), rate=2))
    rows = rows_of(prune_one_shot(model_bytes(), X, recipe=recipe))
    assert [rows[name].structure for name in "cd"] == [RowColumn(), Column()]


def test_shared_weights_are_left_alone(rng):
    data = rng.standard_normal((64, 6, 6, 4)).astype("float32")
    result = prune_one_shot(half_model(), data, recipe=Recipe(Rule("b", rate=2)))
    rows = rows_of(result)
    assert rows["c"].reason == "another operator reads its weights too"
    assert rows["b"].reason is None


def test_constraints_count_each_run_of_weights_that_are_left_alone():
    graph = Graph()
    y = x = graph.tensor("x", (1, 8, 8, 4), signature=(-1, 8, 8, 4))
    kernel = graph.constant("kernel", weights(4, 3, 3, 4))
    for name in ("a", "b"):
        y = conv(graph, y, kernel, np.zeros(4), name=name)
    y = conv(graph, y, weights(16, 3, 3, 4), np.zeros(16), name="own")
    content, recipe = finish(graph, [x], [y]), Recipe(Rule("own"))
    shared, own = 2 * 64 * 144, 64 * 576
    with pytest.raises(ValueError, match=f"needs {shared:,} of the {shared + own:,}"):
        prune_one_shot(content, X, recipe=recipe, constraints={"macs": shared - 1})
    limits = {"macs": shared + own // 2}
    result = prune_one_shot(content, X, recipe=recipe, constraints=limits)
    assert 0.3 * 576 < rows_of(result)["own"].kept <= 288


def test_constraints_count_the_file():
    content = model_bytes()
    result = prune_one_shot(
        content, X, recipe=Recipe(Rule(["b", "c"])), constraints={"bytes": "70%"}
    )
    packed = convert(result, minimum_gain=0)
    assert len(packed) < 0.8 * len(content)
    with pytest.raises(ValueError, match="bytes <= 100 cannot be met"):
        prune_one_shot(content, X, rate=2, constraints={"bytes": 100})


def test_integer_weights_and_other_files_are_told(tmp_path):
    graph = Graph()
    x = graph.tensor("x", (1, 8), dtype=schema.TensorType.INT8)
    kernel = graph.tensor("w", (4, 8), bytes(32), schema.TensorType.INT8)
    y = fully_connected(graph, x, kernel, name="int")
    graph.tensors[y].dtype = schema.TensorType.INT8
    content = finish(graph, [x], [y])
    data = np.random.default_rng(0).integers(-9, 9, (20, 8))
    with pytest.raises(ValueError, match=r"can be pruned:\n  int: .*INT8"):
        prune_one_shot(content, data, rate=2)
    with pytest.raises(ValueError, match="not a"):
        prune_one_shot(b"nonsense", X, rate=2)
    with pytest.raises(ValueError, match=r"expected shape \(inputs, 8, 8, 4\)"):
        prune_one_shot(model_bytes(), X[..., :2], rate=2)
    with pytest.raises(FileNotFoundError):
        prune_one_shot(tmp_path / "none.tflite", X, rate=2)


def test_int8_weights_of_a_dynamic_range_file_stay(tmp_path, capsys):
    content = dynamic_range(model_bytes(), smallest=1024)  # a and d stay float
    recipe = Recipe(Rule(["a", "b", "c"], rate=2))
    result = prune_one_shot(content, X, recipe=recipe)
    rows = rows_of(result)
    assert [rows[name].reason for name in "bc"] == [
        "its weights are integers: prune the float model, then quantize"
    ] * 2
    assert rows["a"].rate == pytest.approx(2, rel=0.05)
    assert result.rate < 1.1  # the integers are weights of the model too
    model, data = tmp_path / "m.tflite", tmp_path / "x.npy"
    model.write_bytes(dynamic_range(model_bytes()))
    np.save(data, X)
    words = ["prune", str(model), str(tmp_path / "p.tflite"), "--data", str(data)]
    assert main([*words, "--rate", "2"]) == 1
    told = capsys.readouterr().err
    assert "Nothing in the model can be pruned" in told
    assert all(f"{name}: its weights are integers" in told for name in "abcd")


def test_the_command_needs_neither_keras_nor_tensorflow(tmp_path):
    (tmp_path / "m.tflite").write_bytes(model_bytes())
    np.save(tmp_path / "x.npy", X)
    words = ["prune", "m.tflite", "p.tflite", "--data", "x.npy", "--rate", "2"]
    command = [sys.executable, "-c", BLIND.format(words=words)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.tflite").stat().st_size > 1000


def test_the_command(tmp_path, capsys):
    model, out, data = (str(tmp_path / n) for n in ("m.tflite", "p.tflite", "x.npy"))
    (tmp_path / "m.tflite").write_bytes(model_bytes())
    np.save(data, X)
    words = ["prune", model, out, "--data", data]
    assert main([*words, "--rate", "2", "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["pruned_rate"] == pytest.approx(2, rel=0.05)
    assert "1 of" in captured.err  # progress
    assert dense_models.run((tmp_path / "p.tflite").read_bytes(), X)[0].shape == (96, 4)
    assert main([*words, "--max-weights", "80%", "--skip", "b"]) == 0
    assert "outputs differ by" in capsys.readouterr().out
    assert main(words) == 1
    assert "expected a rate" in capsys.readouterr().err
    assert main(["prune", model, "p.keras", "--data", data, "--rate", "2"]) == 1
    assert "OUT must be a .tflite file" in capsys.readouterr().err


def test_layers_of_an_open_size_cost_what_they_do_on_the_data():
    def model(shape, signature=None):
        graph = Graph()
        x = graph.tensor("x", shape, signature=signature)
        y = conv(graph, x, weights(16, 3, 3, 4), np.zeros(16), stride=(2, 2), name="a")
        y = conv(graph, y, weights(16, 1, 1, 16), np.zeros(16), name="b")
        return finish(graph, [x], [y])

    recipe = Recipe(Rule(["a", "b"], rate=2), method="magnitude")
    fixed = TFLiteSource(model((1, 8, 8, 4)), recipe, [X])
    open_ = TFLiteSource(model((1, 1, 1, 4), (-1, -1, -1, 4)), recipe, [X])
    runs = [job.cost.runs for job in open_.jobs]
    assert runs == [job.cost.runs for job in fixed.jobs]
    assert [size.pixels for each in runs for size in each] == [16, 16]
