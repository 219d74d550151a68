# SPDX-License-Identifier: Apache-2.0
"""Rule: which matrices of which layers are pruned, in which structure and how far."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator
from typing import Any

from tfrewprune.structures import Block, Structure


@dataclasses.dataclass(frozen=True)
class Rule:
    """What happens to the layers, or to some of their matrices, that it matches.

    The first rule of a recipe that matches a matrix is the one that counts.

    Args:
        match: Layer name, path or shell pattern (`"conv*"`), or several of them. The
            name of a layer with others inside (a nested model, `bidirectional_2`)
            means what is inside. Default `"*"`.
        structure: Which weights are removed together; a structure, its config or its
            name. Default `Block(16, 1)`.
        rate: Dense weights / kept weights of each matched layer: 8 keeps 1/8. `None`:
            the recipe's budget or threshold decides.
        strength: Overrides the recipe's penalty strength.
        skip: Leave the matched layers dense.
        kind: Only layers of this class or a subclass, or inside of one: `"Conv2D"`,
            `"GRU"`, `"RNN"` for all recurrent layers, a shell pattern.
        weights: Only matrices of this name or pattern, where layers have several. A
            recurrent cell has `"kernel/z"` and `"recurrent_kernel/z"` for each gate (z,
            r, h of a `GRU`, i, f, c, o of an `LSTM`): `"recurrent_kernel"` means those
            of all its gates, `"*/z"` both of one.

    Raises:
        ValueError: A rate below 1, a negative strength, or a rule that skips and
            prunes at once.

    Example:

    >>> Rule("conv*", structure=Block(16, 1), rate=8).keep
    0.125
    >>> rule = Rule(["encoder", "dense_2"], rate=4)
    >>> rule = Rule("gru", weights="recurrent_kernel", rate=16)
    >>> rule = Rule(kind="LSTM", rate=8)
    """

    match: str | tuple[str, ...] = "*"
    structure: Structure = Block(16, 1)
    rate: float | None = None
    strength: float | None = None
    skip: bool = False
    kind: str | None = None
    weights: str | None = None

    def __post_init__(self):
        names = (self.match,) if isinstance(self.match, str) else self.match
        several = isinstance(names, list | tuple) and len(names) > 0
        if not several or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                "Argument `match` must be a layer name or a pattern such as 'conv*', "
                f"or a list of them. Received: match={self.match!r}"
            )
        object.__setattr__(self, "match", names[0] if len(names) == 1 else tuple(names))
        for name in ("kind", "weights"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise ValueError(
                    f"Argument `{name}` of a Rule must be a name or a pattern. "
                    f"Received: {name}={value!r}"
                )
        object.__setattr__(self, "structure", Structure.get(self.structure))
        check_rate("rate", self.rate)
        check_strength(self.strength)
        if self.skip and (self.rate is not None or self.strength is not None):
            raise ValueError(
                f"Rule({self.match!r}) has skip=True, so it can have neither `rate` "
                f"nor `strength`. Received: rate={self.rate}, strength={self.strength}"
            )

    @property
    def keep(self) -> float | None:
        """Fraction of weights kept, or None when the recipe decides."""
        return None if self.rate is None else 1.0 / self.rate

    @property
    def patterns(self) -> tuple[str, ...]:
        """`match` as a tuple."""
        return (self.match,) if isinstance(self.match, str) else self.match

    def names(self, name: str, path: str) -> bool:
        """Whether the rule says a layer's own name or path, letter by letter."""
        return name in self.patterns or path in self.patterns

    def means(self, path: str, kinds: Iterable[str]) -> bool:
        """Whether it says a layer around letter by letter: a class, name or path."""
        labels = {*path.split("/"), *_up(path)}
        return self.kind in kinds or not labels.isdisjoint(self.patterns)

    def matches(
        self, name: str, path: str, kinds: Iterable[str] = (), weights: str = "kernel"
    ) -> bool:
        """Whether the rule is meant for a matrix of a layer.

        Args:
            name: Of the layer.
            path: Of the layer.
            kinds: Names of its class, of those it derives from, and of those of the
                layers around it.
            weights: Name of the matrix.
        """
        labels = {name, *path.split("/"), *_up(path)}
        return (
            any(_like(label, self.patterns) for label in labels)
            and (self.kind is None or any(_like(kind, [self.kind]) for kind in kinds))
            and (
                self.weights is None
                or any(_like(label, [self.weights]) for label in _up(weights))
            )
        )

    def replace(self, **changes: Any) -> Rule:
        """A copy with some arguments changed."""
        return dataclasses.replace(self, **changes)

    def __str__(self) -> str:
        extra = [
            f", {name}={getattr(self, name)!r}"
            for name in ("kind", "weights")
            if getattr(self, name) is not None
        ]
        return f"{self.match!r}{''.join(extra)}"

    def get_config(self) -> dict:
        """JSON-serializable arguments of the constructor."""
        return {
            "match": self.match if isinstance(self.match, str) else list(self.match),
            "structure": self.structure.get_config(),
            "rate": self.rate,
            "strength": self.strength,
            "skip": self.skip,
            **({} if self.kind is None else {"kind": self.kind}),
            **({} if self.weights is None else {"weights": self.weights}),
        }


def as_rules(rules: Rule | str | dict | Iterable[Rule | str]) -> tuple[Rule, ...]:
    """The rules of a recipe, however they are written; see `Recipe`."""
    if isinstance(rules, Rule | str):
        rules = (rules,)
    if isinstance(rules, dict):
        rules = [
            Rule(match, **rate) if isinstance(rate, dict) else Rule(match, rate=rate)
            for match, rate in rules.items()
        ]
    if not isinstance(rules, Iterable):
        raise ValueError(
            "Argument `rules` must be a `Rule`, a pattern, a list of them or a dict of "
            f"patterns and rates; a rate is Recipe(rate=8). Received: rules={rules!r}"
        )
    rules = tuple(Rule(rule) if isinstance(rule, str) else rule for rule in rules)
    if not rules:
        raise ValueError('A recipe needs at least one rule, such as Rule("*", rate=8).')
    for rule in rules:
        if not isinstance(rule, Rule):
            raise ValueError(f"Every rule must be a `Rule`. Received: {rule!r}")
    patterns = [
        (pattern, rule.kind, rule.weights, rule.structure.unit)
        for rule in rules
        for pattern in rule.patterns
    ]
    for pattern in patterns:
        if patterns.count(pattern) > 1:
            raise ValueError(
                f"The recipe has {patterns.count(pattern)} rules for {pattern[0]!r}; "
                "only the first could ever apply. Remove or rename the others."
            )
    return rules


def check_rate(name: str, rate) -> None:
    """Refuses what is neither None nor a finite number of at least 1."""
    if rate is None:
        return
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not number or not 1 <= rate < float("inf"):
        raise ValueError(
            f"Argument `{name}` is dense weights / kept weights, a finite number of at "
            f"least 1 (8 keeps 1/8). Received: {name}={rate!r}"
        )


def check_strength(strength) -> None:
    """Refuses what is neither None nor a finite number of at least 0."""
    if strength is None:
        return
    number = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not number or not 0 <= strength < float("inf"):
        raise ValueError(
            "Argument `strength` must be a finite number of at least 0. "
            f"Received: strength={strength!r}"
        )


def _up(path: str) -> Iterator[str]:
    """The path and the paths of all that is around it."""
    parts = path.split("/")
    return ("/".join(parts[: count + 1]) for count in range(len(parts)))


def _like(label: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(label, pattern) for pattern in patterns)
