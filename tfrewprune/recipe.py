# SPDX-License-Identifier: Apache-2.0
"""Recipe: which layer gets which structure, how much is removed, and the phases.

Plain frozen data, without Keras: a recipe is written to JSON, read back, compared.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any

from tfrewprune.constraints import checked_constraints
from tfrewprune.methods import Method, Reweighted
from tfrewprune.quantization import Quantization
from tfrewprune.rule import Rule, as_rules, check_rate, check_strength
from tfrewprune.structures import KernelShape

VERSION = 1
BUDGETS = ("weights", "macs")

#: Rate at which a layer's gain is judged where something else decides its rate.
TYPICAL_RATE = 8


class Infeasible(ValueError):
    """No choice meets all constraints; the message says which, and by how much."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that describes a compression but the model and the data.

    How much is removed is decided by exactly one of these, in this order: a rule's own
    `rate`; the recipe's `rate` as a budget over all other pruned layers together, or
    its `constraints` on the model; the rule's structure, where it has but one rate
    (`NofM`); the `threshold`, so that the penalty strength decides (the automatic
    rate).

    Args:
        rules: `Rule`s in order of precedence; a single rule or pattern is fine, or a
            dict of patterns and rates, `{"conv*": 8, "dense": 16}`. Default: `"*"`.
        method: How training empties groups: `Reweighted()` (default) or another of
            `tfrewprune.methods`, its config or its name.
        strength: Penalty strength lambda for all layers; None: where a rate is asked
            for it is controlled during training so that the surviving weights fall to
            that rate (`tfrewprune.StrengthControl`), elsewhere it is the method's
            default, 1e-5 for the group penalties. The pull on
            a weight is strength / (rms of its group + epsilon). The penalty is a sum
            over weights and is not divided by their number, so the pull on a layer does
            not depend on which other layers the model has. Larger empties more groups.
        rate: Budget over all pruned layers without a rate of their own: dense / kept.
        budget: What `rate` counts: `"weights"` or `"macs"`.
        threshold: Groups with rms below it are removed (in units of the weights). Where
            there is neither a rate nor this: what the method takes for empty, 1e-3 or
            its `epsilon`, the `shrink` of `PrimalProximal()`.
        constraints: In place of a rate, what the whole model may cost, one or several
            of `"weights"`, `"macs"` (of layers with a weight matrix), `"bytes"` (of
            weights in a `.tflite`, as floats: a `quantization` is not counted) and
            `"latency_ms"` (on one thread, of layers that the cost model knows). A
            number, or a share of the dense model: `"40%"`, or a number of at most 1
            where that is no time.
        layer_ms: Measured milliseconds by layer path and rate (1 is dense), such as
            `{"conv": {1: 2.0, 4: 0.7, 16: 0.3}}`, in place of the cost model's; see
            `measure_layers`.
        start_rate: Dense / kept weights that the model is cut to, by magnitude, before
            the phase under the method begins (rules of a smaller rate: to theirs).
            Where much more shall go, these weights are free, and the phase is spent on
            the others.
        reweighted_epochs: Length of the reweighted phase.
        retrain_epochs: Length of the masked retraining.
        refreshes: Updates of the penalty weights, evenly spaced inside the reweighted
            phase (4: at 20, 40, 60 and 80 %).
        minimum_groups: Groups every layer keeps at least.
        minimum_weights: Layers with fewer weights are left dense.
        skip_first: Leave the first convolution dense; it is small and sensitive.
        skip_last: Leave `Dense` layers that give an output of the model, the
            classifiers, dense. Both are only obeyed by rules with a pattern: a rule
            that names a layer exactly prunes it.
        arrange: Whether `compress` and `prune_one_shot` first move filters so that
            those that share columns in a structure such as `Block(16, 1)` are alike
            (`tfrewprune.arrange`); of several steps the first one says.
        purify: After the cut, filters and input channels that are at least half empty
            and whose norm is below this share of the layer's median go as well, with
            all dead paths (`tfrewprune.purify`); 0 leaves them.
        shrink: Whether `compress` ends with a physically smaller model
            (`tfrewprune.shrink`); of several steps the last one says.
        then: What follows when all this is done, on the model as it is then: what is
            removed stays removed, and a `rate` counts it. Columns at rate 5, then rows
            at rate 10: the rows remove the other half.
        quantization: Levels that the weights which are left get to at the end; a
            `Quantization`, or its levels (4 for 4 bits). Layers that are not pruned
            are quantized too.

    Raises:
        ValueError: No rules, duplicate rules, an impossible number, or a recipe that
            could remove nothing.

    Example:

    >>> recipe = Recipe(rate=8)
    >>> recipe = Recipe({"conv*": 8, "dense": 16})
    >>> recipe = Recipe(Rule("*", rate=8), strength=1e-5)
    >>> Recipe.from_json(recipe.to_json()) == recipe
    True
    """

    rules: tuple[Rule, ...] = "*"  # type: ignore[assignment]  # made rules below
    method: Method = Reweighted()
    strength: float | None = None
    rate: float | None = None
    budget: str = "weights"
    threshold: float | None = None
    constraints: dict[str, float | str] | None = None
    layer_ms: dict[str, dict[float, float]] | None = None
    start_rate: float = 1
    reweighted_epochs: int = 10
    retrain_epochs: int = 10
    refreshes: int = 4
    minimum_groups: int = 1
    minimum_weights: int = 256
    skip_first: bool = True
    skip_last: bool = True
    arrange: bool = True
    purify: float = 0.0
    shrink: bool = False
    then: Recipe | None = None
    quantization: Quantization | None = None

    def __post_init__(self):
        object.__setattr__(self, "rules", as_rules(self.rules))
        object.__setattr__(self, "method", Method.get(self.method))
        if not self.method.prunes:
            raise ValueError(
                f"Method {self.method} removes nothing: levels are for "
                "Recipe(quantization=Quantization(...)), or quantize()."
            )
        if self.quantization is not None:
            quantization = Quantization.get(self.quantization)
            object.__setattr__(self, "quantization", quantization)
        check_strength(self.strength)
        check_rate("rate", self.rate)
        check_rate("start_rate", self.start_rate)
        self._check_final_rate()
        if self.rate is not None and self.start_rate > self.rate:
            raise ValueError(
                "The model cannot be cut further at the start than at the end. "
                f"Received: start_rate={self.start_rate}, rate={self.rate}"
            )
        if self.budget not in BUDGETS:
            raise ValueError(
                f"Invalid value for argument `budget`. Expected one of {BUDGETS}. "
                f"Received: budget={self.budget!r}"
            )
        if self.threshold is not None and not self.threshold > 0:
            raise ValueError(
                f"Argument `threshold` must be positive. Received: {self.threshold!r}"
            )
        given = {
            name: getattr(self, name)
            for name in ("rate", "threshold", "constraints")
            if getattr(self, name) is not None
        }
        if len(given) > 1:
            raise ValueError(
                "A recipe has either a `rate` (the budget decides), or `constraints`, "
                "or a `threshold` (the strength decides), not both. Received: "
                + ", ".join(f"{name}={value}" for name, value in given.items())
            )
        if self.constraints is not None:
            constraints = checked_constraints(self.constraints)
            object.__setattr__(self, "constraints", constraints)
        if self.layer_ms is not None:
            object.__setattr__(self, "layer_ms", _as_times(self.layer_ms))
        for name, least in (
            ("reweighted_epochs", 0),
            ("retrain_epochs", 0),
            ("refreshes", 0),
            ("minimum_groups", 0),
            ("minimum_weights", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"Argument `{name}` must be an integer of at least {least}. "
                    f"Received: {name}={value!r}"
                )
        if not 0 <= self.purify <= 1:
            raise ValueError(
                "Argument `purify` is a share of a layer's median norm, between 0 and "
                f"1. Received: purify={self.purify!r}"
            )
        if self.then is not None and not isinstance(self.then, Recipe):
            raise ValueError(
                f"Argument `then` must be a Recipe. Received: then={self.then!r}"
            )
        if self.then is not None and self.quantization is not None:
            raise ValueError(
                "Weights lie on levels at the end: the last step of a recipe has the "
                "`quantization`. Received: one in a step with `then`"
            )
        self._check_removal()

    def _check_final_rate(self) -> None:
        """Takes the rate of a method that has one; refuses others beside it."""
        final = self.method.final_rate
        if final is None:
            return
        given = {self.rate, *(rule.rate for rule in self.rules)} - {None}
        if any(not math.isclose(rate, final, rel_tol=1e-6) for rate in given):
            raise ValueError(
                f"The schedule of {type(self.method).__name__} ends at rate "
                f"{final:g}: leave out other rates, or change it. "
                f"Received: {sorted(given)}"
            )
        object.__setattr__(self, "rate", final)

    def _check_removal(self) -> None:
        """Refuses what would train for nothing."""
        pruning = [rule for rule in self.rules if not rule.skip]
        rates = [self.rate_of(rule) for rule in pruning]
        if all(rate == 1 for rate in rates):
            raise ValueError(
                "The recipe removes nothing: every rule skips or has rate 1. Give a "
                'rate above 1, such as Rule("*", rate=8).'
            )
        if (
            None not in rates
            or self.constraints is not None
            or (self.threshold is not None and not self.method.gradual)
        ):
            return
        if not self.method.penalized or self.method.projects:
            open_rule = pruning[rates.index(None)].match
            instead = "" if self.method.gradual else ", or a `threshold`"
            raise ValueError(
                f"Rule {open_rule!r} has no rate: method "
                f"{type(self.method).__name__}() needs a `rate` in the rule or the "
                f"recipe{instead}. Received: rate=None, threshold={self.threshold}"
            )
        strengths = [
            self.strength_of(rule)
            for rule, rate in zip(pruning, rates, strict=True)
            if rate is None
        ]
        if not any(strengths) and all(rate in (None, 1) for rate in rates):
            raise ValueError(
                "The recipe removes nothing: it has no `rate` and no `threshold`, and "
                "a penalty of strength 0 empties no group."
            )

    def rate_of(self, rule: Rule) -> float | None:
        """Dense / kept weights that the rule's layers shall have; None if open.

        A structure such as `NofM` has a rate where nobody gives one.
        """
        if rule.rate is not None or self.rate is not None:
            return rule.rate or self.rate
        return None if self.constraints is not None else rule.structure.nominal_rate

    def settled(self, rule: Rule, shape: KernelShape) -> Rule:
        """The rule for one kernel: with its structure's rate where none is given."""
        given = (rule.rate, self.rate, self.constraints)
        if any(value is not None for value in given):
            return rule
        return rule.replace(rate=rule.structure.fixed_rate(shape))

    def is_controlled(self, rule: Rule) -> bool:
        """Whether the penalty strength follows from the rate during training."""
        fixed = self.strength if rule.strength is None else rule.strength
        rated = self.rate_of(rule) is not None or self.constraints is not None
        return fixed is None and rated and self.method.controlled

    def strength_of(self, rule: Rule) -> float:
        """Penalty strength of the rule's layers at the beginning."""
        fixed = self.strength if rule.strength is None else rule.strength
        return self.method.default_strength if fixed is None else fixed

    def rule_for(
        self, name: str, path: str, kinds: Iterable[str] = (), weights: str = "kernel"
    ) -> Rule | None:
        """The first rule that matches, or None; arguments as of `Rule.matches`."""
        for rule in self.rules:
            if rule.matches(name, path, kinds, weights):
                return rule
        return None

    @property
    def steps(self) -> tuple[Recipe, ...]:
        """This recipe and those that follow, one by one."""
        rest = () if self.then is None else self.then.steps
        return (self.replace(then=None), *rest)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some arguments changed."""
        return dataclasses.replace(self, **changes)

    def get_config(self) -> dict:
        """JSON-serializable arguments of the constructor."""
        config = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        config["rules"] = [rule.get_config() for rule in self.rules]
        config["method"] = self.method.get_config()
        config["then"] = None if self.then is None else self.then.get_config()
        if self.quantization is not None:
            config["quantization"] = self.quantization.get_config()
        return config

    @classmethod
    def from_config(cls, config: dict) -> Recipe:
        """Inverse of `get_config`.

        Raises:
            ValueError: Unknown or missing entries.
        """
        config = dict(config)
        _check_names("recipe", config, cls)
        if "rules" not in config:
            raise ValueError(f"The recipe has no `rules`. Received: {sorted(config)}")
        rules = []
        for entry in config["rules"]:
            _check_names("rule", entry, Rule)
            rules.append(Rule(**entry))
        if config.get("then") is not None:
            config["then"] = cls.from_config(config["then"])
        return cls(**{**config, "rules": tuple(rules)})

    def to_json(self) -> str:
        """The recipe as indented JSON text."""
        document = {"tfrewprune_recipe": VERSION, **self.get_config()}
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Recipe from the text `to_json` wrote.

        Raises:
            ValueError: No JSON, no recipe, or a version this package does not know.
        """
        try:
            config = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"The recipe is not valid JSON: {error}") from error
        version = (
            config.pop("tfrewprune_recipe", None) if isinstance(config, dict) else None
        )
        if version != VERSION:
            raise ValueError(
                f"Expected a recipe with tfrewprune_recipe = {VERSION}. "
                f"Received: {version!r}"
            )
        return cls.from_config(config)


def _as_times(times) -> dict[str, dict[float, float]]:
    """Checked, with numbers for rates, which JSON makes strings of."""
    try:
        found = {
            path: {float(rate): float(ms) for rate, ms in by_rate.items()}
            for path, by_rate in times.items()
        }
    except (AttributeError, TypeError, ValueError):
        found = {}
    if not found or not all(1 in by_rate for by_rate in found.values()):
        raise ValueError(
            "Argument `layer_ms` must be a dict of layer paths to milliseconds by "
            f"rate, rate 1 (dense) among them. Received: layer_ms={times!r}"
        )
    return found


def _check_names(what: str, config, owner) -> None:
    if not isinstance(config, dict):
        raise ValueError(f"A {what} must be a JSON object. Received: {config!r}")
    known = {field.name for field in dataclasses.fields(owner)}
    unknown = sorted(set(config) - known)
    if unknown:
        raise ValueError(
            f"Unknown entries in a {what}: {unknown}. Expected some of {sorted(known)}."
        )
