# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses that are written to JSON and read back by their class name."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, TypeVar

Kind = TypeVar("Kind", bound="Registered")


class Registered:
    """Base of a family of settings, such as all structures or all methods.

    A family is a direct subclass that says what its members are called; defining a
    subclass of it registers the member. Members are frozen dataclasses.

    Example:

    >>> class Shape(Registered, kind="shape", example="Round(3)"): ...
    >>> @dataclasses.dataclass(frozen=True)
    ... class Round(Shape):
    ...     radius: int = 1
    >>> Shape.get({"shape": "Round", "radius": 3})
    Round(radius=3)
    """

    _kind: ClassVar[str]
    _example: ClassVar[str]
    _members: ClassVar[dict[str, type]]

    def __init_subclass__(cls, kind: str | None = None, example: str = "", **kwargs):
        super().__init_subclass__(**kwargs)
        if kind is not None:
            cls._kind, cls._example, cls._members = kind, example, {}
        else:
            cls._members[cls.__name__.lower()] = cls

    def get_config(self) -> dict[str, Any]:
        """JSON-serializable: `{kind: class name, **fields}`."""
        return {self._kind: type(self).__name__, **dataclasses.asdict(self)}

    @classmethod
    def names(cls) -> list[str]:
        """The names of all members."""
        return sorted(member.__name__ for member in cls._members.values())

    @classmethod
    def get(cls: type[Kind], value: Kind | dict | str) -> Kind:
        """A member from a member, its config, or its name (`"block"`, `"Block"`).

        Raises:
            ValueError: No such member, or arguments it does not take.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {cls._kind: value}
        if not isinstance(value, dict) or cls._kind not in value:
            raise ValueError(
                f"A {cls._kind} must be a tfrewprune {cls._kind} such as "
                f"{cls._example}, its config or its name. Received: {value!r}"
            )
        arguments = dict(value)
        name = arguments.pop(cls._kind)
        member = cls._members.get(str(name).replace("_", "").lower())
        if member is None:
            raise ValueError(
                f"Unknown {cls._kind} {name!r}. Expected one of {cls.names()}."
            )
        try:
            return member(**arguments)
        except TypeError as error:
            raise ValueError(
                f"The {cls._kind} {name!r} cannot be built from {arguments!r}: {error}"
            ) from error
