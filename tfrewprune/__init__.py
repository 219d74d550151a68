# SPDX-License-Identifier: Apache-2.0
"""Reweighted block pruning for Keras 3 that LiteRT runs smaller and faster.

The path from a Keras model to a faster `.tflite`, in the order of the packages:
`structures` (what may be removed) -> `payload` (how what is left is stored, and what
it costs) -> `methods` (which penalty moves the weights) -> `recipe` (which layer gets
what) -> `wrappers` (how a Keras layer carries penalty and mask) -> `shrinking` (what
does nothing goes, physically) -> `calibration` (what a few inputs tell of a layer) ->
`pipeline` (train, prune, retrain, strip) -> `converter` (pack into a `.tflite`) ->
`oneshot` (prune without training) -> `runtime` (run it) -> `benchmark` and `report`
(prove it) -> `cli`.

Names are imported when first used, so that `import tfrewprune` costs nothing and
needs neither TensorFlow nor Keras. Once Keras is imported too, before or after, it
knows this package's layers, penalties and masks: `keras.models.load_model` reads a
model that was saved in the middle of a phase.

Example:
    >>> import tfrewprune as trp
    >>> recipe = trp.Recipe([trp.Rule("*", structure=trp.Block(16, 1), rate=8)])
    >>> result = trp.compress(model, recipe, x_train, y_train)  # doctest: +SKIP
    >>> trp.convert(result.model, "model.tflite")  # doctest: +SKIP
"""

from importlib import import_module
from typing import Any

from tfrewprune import registration

__version__ = "0.1.0"

_HOMES = {
    "structures": (
        "Balanced",
        "Block",
        "BlockRowColumn",
        "Channel",
        "Column",
        "Filter",
        "Head",
        "Kernel",
        "KernelGroup",
        "NofM",
        "Pattern",
        "Punched",
        "RowColumn",
        "Structure",
        "Unstructured",
    ),
    "levels": ("Binary", "EqualInterval", "Levels", "PowerOfTwo", "Ternary"),
    "methods": (
        "ADMM",
        "GradualMagnitude",
        "GroupLasso",
        "Magnitude",
        "Method",
        "PrimalProximal",
        "Reweighted",
        "ReweightedProximal",
    ),
    "quantization": ("Quantization",),
    "recipe": ("Recipe",),
    "rule": ("Rule",),
    "recipes": ("recipes",),  # the module itself
    "wrappers": (
        "GroupLassoRegularizer",
        "KernelSpec",
        "MaskConstraint",
        "Prunable",
        "Reweight",
        "ReweightedRegularizer",
        "SparsityLogger",
        "apply_masks",
        "attach",
        "attach_levels",
        "register_prunable",
        "snap_to_levels",
        "wrap",
    ),
    "shrinking": ("ShrinkResult", "ShrinkRow", "shrink"),
    "pipeline": (
        "CollapseWatch",
        "CompressResult",
        "GradualPrune",
        "QuantizeResult",
        "RateSearch",
        "StrengthControl",
        "Teacher",
        "arrange",
        "compress",
        "hard_prune",
        "largest_rate",
        "levels_train",
        "mask_zeros",
        "masked_retrain",
        "purify",
        "quantize",
        "reweighted_train",
        "sparsity_summary",
        "strip",
    ),
    "converter": (
        "ConversionError",
        "ConversionReport",
        "Converted",
        "SkipReason",
        "convert",
        "unpack",
    ),
    "oneshot": ("Infeasible", "LossTable", "OneShotResult", "prune_one_shot"),
    "crossbar": ("Crossbar", "crossbar_report"),
    "inspection": ("inspect_model",),
    "storage": ("Account", "LayerAccount", "accounting"),
    "planning": ("PlanRow", "plan"),
    "layer_times": ("measure_layers",),
    "mapping": ("map_by_loss", "map_by_rule"),
    "runtime": ("CompiledModel", "Interpreter", "Streamer", "delegate_path"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tfrewprune' has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULE_OF[name]}")
    value = module if name == _MODULE_OF[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])


registration.when_keras_is_imported()
