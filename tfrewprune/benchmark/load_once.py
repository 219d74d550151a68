# SPDX-License-Identifier: Apache-2.0
"""Run as a fresh process: what it costs to load one model and run it once."""

import argparse
import json
import time
from pathlib import Path


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS line.")


def main() -> None:
    """Prints `load_seconds`, `resident_bytes` and `held_bytes` as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--shapes", type=json.loads, default=())
    arguments = parser.parse_args()

    # Imported first: the cost of Python and its modules is not the model's.
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter as LiteRtInterpreter

    from tfrewprune.runtime import Interpreter

    kind = Interpreter if arguments.packed else LiteRtInterpreter
    before = _resident_bytes()
    start = time.perf_counter()
    interpreter = kind(model_path=arguments.model, num_threads=arguments.threads)
    details = interpreter.get_input_details()
    for detail, shape in zip(details, arguments.shapes, strict=False):
        if list(detail["shape"]) != shape:
            interpreter.resize_tensor_input(detail["index"], shape)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        zeros = np.zeros(detail["shape"], detail["dtype"])
        interpreter.set_tensor(detail["index"], zeros)
    interpreter.invoke()
    seconds = time.perf_counter() - start
    figures = {
        "load_seconds": seconds,
        "resident_bytes": _resident_bytes() - before,
        "held_bytes": interpreter.held_bytes if arguments.packed else 0,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
