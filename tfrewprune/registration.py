# SPDX-License-Identifier: Apache-2.0
"""Has Keras know this package's serializable classes, without importing Keras for it.

Keras finds custom classes by their registered name alone, so the modules that define
them must be imported before a file that names them is read. Importing them together
with the package would make `import tfrewprune` cost as much as Keras; they are imported
right after Keras instead.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

CLASSES = "tfrewprune.wrappers"
"""The package whose import registers everything."""


def when_keras_is_imported() -> None:
    """Registers now if Keras is there already, else as soon as it is."""
    if "keras" in sys.modules:
        importlib.import_module(CLASSES)
    elif not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())


class _KerasFinder(importlib.abc.MetaPathFinder):
    """Waits for the import of Keras, then leaves it to the finders behind it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _KerasLoader(spec.loader)
        return spec


class _KerasLoader(importlib.abc.Loader):
    """Loads Keras as its own loader does, and the classes to register after it."""

    def __init__(self, loader: importlib.abc.Loader):
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        module.__spec__.loader = self._loader  # for those who ask it for data
        if hasattr(module, "ops"):  # not Keras 2, beside which packed files still run
            importlib.import_module(CLASSES)
