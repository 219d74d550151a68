# SPDX-License-Identifier: Apache-2.0
"""Models whose inputs have open sizes: at which ones they run.

Not every size fits every network: valid convolutions need as many pixels as their
filters have, halves that are joined again need even ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tfrewprune.converter.cases import Case, Entry, entries, random_case
from tfrewprune.converter.errors import ConversionError
from tfrewprune.converter.flatbuffer import Model
from tfrewprune.converter.isolation import run_models

# What is halved up to 5 times comes out even of the larger ones.
_SIZES = (1, 2, 3, 8, 32, 64, 96, 224)
_LONG = (*_SIZES, 1024)
ADVICE = (
    "name a size that runs, inputs=[...], or pass verify=False to convert without "
    "comparing"
)


def candidates(entry: Entry) -> tuple[int, ...]:
    """Returns sizes to try, the smallest first; none if only the batch is open."""
    if not entry.open_sizes:
        return ()
    return _SIZES if is_image(entry) else _LONG


def is_image(entry: Entry) -> bool:
    """Whether height and width of an input are open."""
    return any(len(open_axes(shape)) > 1 for shape in entry.shapes)


def check_size(size: tuple[int, int], signatures: Sequence[Sequence[int]]) -> None:
    """Raises a ValueError if a size is given for inputs that have theirs."""
    if not any(len(open_axes(signature)) > 1 for signature in signatures):
        raise ValueError(
            f"a size is for open height and width, received {size} for inputs of "
            f"{[list(map(int, signature)) for signature in signatures]}"
        )


def open_axes(signature: Sequence[int]) -> list[int]:
    """Returns the axes beside the batch whose lengths are open."""
    return [axis for axis, n in enumerate(signature) if axis and n < 0]


def sized_shape(
    name: str,
    signature: Sequence[int],
    shape: Sequence[int],
    frames: int,
    size: tuple[int, int] | None,
) -> tuple[int, ...]:
    """Returns the shape of an input with its open time, height and width filled in.

    Args:
        name: Of the input.
        signature: Its shape, -1 where it is open.
        shape: Its shape as stored, which stays where nothing else is said.
        frames: What an open time is.
        size: What open height and width are.

    Raises:
        ValueError: If height and width are open, and there is no size.
    """
    sized, axes = list(map(int, shape)), open_axes(signature)
    if len(axes) > 1:
        if size is None:
            raise ValueError(
                f"height and width of input {name!r} are open, "
                f"{list(map(int, signature))}: expected a size to run it at, such as "
                "--size 224x224 (size=(224, 224)), received none"
            )
        *axes, height, width = axes
        sized[height], sized[width] = size
    if 1 in axes and len(signature) > 2:
        sized[1] = frames
    return tuple(sized)


def running_cases(model: Model, content: bytes, given: Sequence[Case]) -> list[Case]:
    """Returns random runs of every way in, at the first sizes that LiteRT runs.

    Two sizes, or one that the caller gave.

    Args:
        model: The model, of which an input has an open size.
        content: The same without packed layers.
        given: Runs of the caller: their sizes come first.

    Raises:
        ConversionError: If there is no such size.
    """
    found = []
    for number, entry in enumerate(entries(model)):
        own = given if number == 0 else ()
        runs: list[Case] = []
        for case in _trials(entry, own):
            try:
                run_models({"dense": (content, False)}, [case])
            except ConversionError as error:
                failure = error
                continue
            runs.append(case)
            if len(runs) == (1 if own else 2):
                break
        if not runs:
            raise ConversionError(
                f"open sizes of {', '.join(map(str, candidates(entry)))} do not run; "
                f"{ADVICE}: {failure}"
            ) from failure
        found += runs
    return found


def _trials(entry: Entry, given: Sequence[Case]) -> Iterator[Case]:
    for case in given:
        yield random_case(entry, [array.shape for array in case.feed])
    for size in candidates(entry) or (1, 2):
        yield random_case(entry, entry.shapes_at(size))
