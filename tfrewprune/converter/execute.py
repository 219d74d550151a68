# SPDX-License-Identifier: Apache-2.0
"""Runs two models on the same inputs, in a process of its own.

``python -m tfrewprune.converter.execute FOLDER`` reads ``job.json`` and the models and
inputs it names, and writes one file of outputs a run, or ``error.json``. A separate
process, because a damaged model can take the whole interpreter down with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def open_interpreter(path: Path, packed: bool, keep_all: bool = False) -> Any:
    """Opens a model with LiteRT, with our delegate if it has packed layers."""
    if packed:
        from tfrewprune.runtime import Interpreter
    else:
        from ai_edge_litert.interpreter import Interpreter
    return Interpreter(model_path=str(path), experimental_preserve_all_tensors=keep_all)


def run(
    interpreter: Any, signature: str | None, names: list[str], feed: list[np.ndarray]
) -> list:
    """Runs one signature (None: the first subgraph) and returns its outputs."""
    if signature is None:
        details = interpreter.get_input_details()
        for detail, array in zip(details, feed, strict=True):
            interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()
        for detail, array in zip(details, feed, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        outputs = interpreter.get_output_details()
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]
    runner = interpreter.get_signature_runner(signature)
    outputs = runner(**dict(zip(names, feed, strict=True)))
    return [outputs[name] for name in sorted(outputs)]


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    stage = ""
    try:
        for model in job["models"]:
            stage = model["name"]
            interpreter = open_interpreter(
                folder / model["file"], model["packed"], bool(job["watched"])
            )
            for number, case in enumerate(job["cases"]):
                with np.load(folder / case["inputs"]) as arrays:
                    feed = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
                outputs = run(interpreter, case["signature"], case["names"], feed)
                if job["watched"]:
                    outputs = _watch(interpreter, job["watched"])
                if job["only_shapes"]:
                    outputs = [np.array(output.shape, int) for output in outputs]
                target = folder / f"{model['name']}_{number}.npz"
                np.savez(target, *[_plain(output) for output in outputs])
            del interpreter
    except Exception as error:  # whatever LiteRT raises is the answer
        message = f"{type(error).__name__}: {error}"
        (folder / "error.json").write_text(json.dumps([stage, message]))
        sys.exit(1)


def _watch(interpreter: Any, watched: list[list[int]]) -> list[np.ndarray]:
    outputs = []
    for subgraph, tensor in watched:
        try:
            outputs.append(interpreter.get_tensor(tensor, subgraph))
        except ValueError:  # a subgraph that this run did not enter
            outputs.append(np.zeros(0, np.float32))
    return outputs


def _plain(output: np.ndarray) -> np.ndarray:
    """Strings come back as objects, which no file format of numpy takes."""
    output = np.asarray(output)
    return output.astype(np.bytes_) if output.dtype == object else output


if __name__ == "__main__":
    main(Path(sys.argv[1]))
