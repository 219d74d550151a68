# SPDX-License-Identifier: Apache-2.0
"""What the user should know about calibration data that can be used all the same."""

from __future__ import annotations

import numpy as np

from tfrewprune.calibration.inputs import CalibrationInputs
from tfrewprune.calibration.network import Network
from tfrewprune.caller import warn_caller

#: Fewer inputs than this are remarked on: positions in an image are samples too, but
#: those of two images do not speak for all images.
FEW = 32
#: A first normalization whose inputs vary so many times as much, or as little, as in
#: training is given another range: bytes for parts of one vary 255 times as much.
FAR = 30.0
#: Outputs of a first layer beyond this (RMS) come from integers that nothing scaled:
#: kernels made for inputs about 1 put out about 1, and about 100 for bytes.
LOUD = 10.0


def remarks_on(network: Network, data: CalibrationInputs) -> list[str]:
    """Few inputs, and values in a range that is probably not that of training.

    A wrong range is warned of too. It shows in two ways: the first batch normalization
    sees another spread than it has stored; or integers were given for float inputs,
    and nothing before the first layer (a `Rescaling`, or what a converter made of it)
    scales them. Floats that no normalization sees are taken as they are.

    Args:
        network: The dense model.
        data: What `calibration_inputs` returned.
    """
    remarks = []
    if len(data[0]) < FEW:
        remarks.append(
            f"{len(data[0])} calibration inputs: 100 to 1,000 different ones are "
            "expected"
        )
    if wrong := _wrong_range(network, data):
        warn_caller(f"Calibration data: {wrong}")
        remarks.append(wrong)
    return remarks


def _wrong_range(network: Network, data: CalibrationInputs) -> str | None:
    spread = network.spread(data)
    if spread is not None and not 1 / FAR < spread < FAR:
        return (
            f"their range is probably wrong: the first batch normalization sees "
            f"{spread:.3g} times the spread that it saw in training"
        )
    if not data.integers or not network.sites:
        return None
    site = network.sites[0]
    few = next(iter(network.activations(site, data)))[:4]
    kernel = network.kernel(site).reshape(-1, site.shape.outputs)
    loud = float(np.sqrt(np.square(site.geometry.columns(few) @ kernel).mean()))
    if loud < LOUD:
        return None
    return (
        f"integers for float inputs, in a range that is probably wrong: layer "
        f"{site.path!r} puts out {loud:.3g} (RMS). Expected inputs prepared as in "
        "training; give them as floats if they are"
    )
