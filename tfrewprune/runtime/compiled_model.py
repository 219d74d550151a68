# SPDX-License-Identifier: Apache-2.0
"""LiteRT's CompiledModel with packed layers."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np

from tfrewprune.runtime.library import delegate_path
from tfrewprune.runtime.litert_library import (
    CPU,
    ELEMENT_TYPES,
    READ,
    WRITE,
    EnvironmentOption,
    Layout,
    TensorType,
    litert,
)
from tfrewprune.runtime.options import delegate_options

_SEVERITIES = {"debug": -1, "verbose": 0, "info": 1, "warning": 2, "error": 3}
_FIND = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)
_REPORT = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

Array = np.ndarray


@dataclass(frozen=True)
class _Tensor:
    """An input or output of a signature."""

    index: int
    name: str
    element_type: int

    @property
    def dtype(self) -> np.dtype:
        if self.element_type not in ELEMENT_TYPES:
            raise TypeError(
                f"Tensor {self.name!r} has LiteRT's element type {self.element_type}, "
                "for which numpy has none."
            )
        return np.dtype(ELEMENT_TYPES[self.element_type])


@dataclass(frozen=True)
class _Signature:
    index: int
    key: str
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]


class CompiledModel:
    """Runs a packed `.tflite` in the runtime that LiteRT 2 recommends.

    LiteRT's own Python class of that name takes no custom operators. This one speaks
    to `libLiteRt.so` of the ai-edge-litert wheel and registers the native library with
    its environment as an accelerator, which is also the way for C++ and Kotlin hosts
    (`tfrewprune_register_accelerator`). All other layers run in XNNPACK.

    Args:
        model: Path of a `.tflite` file, or its bytes.
        num_threads: Threads for LiteRT and for packed layers; None means 1.
        isa: Kernels for packed layers, as in `tfrewprune.Interpreter`.
        driver: Likewise.
        tune: Likewise; "once" measures during the first `run`.
        tune_ms: Likewise.
        cache_path: Likewise.
        precision: Likewise.
        log_level: What LiteRT prints: "debug", "verbose", "info", "warning", "error".

    Raises:
        LibraryNotFoundError: If the native library was not built.
        RuntimeError: If LiteRT is older than 2.1.6, or refuses the model.
        ValueError: If the file does not exist or an option is not understood.

    Example:
        >>> model = trp.CompiledModel("packed.tflite", num_threads=2)
        >>> model.get_signature_list()
        {'serving_default': {'inputs': ['image'], 'outputs': ['scores']}}
        >>> scores = model.run({"image": images})["scores"]  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        num_threads: int | None = None,
        isa: str | None = None,
        driver: str | None = None,
        tune: str | None = None,
        tune_ms: int | None = None,
        cache_path: str | os.PathLike[str] | None = None,
        precision: str | None = None,
        log_level: str = "error",
    ) -> None:
        self._handles: list[tuple[str, int]] = []
        if log_level not in _SEVERITIES:
            raise ValueError(
                f"Argument `log_level` must be one of {', '.join(_SEVERITIES)}. "
                f"Received: {log_level!r}"
            )
        threads = 1 if num_threads is None else num_threads
        integer = isinstance(threads, int) and not isinstance(threads, bool)
        if not integer or not 1 <= threads <= 64:
            raise ValueError(
                "Argument `num_threads` must be a number from 1 to 64, or None. "
                f"Received: {num_threads!r}"
            )
        settings = delegate_options(
            isa=isa,
            driver=driver,
            tune=tune,
            tune_ms=tune_ms,
            cache_path=cache_path,
            precision=precision,
        )
        self._litert = litert()
        try:
            self._environment = self._create_environment(log_level)
            self._register({"threads": str(threads), **settings})
            self._model = self._load(model)
            self._compiled = self._compile(threads)
        except BaseException:
            self.close()
            raise

    def get_signature_list(self) -> dict[str, dict[str, list[str]]]:
        """The names of inputs and outputs, by signature."""
        self._check_open()
        return {
            signature.key: {
                "inputs": [tensor.name for tensor in signature.inputs],
                "outputs": [tensor.name for tensor in signature.outputs],
            }
            for signature in self._signatures
        }

    def run(
        self,
        inputs: Mapping[str, Any] | Sequence[Any] | Array,
        signature_key: str | None = None,
    ) -> dict[str, Array]:
        """Runs the model once.

        Args:
            inputs: Arrays by name, or in the order of `get_signature_list`, or one
                array. A shape other than the last one, another batch for example,
                resizes the model.
            signature_key: Which signature; None means the first.

        Returns:
            The outputs by name, arrays of their own.

        Raises:
            ValueError: If an input is missing, unknown or of a wrong shape or type, or
                there is no such signature.
            RuntimeError: If LiteRT cannot run the model, or it has been closed.
        """
        self._check_open()
        signature = self._signature(signature_key)
        arrays = self._arrays(signature, inputs)
        for tensor, array in zip(signature.inputs, arrays, strict=True):
            self._resize(signature, tensor, array)
        layouts = (Layout * len(signature.outputs))()
        self._litert.call(
            "GetCompiledModelOutputTensorLayouts",
            *(self._compiled, signature.index, len(layouts), layouts, True),
        )
        buffers: list[int] = []
        try:
            for tensor, array in zip(signature.inputs, arrays, strict=True):
                buffer = self._buffer("Input", signature, tensor, array.shape)
                buffers.append(buffer)
                self._copy(buffer, array, WRITE)
            for tensor, layout in zip(signature.outputs, layouts, strict=True):
                buffers.append(self._buffer("Output", signature, tensor, layout.shape))
            given = (ctypes.c_void_p * len(arrays))(*buffers[: len(arrays)])
            taken = (ctypes.c_void_p * len(layouts))(*buffers[len(arrays) :])
            self._litert.call(
                "RunCompiledModel",
                *(self._compiled, signature.index),
                *(len(given), given, len(taken), taken),
            )
            results = {}
            for tensor, layout, buffer in zip(
                signature.outputs, layouts, taken, strict=True
            ):
                results[tensor.name] = np.empty(layout.shape, tensor.dtype)
                self._copy(buffer, results[tensor.name], READ)
            return results
        finally:
            for buffer in buffers:
                self._litert.destroy("TensorBuffer", buffer)

    def close(self) -> None:
        """Frees the model. Twice is fine; nothing else works afterwards."""
        while self._handles:
            self._litert.destroy(*self._handles.pop())

    def __enter__(self) -> CompiledModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handles", None):
            self.close()

    def _check_open(self) -> None:
        if not self._handles:
            raise RuntimeError("This CompiledModel has been closed.")

    def _own(self, kind: str, handle: int) -> int:
        self._handles.append((kind, handle))
        return handle

    def _create_environment(self, log_level: str) -> int:
        severity = EnvironmentOption.integer(
            EnvironmentOption.MIN_LOGGER_SEVERITY, _SEVERITIES[log_level]
        )
        return self._own(
            "Environment",
            self._litert.handle("CreateEnvironment", 1, ctypes.byref(severity)),
        )

    def _register(self, options: dict[str, str]) -> None:
        library = ctypes.CDLL(delegate_path())
        register = library.tfrewprune_register_accelerator
        texts = ctypes.c_char_p * len(options)
        register.argtypes = (
            *(ctypes.c_void_p, _FIND, texts, texts),
            *(ctypes.c_size_t, _REPORT),
        )
        messages: list[str] = []

        def find(name: bytes) -> int | None:
            function = getattr(self._litert.library, name.decode(), None)
            return function and ctypes.cast(function, ctypes.c_void_p).value

        failed = register(
            self._environment,
            _FIND(find),
            texts(*(key.encode() for key in options)),
            texts(*(value.encode() for value in options.values())),
            len(options),
            _REPORT(lambda text: messages.append(text.decode())),
        )
        if failed:
            raise ValueError(" ".join(messages))

    def _load(self, model: str | os.PathLike[str] | bytes) -> int:
        if isinstance(model, bytes | bytearray | memoryview):
            self._content = bytes(model)  # LiteRT reads it as long as the model lives
            handle = self._litert.handle(
                "CreateModelFromBuffer",
                *(self._environment, self._content, len(self._content)),
            )
            return self._own("Model", handle)
        if not os.path.isfile(model):
            raise ValueError(
                "Argument `model` must be the path of a .tflite file or its bytes. "
                f"Received: {os.fspath(model)!r}, and there is no such file."
            )
        handle = self._litert.handle(
            "CreateModelFromFile", self._environment, os.fsencode(model)
        )
        return self._own("Model", handle)

    def _compile(self, threads: int) -> int:
        options = self._litert.handle("CreateOptions")
        try:
            self._litert.call("SetOptionsHardwareAccelerators", options, CPU)
            self._cpu_text = ctypes.create_string_buffer(
                f"num_threads = {threads}\n".encode()
            )
            self._keep_text = _RELEASE(lambda text: None)
            cpu = self._litert.handle(
                "CreateOpaqueOptions", b"xnnpack", self._cpu_text, self._keep_text
            )
            self._litert.call("AddOpaqueOptions", options, cpu)
            handle = self._litert.handle(
                "CreateCompiledModel", self._environment, self._model, options
            )
        finally:
            self._litert.destroy("Options", options)
        return self._own("CompiledModel", handle)

    @cached_property
    def _signatures(self) -> list[_Signature]:
        count = self._litert.get(ctypes.c_size_t, "GetNumModelSignatures", self._model)
        return [self._describe(index) for index in range(count)]

    def _describe(self, index: int) -> _Signature:
        handle = self._litert.handle("GetModelSignature", self._model, index)
        key = self._litert.get(ctypes.c_char_p, "GetSignatureKey", handle)
        tensors = {}
        for kind in ("Input", "Output"):
            count = self._litert.get(ctypes.c_size_t, f"GetNumSignature{kind}s", handle)
            tensors[kind] = tuple(
                self._describe_tensor(handle, kind, number) for number in range(count)
            )
        return _Signature(index, key.decode(), tensors["Input"], tensors["Output"])

    def _describe_tensor(self, signature: int, kind: str, index: int) -> _Tensor:
        name = self._litert.get(
            ctypes.c_char_p, f"GetSignature{kind}Name", signature, index
        )
        tensor = self._litert.handle(
            f"GetSignature{kind}TensorByIndex", signature, index
        )
        described = self._litert.get(TensorType, "GetRankedTensorType", tensor)
        return _Tensor(index, name.decode(), described.element_type)

    def _signature(self, key: str | None) -> _Signature:
        for signature in self._signatures:
            if key is None or signature.key == key:
                return signature
        raise ValueError(
            "Argument `signature_key` must be one of "
            f"{[signature.key for signature in self._signatures]}. Received: {key!r}"
        )

    def _arrays(
        self, signature: _Signature, inputs: Mapping[str, Any] | Sequence[Any] | Array
    ) -> list[Array]:
        names = [tensor.name for tensor in signature.inputs]
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            if len(inputs) != len(names):
                raise ValueError(
                    f"Argument `inputs` must hold {len(names)} arrays, {names}. "
                    f"Received: {len(inputs)}"
                )
            inputs = dict(zip(names, inputs, strict=True))
        if set(inputs) != set(names):
            raise ValueError(
                f"Argument `inputs` must name {names}. Received: {list(inputs)}"
            )
        arrays = []
        for tensor in signature.inputs:
            array = np.asarray(inputs[tensor.name], order="C")
            if array.dtype != tensor.dtype:
                raise ValueError(
                    f"Input {tensor.name!r} must have type {tensor.dtype}. "
                    f"Received: {array.dtype}"
                )
            arrays.append(array)
        return arrays

    def _resize(self, signature: _Signature, tensor: _Tensor, array: Array) -> None:
        place = (self._compiled, signature.index, tensor.index)
        layout = self._litert.get(Layout, "GetCompiledModelInputTensorLayout", *place)
        if layout.shape == array.shape:
            return
        if len(layout.shape) != array.ndim:
            raise ValueError(
                f"Input {tensor.name!r} must have {len(layout.shape)} dimensions, as "
                f"in {layout.shape}. Received: shape {array.shape}"
            )
        shape = (ctypes.c_int * array.ndim)(*array.shape)
        try:
            self._litert.call(
                "CompiledModelResizeInputTensorNonStrict", *place, shape, array.ndim
            )
        except RuntimeError as error:
            raise ValueError(
                f"Input {tensor.name!r} cannot have shape {array.shape}; it had "
                f"{layout.shape}. {error}"
            ) from error

    def _buffer(
        self,
        kind: str,
        signature: _Signature,
        tensor: _Tensor,
        shape: tuple[int, ...],
    ) -> int:
        requirements = self._litert.handle(
            f"GetCompiledModel{kind}BufferRequirements",
            *(self._compiled, signature.index, tensor.index),
        )
        dimensions = (ctypes.c_int * 8)(*shape)
        described = TensorType(tensor.element_type, Layout(len(shape), dimensions))
        return self._litert.handle(
            "CreateManagedTensorBufferFromRequirements",
            *(self._environment, ctypes.byref(described), requirements),
        )

    def _copy(self, buffer: int, array: Array, direction: int) -> None:
        place = ctypes.c_void_p()
        self._litert.call("LockTensorBuffer", buffer, ctypes.byref(place), direction)
        try:
            pair = (place.value, array.ctypes.data)
            target, source = pair if direction == WRITE else pair[::-1]
            ctypes.memmove(target, source, array.nbytes)
        finally:
            self._litert.call("UnlockTensorBuffer", buffer)
