# SPDX-License-Identifier: Apache-2.0
"""LiteRT's interpreter with the native delegate already in place."""

import ctypes
import mmap
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter as _LiteRtInterpreter
from ai_edge_litert.interpreter import load_delegate

from tfrewprune.caller import warn_caller
from tfrewprune.runtime.library import delegate_path
from tfrewprune.runtime.options import delegate_options

CUSTOM_OP_PREFIX = "Tfrewprune"


@dataclass(frozen=True)
class LayerRun:
    """When a packed layer ran.

    Attributes:
        operator: Its index in the model's subgraph.
        begin: Seconds since the run of the model began.
        end: Likewise.
        driver: What ran it, by its name in `tflite_ops/operators/drivers.cc`.
        threads: How many threads it had.
    """

    operator: int
    begin: float
    end: float
    driver: str
    threads: int


@dataclass(frozen=True)
class Trace:
    """One run of a model.

    Attributes:
        seconds: How long it took, by the wall clock.
        layers: Its packed layers, in the order in which they ran.
    """

    seconds: float
    layers: tuple[LayerRun, ...]


class Interpreter(_LiteRtInterpreter):
    """Runs a `.tflite` model whose pruned layers were packed by `tfrewprune.convert`.

    A LiteRT interpreter in every respect (same methods, same thread rules); packed
    layers run in the native library, every other layer in LiteRT's XNNPACK.
    `tfrewprune.CompiledModel` is the same for LiteRT 2's newer interface.

    Args:
        model_path: Path of a `.tflite` file, or the bytes of one. A file is
            memory-mapped and packed weights are used in place.
        model_content: The bytes, under LiteRT's own name; one of the two must be given.
        experimental_delegates: More delegates, applied after ours.
        num_threads: Threads for LiteRT and for packed layers; None means 1.
        isa: Kernels to use: "auto", "avx512", "avx2", "neon", "portable" or
            "reference". None leaves the choice to the environment variable
            `TFREWPRUNE_ISA` and then to the CPU.
        driver: The driver that runs packed layers wherever it can, such as "direct":
            for comparisons. None leaves the choice to the environment variable
            `TFREWPRUNE_DRIVER` and then to their predicted times.
        tune: "once" measures the drivers that may be the best of each layer during
            the first `allocate_tensors`, and takes the fastest; "off", the default,
            goes by predictions. A layer is measured once, whatever its later shapes.
        tune_ms: Milliseconds that measuring may take, all layers together; None is 50.
            Layers share them by their time.
        cache_path: A file that keeps what was measured for the next process; it is
            made if missing. Only entries of this CPU and version count, and only those
            of the same weights, shapes and threads. Needs `tune="once"`.
        precision: "float16" lets packed layers multiply and add halves where the CPU
            can, which is on ARMv8.2 and later: mostly 1.35 to 1.55 times fewer
            instructions, and an error of about a thousandth. For convolutions and
            fully connected layers in blocks of 16 rows; all others, and all on other
            CPUs, stay at "float32", the default. Activations beyond 65504 become
            infinite in such a layer.
        log_level: How much the delegate reports through LiteRT's log: "error",
            "warning", "info" or "debug". None keeps its default.
        **options: Everything else that LiteRT's `Interpreter` takes.

    Raises:
        LibraryNotFoundError: If the native library was not built.
        ValueError: If the model cannot be read, the CPU has no such `isa`, or an
            option has no such value.
        RuntimeError: If a packed layer was not claimed by the delegate, for example
            because its payload is damaged.

    Warns:
        UserWarning: If the model has no packed layer: it runs as in plain LiteRT.

    Example:
        >>> interpreter = trp.Interpreter("packed.tflite", num_threads=2)
        >>> interpreter.allocate_tensors()
        >>> index = interpreter.get_input_details()[0]["index"]
        >>> interpreter.set_tensor(index, images)
        >>> interpreter.invoke()
        >>> interpreter.claimed_nodes, interpreter.isa  # doctest: +SKIP
        (12, 'avx512')
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str] | bytes | None = None,
        model_content: bytes | None = None,
        experimental_delegates: Sequence[Any] | None = None,
        num_threads: int | None = None,
        *,
        isa: str | None = None,
        driver: str | None = None,
        tune: str | None = None,
        tune_ms: int | None = None,
        cache_path: str | os.PathLike[str] | None = None,
        precision: str | None = None,
        log_level: str | None = None,
        **options: Any,
    ) -> None:
        # Threads are not among them: the delegate obeys the interpreter's number.
        settings = delegate_options(
            isa=isa,
            driver=driver,
            tune=tune,
            tune_ms=tune_ms,
            cache_path=cache_path,
            precision=precision,
        )
        if log_level is not None:
            settings["log_level"] = log_level
        if isinstance(model_path, bytes | bytearray | memoryview):
            if model_content is not None:
                raise ValueError(
                    "One of `model_path` and `model_content` must hold the model. "
                    "Received: bytes in both."
                )
            model_path, model_content = None, model_path
        if model_content is not None and not isinstance(model_content, bytes):
            model_content = bytes(model_content)
        if model_path is not None and not os.path.isfile(model_path):
            raise ValueError(
                "Argument `model_path` must name a .tflite file. "
                f"Received: {os.fspath(model_path)!r}, and there is no such file."
            )
        self._packing_delegate = load_delegate(delegate_path(), settings)
        super().__init__(
            model_path=None if model_path is None else os.fspath(model_path),
            model_content=model_content,
            experimental_delegates=[
                self._packing_delegate,
                *(experimental_delegates or ()),
            ],
            num_threads=num_threads,
            **options,
        )
        packed = _count_packed_nodes(model_path, model_content)
        if packed == 0:
            warn_caller(
                "The model has no packed layer, so it runs as in plain LiteRT. "
                "Pack it with tfrewprune.convert first.",
            )
        elif self.claimed_nodes != packed:
            raise RuntimeError(
                f"The model has {packed} packed layers but the delegate claimed "
                f"{self.claimed_nodes}. Its reason is in LiteRT's log above. "
                f"The library is {delegate_path()}."
            )

    @property
    def claimed_nodes(self) -> int:
        """How many packed layers run in the native library."""
        return self._ask_delegate("tfrewprune_claimed_nodes", ctypes.c_int)

    @property
    def isa(self) -> str:
        """The kernels in use: avx512, avx2, neon, portable or reference."""
        return self._ask_delegate("tfrewprune_isa_name", ctypes.c_char_p).decode(
            "ascii"
        )

    @property
    def threads(self) -> int:
        """How many threads packed layers use; 1 before `allocate_tensors`."""
        return self._ask_delegate("tfrewprune_threads", ctypes.c_int)

    @property
    def held_bytes(self) -> int:
        """Memory that packed layers take besides the file and the activations.

        Tables and scratch of all interpreters in this process together. Weights are
        not among it: they stay in the file, mapped into memory.
        """
        function = self._packing_delegate._library.tfrewprune_held_bytes
        function.argtypes = []
        function.restype = ctypes.c_uint64
        return function()

    def trace(self, runs: int = 1) -> list[Trace]:
        """Runs the model and writes down when each packed layer began and ended.

        What lies between two packed layers is LiteRT's own work.

        Args:
            runs: How many times to invoke.

        Returns:
            One `Trace` for each run.
        """
        function = self._packing_delegate._library.tfrewprune_trace
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        function.restype = ctypes.c_int
        delegate = self._packing_delegate._get_native_delegate_pointer()
        # A layer in the body of a loop runs more than once.
        records = np.zeros((max(64, 4 * self.claimed_nodes), 5), np.int64)
        traces = []
        for _ in range(runs):
            function(delegate, records.ctypes.data, len(records))
            try:
                begin = time.monotonic_ns()
                self.invoke()
                end = time.monotonic_ns()
            finally:
                count = function(delegate, None, 0)
            layers = tuple(
                LayerRun(
                    node,
                    (first - begin) * 1e-9,
                    (last - begin) * 1e-9,
                    ctypes.string_at(driver).decode("ascii"),
                    threads,
                )
                for node, first, last, threads, driver in records[:count].tolist()
            )
            traces.append(Trace((end - begin) * 1e-9, layers))
        return traces

    def _ask_delegate(self, symbol: str, result: Any) -> Any:
        function = getattr(self._packing_delegate._library, symbol)
        function.argtypes = [ctypes.c_void_p]
        function.restype = result
        return function(self._packing_delegate._get_native_delegate_pointer())

    def __del__(self) -> None:
        # Destroys the interpreter first; the delegate must outlive it.
        super().__del__()
        self._packing_delegate = None


def _count_packed_nodes(
    path: str | os.PathLike[str] | None, content: bytes | None
) -> int:
    """Counts the nodes that carry one of our custom ops, in all subgraphs.

    LiteRT has already verified the model, so its offsets are sound. A file is mapped:
    only the pages of the graph are read, not the weights.
    """
    if content is not None:
        return _count_in_buffer(content)
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view,
    ):
        return _count_in_buffer(view)


def _count_in_buffer(buffer: bytes | mmap.mmap) -> int:
    model = schema.Model.GetRootAs(buffer, 0)
    prefix = CUSTOM_OP_PREFIX.encode("ascii")
    ours = {
        index
        for index in range(model.OperatorCodesLength())
        if (model.OperatorCodes(index).CustomCode() or b"").startswith(prefix)
    }
    if not ours:
        return 0
    subgraphs = (model.Subgraphs(i) for i in range(model.SubgraphsLength()))
    return sum(
        subgraph.Operators(i).OpcodeIndex() in ours
        for subgraph in subgraphs
        for i in range(subgraph.OperatorsLength())
    )
