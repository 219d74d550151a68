# SPDX-License-Identifier: Apache-2.0
"""Random layers of the kinds that real networks are made of."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tfrewprune.benchmark.layers import Layer

STRUCTURES = ("block16x1", "block8x1", "block4x1", "unstructured")
RATES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
MOST_MACS = 60e6
"""Larger layers become narrower until they fit: a call takes a few milliseconds."""


@dataclass(frozen=True)
class Case:
    """A layer and how it is pruned.

    Attributes:
        index: Number of the case; the same number is the same case everywhere.
        kind: Which networks have such layers.
        layer: The geometry.
        structure: As in `pruned_weights`.
        rate: Weights / surviving weights.
    """

    index: int
    kind: str
    layer: Layer
    structure: str
    rate: float


def case(index: int) -> Case:
    """Draws case number `index`."""
    random = np.random.default_rng((20261127, index))
    kind = list(KINDS)[index % len(KINDS)]
    layer = _affordable(KINDS[kind](random))
    return Case(
        index,
        kind,
        replace(layer, name=f"{kind} {index}"),
        STRUCTURES[random.integers(len(STRUCTURES))],
        float(random.choice(RATES)),
    )


def _affordable(layer: Layer) -> Layer:
    while layer.macs > MOST_MACS:
        if layer.batch > 1:
            layer = replace(layer, batch=1)
        elif layer.inputs >= layer.outputs:
            layer = replace(layer, inputs=max(1, layer.inputs // 2))
        else:
            layer = replace(layer, outputs=max(1, layer.outputs // 2))
    return layer


def _conv(
    random: np.random.Generator,
    sizes: list[int],
    inputs: list[int],
    outputs: list[int] | None = None,
    kernels: list[tuple[int, int]] | None = None,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    batches: list[int] | None = None,
    same: bool | None = True,
) -> Layer:
    """A square image unless `sizes` holds pairs."""

    def pick(values, default=None):
        return default if values is None else values[random.integers(len(values))]

    size = pick(sizes)
    height, width = size if isinstance(size, tuple) else (size, size)
    kernel = pick(kernels, (1, 1))
    dilation = pick(dilations, 1)
    if same is None:
        same = bool(random.integers(2))
    fits = all(
        (taps - 1) * dilation < extent
        for taps, extent in zip(kernel, (height, width), strict=True)
    )
    return Layer(
        "",
        height,
        width,
        pick(inputs),
        pick(outputs if outputs is not None else inputs),
        kernel,
        pick(strides, 1),
        dilation,
        pick(batches, 1),
        same or not fits,
    )


def _resnet(random):
    stage = int(random.integers(4))
    size, width = (56, 28, 14, 7)[stage], 64 << stage
    if random.integers(2):
        return _conv(random, [size], [width], kernels=[(3, 3)], strides=[1, 1, 2])
    ways = ([width], [4 * width]) if random.integers(2) else ([4 * width], [width])
    return _conv(random, [size], *ways, strides=[1, 1, 1, 2])


def _mobilenet(random):
    size, narrow = [(112, 16), (56, 24), (28, 32), (14, 64), (14, 96), (7, 160)][
        random.integers(6)
    ]
    wide = narrow * 6
    ways = ([narrow], [wide]) if random.integers(2) else ([wide], [narrow])
    return _conv(random, [size], *ways)


def _squeeze_excite(random):
    wide = int(random.choice([32, 96, 144, 240, 480, 672, 1152, 1920]))
    narrow = max(4, wide // int(random.choice([4, 16, 24])))
    ways = ([narrow], [wide]) if random.integers(2) else ([wide], [narrow])
    return _conv(random, [1], *ways, batches=[1, 1, 1, 2, 8, 32])


def _deeplab(random):
    return _conv(
        random, [33, 65], [64, 128, 256, 320], [48, 64, 256], [(3, 3)],
        dilations=[2, 4, 6, 12, 18, 24, 36],
    )  # fmt: skip


def _temporal(random):
    length = int(random.choice([64, 250, 1000, 4096, 8192]))
    dilation = 1 << int(random.integers(0, 12))
    return _conv(
        random, [(1, length)], [24, 32, 64, 128], kernels=[(1, 2), (1, 3), (1, 7)],
        dilations=[min(dilation, length // 2)], same=None,
    )  # fmt: skip


def _wavenet(random):
    length = int(random.choice([512, 2048, 4096]))
    return _conv(
        random, [(1, length)], [32, 64, 128], kernels=[(1, 2), (1, 1)],
        dilations=[1, 2, 4, 8, 16, 32, 64, 128, 256], same=None,
    )  # fmt: skip


def _inception(random):
    return _conv(
        random, [17, 35, 8], [48, 64, 128, 160, 192, 384], [64, 96, 192, 224, 256],
        [(1, 7), (7, 1), (1, 3), (3, 1), (5, 5), (3, 3)], [1, 1, 1, 2], same=None,
    )  # fmt: skip


def _odd(random):
    sizes = [int(n) for n in random.integers(3, 60, 2)]
    channels = [int(n) for n in random.integers(3, 200, 4)]
    return _conv(
        random, [(sizes[0], sizes[1])], channels, channels,
        [(1, 1), (3, 3), (2, 3), (5, 2)], [1, 1, 2, 3], batches=[1, 1, 2], same=None,
    )  # fmt: skip


def _patches(random):
    kernel, strides = [((1, 1), [2, 3, 4]), ((2, 2), [2, 3]), ((4, 4), [4, 6]),
                       ((8, 8), [8]), ((16, 16), [16])][random.integers(5)]  # fmt: skip
    return _conv(
        random, [32, 56, 64, 96], [3, 16, 32, 96, 192], [32, 96, 192, 384],
        [kernel], strides, same=None,
    )  # fmt: skip


def _keywords(random):
    size, kernel = [
        ((49, 10), (10, 4)),
        ((25, 5), (1, 1)),
        ((25, 5), (3, 3)),
        ((98, 40), (3, 3)),
        ((1, 98), (1, 9)),
    ][random.integers(5)]
    return _conv(random, [size], [1, 16, 40, 64, 72, 172], [16, 24, 64, 172],
                 [kernel], [1, 1, 2])  # fmt: skip


def _unet(random):
    level = int(random.integers(5))
    width = 32 << level
    return _conv(
        random, [128 >> level], [width, 2 * width], [width], [(3, 3), (3, 3), (1, 1)],
        same=None,
    )  # fmt: skip


def _yolo(random):
    size, width = [(80, 64), (40, 128), (20, 256), (13, 512), (52, 128), (26, 256)][
        random.integers(6)
    ]
    return _conv(
        random, [size], [width // 2, width, 2 * width], [width // 2, width, 255],
        [(1, 1), (3, 3)], [1, 1, 2],
    )  # fmt: skip


def _stem(random):
    return _conv(random, [96, 128, 224], [1, 3, 4], [8, 16, 32, 64],
                 [(3, 3), (5, 5), (7, 7)], [2, 2, 1])  # fmt: skip


def _super_resolution(random):
    return _conv(random, [(64, 64), (90, 160), (120, 80)], [12, 16, 28, 56],
                 kernels=[(3, 3), (5, 5), (1, 1)])  # fmt: skip


def _transformer(random):
    tokens = int(random.choice([1, 4, 16, 49, 64, 128, 197, 256]))
    width = int(random.choice([96, 128, 192, 256, 384, 512, 768]))
    return Layer("", 1, tokens, width, int(random.choice([1, 3, 4])) * width)


def _classifier(random):
    return Layer(
        "",
        1,
        int(random.choice([1, 1, 1, 2, 3, 4, 8, 32])),
        int(random.choice([128, 256, 512, 1024, 1280, 2048, 4096])),
        int(random.choice([10, 100, 256, 512, 1000, 1024, 4096])),
    )


def _landmarks(random):
    return _conv(random, [2, 3, 4, 6, 12, 24, 48], [24, 48, 88, 96, 192, 288],
                 kernels=[(1, 1), (1, 1), (3, 3)], batches=[1, 1, 4])  # fmt: skip


KINDS: dict[str, Callable[[np.random.Generator], Layer]] = {
    "ResNet": _resnet,
    "MobileNetV2": _mobilenet,
    "EfficientNet squeeze-excite": _squeeze_excite,
    "DeepLab ASPP": _deeplab,
    "TCN": _temporal,
    "WaveNet": _wavenet,
    "Inception": _inception,
    "odd sizes": _odd,
    "ViT patches": _patches,
    "keyword spotting": _keywords,
    "U-Net": _unet,
    "YOLO": _yolo,
    "stem": _stem,
    "super-resolution": _super_resolution,
    "transformer": _transformer,
    "classifier": _classifier,
    "MediaPipe landmarks": _landmarks,
}
"""Kinds of networks, each with a function that draws a layer of them."""
