# SPDX-License-Identifier: Apache-2.0
"""Runs models once between the marks of `marks.c`; executed by the Python of ARM.

`python count_models.py MARKS LIBRARY PRECISION MODEL...`: a region a model, in order,
one thread, after a run that is not counted. LIBRARY is the delegate, which claims what
is packed, PRECISION its option.
"""

import ctypes
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate


def main(marks: str, library: str, precision: str, models: list[str]) -> None:
    mark = ctypes.CDLL(marks)
    delegate = load_delegate(library, {"log_level": "error", "precision": precision})
    for model in models:
        interpreter = Interpreter(
            model, experimental_delegates=[delegate], num_threads=1
        )
        interpreter.allocate_tensors()
        (detail,) = interpreter.get_input_details()
        values = np.random.default_rng(0).standard_normal(detail["shape"], np.float32)
        interpreter.set_tensor(detail["index"], values)
        interpreter.invoke()
        mark.begin_region()
        interpreter.invoke()
        mark.end_region()
        del interpreter


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
