# SPDX-License-Identifier: Apache-2.0
"""What a packed file says about itself: where it runs, and what packing replaced.

JSON in the metadata of the file (``PAYLOAD.md``), for whoever finds it without its
history. Built-in operators that no layer uses any more leave the file's table, for a
TFLite that was built with few operators refuses every one that it does not know; the
way back needs their versions.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter import options
from tfrewprune.converter.flatbuffer import (
    OPERATOR_NAMES,
    Model,
    builtin_of,
    drop_unused_codes,
    new_code,
)
from tfrewprune.converter.metadata import (
    damaged,
    drop_metadata,
    read_metadata,
    write_metadata,
)

_NAME = "tfrewprune.hosts"
_CODES = {name: code for code, name in OPERATOR_NAMES.items()}

RUNS_IN = {
    "LiteRT or TFLite Interpreter >= 2.14": (
        "tfrewprune.Interpreter, libtfrewprune_delegate.so as external delegate, or "
        "io.tfrewprune.TfrewpruneDelegate"
    ),
    "LiteRT CompiledModel >= 2.1.6": (
        "tfrewprune.CompiledModel, tfrewprune_register_accelerator, or "
        "io.tfrewprune.TfrewpruneAccelerator"
    ),
    "TFLite built from source": "RegisterTfrewpruneOps of libtfrewprune_ops.a",
}
"""Hosts that run packed layers, as a file names them, and by what."""


def take_operators(model: Model) -> dict[int, int]:
    """Returns versions of built-in operators: used, or replaced when it was packed.

    What the file said of those goes: `describe_hosts` says it again.

    Raises:
        ConversionError: If that is damaged.
    """
    before = _replaced(model) | _builtin_versions(model)
    drop_metadata(model, _NAME)
    return before


def describe_hosts(model: Model, before: dict[int, int]) -> None:
    """Writes where a model runs that has packed layers; of others nothing is said.

    Args:
        model: The packed model.
        before: What `take_operators` returned before anything was packed.
    """
    if not any(
        model.custom_code(operator) in options.OPERATORS
        for graph in model.subgraphs
        for operator in graph.operators or ()
    ):
        return
    used = _builtin_versions(model)
    replaced = {code: before[code] for code in before if code not in used}
    drop_unused_codes(model, lambda code: builtin_of(code) in replaced)
    content = {
        "runs_in": list(RUNS_IN),
        "replaced": {OPERATOR_NAMES[code]: n for code, n in replaced.items()},
    }
    write_metadata(model, _NAME, content)


def read_hosts(model: Model) -> tuple[str, ...]:
    """Returns the hosts that a file says it needs; none where it says nothing.

    Raises:
        ConversionError: If what it says is damaged.
    """
    return tuple(_read(model)["runs_in"])


def _read(model: Model) -> dict[str, Any]:
    content = read_metadata(model, _NAME)
    if content is None:
        return {"runs_in": [], "replaced": {}}
    try:
        for host in content["runs_in"]:
            if not isinstance(host, str):
                raise ValueError(f"no host {host!r}")
        for name, version in content["replaced"].items():
            if name not in _CODES or not isinstance(version, int):
                raise ValueError(f"no operator {name} of version {version}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(_NAME, error) from error
    return content


def restore_operators(model: Model) -> None:
    """Adds what packing replaced to the table again, and drops the description.

    Raises:
        ConversionError: If that is damaged.
    """
    replaced = _replaced(model)
    drop_metadata(model, _NAME)
    codes = model.tree.operatorCodes
    known = {builtin_of(code) for code in codes}
    codes += [
        new_code(code, version)
        for code, version in replaced.items()
        if code not in known
    ]


def _builtin_versions(model: Model) -> dict[int, int]:
    versions: dict[int, int] = {}
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            code = model.builtin_code(operator)
            if code != schema.BuiltinOperator.CUSTOM:
                version = model.tree.operatorCodes[operator.opcodeIndex].version
                versions[code] = max(versions.get(code, 0), version)
    return versions


def _replaced(model: Model) -> dict[int, int]:
    return {_CODES[name]: n for name, n in _read(model)["replaced"].items()}
