# SPDX-License-Identifier: Apache-2.0
"""The part of LiteRT's C API that `CompiledModel` needs, by ctypes.

`libLiteRt.so` of the ai-edge-litert wheel is the library of LiteRT 2's own hosts on
Android and Linux; LiteRT's Python module carries another copy, which exports nothing.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np

CPU = 1
READ, WRITE = 0, 1

STATUS = {
    1: "invalid argument",
    2: "out of memory",
    3: "runtime failure",
    4: "missing input tensor",
    5: "unsupported",
    6: "not found",
    501: "invalid flatbuffer",
    504: "compilation failed",
    1000: "index out of bounds",
}

ELEMENT_TYPES = {
    1: np.float32,
    2: np.int32,
    3: np.uint8,
    4: np.int64,
    6: np.bool_,
    7: np.int16,
    9: np.int8,
    10: np.float16,
    11: np.float64,
    13: np.uint64,
    16: np.uint32,
    17: np.uint16,
}


class Layout(ctypes.Structure):
    """`LiteRtLayout`: a shape; strides are never set here."""

    _fields_ = (
        ("bits", ctypes.c_uint),
        ("dimensions", c_int * 8),
        ("strides", ctypes.c_uint * 8),
    )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.dimensions[: self.bits & 0x7F])


class TensorType(ctypes.Structure):
    """`LiteRtRankedTensorType`."""

    _fields_ = (("element_type", c_int), ("layout", Layout))


class _Any(ctypes.Structure):
    _fields_ = (("type", c_int), ("int_value", ctypes.c_int64))


class EnvironmentOption(ctypes.Structure):
    """`LiteRtEnvOption` with an integer."""

    _fields_ = (("tag", c_int), ("value", _Any))

    MIN_LOGGER_SEVERITY = 25
    _INT = 2

    @classmethod
    def integer(cls, tag: int, value: int) -> EnvironmentOption:
        return cls(tag, _Any(cls._INT, value))


_HANDLE, _INDEX = c_void_p, c_size_t
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "CreateEnvironment": (c_int, c_void_p, POINTER(_HANDLE)),
    "CreateModelFromFile": (_HANDLE, c_char_p, POINTER(_HANDLE)),
    "CreateModelFromBuffer": (_HANDLE, c_void_p, c_size_t, POINTER(_HANDLE)),
    "GetNumModelSignatures": (_HANDLE, POINTER(_INDEX)),
    "GetModelSignature": (_HANDLE, _INDEX, POINTER(_HANDLE)),
    "GetSignatureKey": (_HANDLE, POINTER(c_char_p)),
    "GetNumSignatureInputs": (_HANDLE, POINTER(_INDEX)),
    "GetNumSignatureOutputs": (_HANDLE, POINTER(_INDEX)),
    "GetSignatureInputName": (_HANDLE, _INDEX, POINTER(c_char_p)),
    "GetSignatureOutputName": (_HANDLE, _INDEX, POINTER(c_char_p)),
    "GetSignatureInputTensorByIndex": (_HANDLE, _INDEX, POINTER(_HANDLE)),
    "GetSignatureOutputTensorByIndex": (_HANDLE, _INDEX, POINTER(_HANDLE)),
    "GetRankedTensorType": (_HANDLE, POINTER(TensorType)),
    "CreateOptions": (POINTER(_HANDLE),),
    "SetOptionsHardwareAccelerators": (_HANDLE, c_int),
    "CreateOpaqueOptions": (c_char_p, c_void_p, c_void_p, POINTER(_HANDLE)),
    "AddOpaqueOptions": (_HANDLE, _HANDLE),
    "CreateCompiledModel": (_HANDLE, _HANDLE, _HANDLE, POINTER(_HANDLE)),
    "GetCompiledModelInputTensorLayout": (_HANDLE, _INDEX, _INDEX, POINTER(Layout)),
    "GetCompiledModelOutputTensorLayouts": (
        *(_HANDLE, _INDEX, c_size_t),
        *(POINTER(Layout), c_bool),
    ),
    "CompiledModelResizeInputTensorNonStrict": (
        *(_HANDLE, _INDEX, _INDEX),
        *(POINTER(c_int), c_size_t),
    ),
    "GetCompiledModelInputBufferRequirements": (
        *(_HANDLE, _INDEX, _INDEX),
        POINTER(_HANDLE),
    ),
    "GetCompiledModelOutputBufferRequirements": (
        *(_HANDLE, _INDEX, _INDEX),
        POINTER(_HANDLE),
    ),
    "CreateManagedTensorBufferFromRequirements": (
        *(_HANDLE, POINTER(TensorType)),
        *(_HANDLE, POINTER(_HANDLE)),
    ),
    "LockTensorBuffer": (_HANDLE, POINTER(c_void_p), c_int),
    "UnlockTensorBuffer": (_HANDLE,),
    "RunCompiledModel": (
        *(_HANDLE, _INDEX),
        *(c_size_t, c_void_p, c_size_t, c_void_p),
    ),
}
_DESTROYERS = ("Environment", "Model", "Options", "CompiledModel", "TensorBuffer")


class LiteRt:
    """LiteRT's C functions; a status that is not 0 becomes a `RuntimeError`."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        missing = [
            f"LiteRt{name}"
            for name in _SIGNATURES
            if not hasattr(self.library, f"LiteRt{name}")
        ]
        if missing:
            raise RuntimeError(
                f"CompiledModel needs ai-edge-litert 2.1.6 or newer. Received: {path} "
                f"without {missing[0]}."
            )
        for name, arguments in _SIGNATURES.items():
            getattr(self.library, f"LiteRt{name}").argtypes = arguments
        for kind in _DESTROYERS:
            destroy = getattr(self.library, f"LiteRtDestroy{kind}")
            destroy.argtypes, destroy.restype = (_HANDLE,), None

    def call(self, name: str, *arguments: Any) -> None:
        """Calls `LiteRt<name>`."""
        status = getattr(self.library, f"LiteRt{name}")(*arguments)
        if status:
            text = STATUS.get(status, "unknown")
            raise RuntimeError(
                f"LiteRt{name} failed with status {status} ({text}). Its reason is in "
                "LiteRT's log above."
            )

    def get(self, result: Any, name: str, *arguments: Any) -> Any:
        """Calls a function whose last argument is where the result goes."""
        value = result()
        self.call(name, *arguments, ctypes.byref(value))
        return value if isinstance(value, ctypes.Structure) else value.value

    def handle(self, name: str, *arguments: Any) -> int:
        return self.get(_HANDLE, name, *arguments)

    def destroy(self, kind: str, handle: int) -> None:
        getattr(self.library, f"LiteRtDestroy{kind}")(handle)


@cache
def litert() -> LiteRt:
    """LiteRT's library, loaded once.

    Raises:
        RuntimeError: If the installed ai-edge-litert is too old.
    """
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    path = Path(ai_edge_litert.__file__).parent / f"libLiteRt{suffix}"
    if not path.is_file():
        raise RuntimeError(
            f"CompiledModel needs ai-edge-litert 2.1.6 or newer. Received: no {path}."
        )
    return LiteRt(path)
