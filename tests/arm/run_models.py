# SPDX-License-Identifier: Apache-2.0
"""Runs models in LiteRT and keeps what comes out; executed by the Python of ARM.

`python run_models.py FOLDER LIBRARY [PRECISION]`: for each FOLDER/x.tflite the inputs
are FOLDER/x.inputs.npz (`arr_0`, ...); the outputs become FOLDER/x.outputs.npz. LIBRARY
is the delegate; or "Interpreter" or "CompiledModel" for that class of the package.
PRECISION is the delegate's option.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate


def start(model: Path, library: str, precision: str, threads: int) -> Interpreter:
    """An interpreter that has loaded our library."""
    if library == "Interpreter":
        import tfrewprune as trp

        return trp.Interpreter(model, num_threads=threads, precision=precision)
    delegate = load_delegate(library, {"precision": precision})
    interpreter = Interpreter(
        str(model), experimental_delegates=[delegate], num_threads=threads
    )
    interpreter.our_delegate = delegate
    return interpreter


def run(
    model: Path, library: str, precision: str, inputs: list[np.ndarray]
) -> list[np.ndarray]:
    """The outputs of the second run, so that scratch memory has been used before."""
    if library == "CompiledModel":
        import tfrewprune as trp

        compiled = trp.CompiledModel(model, num_threads=2, precision=precision)
        compiled.run(inputs)
        return list(compiled.run(inputs).values())
    interpreter = start(model, library, precision, threads=2)
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    interpreter.invoke()
    return [
        interpreter.get_tensor(detail["index"])
        for detail in interpreter.get_output_details()
    ]


def main(folder: Path, library: str, precision: str = "float32") -> None:
    for model in sorted(folder.glob("*.tflite")):
        with np.load(model.with_suffix(".inputs.npz")) as stored:
            inputs = [stored[name] for name in stored.files]
        outputs = run(model, library, precision, inputs)
        np.savez(model.with_suffix(".outputs.npz"), *outputs)
        print("ran", model.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
