# SPDX-License-Identifier: Apache-2.0
"""The whole path on real data: train, prune, retrain, convert, run, report."""

from typing import Any

__all__ = ["DemoResult", "run_demo"]


def __getattr__(name: str) -> Any:
    # Keras is imported when the demo runs, not when it is mentioned.
    if name == "run_demo":
        from tfrewprune.demo.run import run_demo

        return run_demo
    if name == "DemoResult":
        from tfrewprune.demo.result import DemoResult

        return DemoResult
    raise AttributeError(f"module 'tfrewprune.demo' has no attribute {name!r}")
