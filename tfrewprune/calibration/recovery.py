# SPDX-License-Identifier: Apache-2.0
"""What a cut took is made up for from unlabelled inputs, before any training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfrewprune.calibration.inputs import calibration_inputs, check_outputs
from tfrewprune.calibration.keras_inputs import input_specs
from tfrewprune.calibration.keras_network import KerasNetwork
from tfrewprune.calibration.network import Walk
from tfrewprune.calibration.remarks import remarks_on
from tfrewprune.wrappers.targets import Target


class Recovery:
    """Remembers a dense model, to make up for a cut through it afterwards.

    Args:
        model: The dense model.
        targets: Its kernels, those that will be cut and the others.
        data: Calibration inputs, see `calibration_inputs`.

    Raises:
        ValueError: Data that do not fit the model, or that it does not tell apart.
    """

    def __init__(self, model: keras.Model, targets: list[Target], data: Any):
        self._data = calibration_inputs(data, input_specs(model))
        self._targets = {t.path_key: t for t in targets if t.spec is not None}
        self._network = KerasNetwork(model, targets, self._data)
        check_outputs(self._network.outputs(self._data))
        self._dense = self._network.state()
        self._remarks = remarks_on(self._network, self._data)

    def refit(self) -> dict[tuple, str]:
        """Refits what is left, layer by layer, against the dense outputs.

        Returns:
            What the user should know, by `Target.path_key`.
        """
        cut = self._network.state()
        self._network.restore(self._dense)
        walk = Walk(self._network, self._data, cut=True)
        self._network.restore(cut)
        remarks = {
            key: f"not refitted: {reason}"
            for key, reason in self._network.reasons.items()
        }
        for site in self._network.sites:
            problem = walk.measure(site)
            target = self._targets[site.key]
            keep = problem.weights != 0
            if target.mask is not None and target.mask.groups is not None:
                shape = tuple(target.variable.shape)
                mask = target.spec.layout.to_kernel(target.mask.weight_mask(shape))
                keep = np.asarray(mask).reshape(keep.shape)
                told = self._remarks + ([problem.remark] if problem.remark else [])
                if told:
                    remarks[site.key] = "; ".join(told)
            walk.refit(site, problem, keep)
        return remarks

    def adapt_normalizations(self) -> int:
        """Batch normalizations follow their new inputs; returns how many changed."""
        return self._network.adapt_normalizations(self._dense, self._data)
