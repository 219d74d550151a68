# SPDX-License-Identifier: Apache-2.0
"""The notebooks run from top to bottom, and what they promise holds."""

from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

#: What must hold once a notebook has run, as its last cell.
PROMISES = {
    "quickstart": """
        assert result.scores["after"]["accuracy"] > 0.8
        assert run("dense.tflite", x_test)[1] > run("pruned.tflite", x_test)[1]
        assert os.path.getsize("pruned.tflite") < os.path.getsize("dense.tflite") / 2
    """,
    "choose_structure_and_method": """
        assert all(accuracy > 0.5 for accuracy, _, _ in rows.values())
        assert rows["Block(16, 1)"][1] > 1
        assert {len(curve) for curve in curves.values()} == {16}
    """,
    "add_your_own_structure": """
        assert [row.rate for row in result.layers if row.reason is None] == [4, 4, 8]
        assert sum(layer.packed for layer in trp.inspect_model("lines.tflite")) >= 2
    """,
    "ship_to_android": """
        assert np.mean(right) > 0.8 and len(converted.report.packed) >= 2
        assert {path.name for path in files} == {
            "digits.tflite", "labels.txt", "Digits.kt",
            "image.bin", "scores.bin", "dense.tflite",
        }
        sizes = {path.name: path.stat().st_size for path in files}
        assert 2 * sizes["digits.tflite"] < sizes["dense.tflite"]
        assert sizes["image.bin"] == 256 and sizes["scores.bin"] == 40
    """,
    "one_shot": """
        assert found["pruned.tflite"][0] > found["model.tflite"][0] - 0.05
        assert found["pruned.tflite"][1] < found["model.tflite"][1]
        assert found["pruned.tflite"][2] < found["model.tflite"][2] / 2
    """,
    "streaming_speech": """
        assert result.pruned_rate > 7.9
        assert found["words"][0] > 0.8 and found["words"][0] > found["dense"][0] - 0.1
        assert found["words"][1] > 100
    """,
}

#: What stands in a notebook, and what is run for it: test_readme.py trains as long as
#: is usual, with the same network.
SHORTER = {
    "quickstart": (
        "rate=8,",
        "recipe=trp.Recipe(rate=8, reweighted_epochs=5, retrain_epochs=4),",
    ),
}


def test_every_notebook_is_known():
    assert {path.stem for path in NOTEBOOKS} == set(PROMISES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "%pip install" in first.source


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    # Children of the kernel, too, must find this checkout.
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    notebook = nbformat.read(path, as_version=4)
    if path.stem in SHORTER:
        old, new = SHORTER[path.stem]
        (cell,) = [cell for cell in notebook.cells if old in cell.source]
        cell.source = cell.source.replace(old, new)
    lines = PROMISES[path.stem].strip().splitlines()
    promise = "\n".join(line.strip() for line in lines)
    notebook.cells.append(nbformat.v4.new_code_cell(promise))
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = "\n".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )
    assert "Traceback" not in printed and "FAILED" not in printed
