# SPDX-License-Identifier: Apache-2.0
"""Imports point one way, and the light half stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "tfrewprune"

# A module may import its own layer and those above it in this list.
LAYERS = [
    "caller",
    "replacing",
    "registration",
    "text",
    "registry",
    "structures",
    "levels",
    "rows",
    "payload",
    "constraints",
    "methods",
    "quantization",
    "rule",
    "recipe",
    "left_dense",
    "recipes",
    "wrappers",
    "channels",
    "shrinking",
    "calibration",
    "pipeline",
    "crossbar",
    "converter",
    "oneshot",
    "mapping",
    "runtime",
    "inspection",
    "storage",
    "planning",
    "benchmark",
    "layer_times",
    "report",
    "demo",
    "experiments",
    "cli",
]
# These run on a machine that only converts or runs models.
LIGHT = [
    "caller",
    "replacing",
    "text",
    "rows",
    "channels",
    "payload",
    "constraints",
    "converter",
    "runtime",
    "inspection",
    "storage",
    "benchmark",
    "report",
    "cli",
]
HEAVY = {"tensorflow", "keras", "tf_keras", "tensorflow_model_optimization"}


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, only_top_level: bool) -> set[str]:
    """Absolute names imported by a module, function bodies left out on request."""
    tree = ast.parse(path.read_text())
    if only_top_level:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = path.relative_to(PACKAGE.parent).with_suffix("").parts
                parents = base[: len(base) - node.level]
                module = ".".join([*parents, *([module] if module else [])])
            names.add(module)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE) + [
    path for path in sorted(PACKAGE.glob("*.py")) if path.stem != "__init__"
]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    layer = layer_of(path)
    if layer == "__main__":
        return
    assert layer in LAYERS, f"{path} belongs to no layer"
    # Lazy imports inside functions may cross from converter to runtime: the
    # converter proves its result by running it.
    used = imports(path, only_top_level=True)
    for name in used:
        parts = name.split(".")
        if parts[0] != "tfrewprune" or len(parts) < 2 or parts[1] not in LAYERS:
            continue
        assert LAYERS.index(parts[1]) <= LAYERS.index(layer), (
            f"{path} ({layer}) imports {name}, which is further down the pipeline"
        )


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if layer_of(path) in LIGHT],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_light_layers_import_no_framework(path: Path) -> None:
    heavy = {name.split(".")[0] for name in imports(path, True)} & HEAVY
    assert not heavy, f"{path} imports {heavy} at import time"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count: a circle that loads is a circle all the same."""
    paths = {
        module_name(path): path
        for path in PACKAGE.rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    }
    edges = {
        name: sorted((imports(path, only_top_level=False) & set(paths)) - {name})
        for name, path in paths.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            circle = [*trail[trail.index(name) :], name]
            pytest.fail("modules import each other: " + " -> ".join(circle))
        if name not in done:
            for other in edges[name]:
                visit(other, [*trail, name])
            done.add(name)

    for name in sorted(edges):
        visit(name, [])


def test_importing_the_package_loads_no_framework() -> None:
    code = (
        "import sys, tfrewprune, tfrewprune.cli;"
        f"loaded = set({sorted(HEAVY)!r}) & set(sys.modules);"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_resolves() -> None:
    import tfrewprune

    for name in tfrewprune.__all__:
        assert getattr(tfrewprune, name) is not None


def test_unknown_public_name_is_an_attribute_error() -> None:
    import tfrewprune

    with pytest.raises(AttributeError, match="no attribute 'prune_everything'"):
        _ = tfrewprune.prune_everything
