# SPDX-License-Identifier: Apache-2.0
"""Phone recognition with a network of five times the weights: does 10x cost less?

As :mod:`tfrewprune.experiments.speech`, two GRU layers of 768 instead of 320 units: at
10x it keeps half as many weights as the small network has before it is pruned. RTMobile
(arXiv 2002.11474) prunes a network of 9.6 million weights, this is one of 5.6. Training
multiplies in bfloat16 (an epoch is about a minute on a core with ``avx512_bf16``), and
learning rates are divided by about the ratio of the widths.

Run ``python -m tfrewprune.experiments.speech_wide``; ``--quick`` for a trial of a
minute.
"""

from __future__ import annotations

import dataclasses

from tfrewprune.experiments import speech
from tfrewprune.experiments.rows import Row

ROWS = tuple(
    Row(structure, method, rate)
    for rate in (10, 30, 100)
    for method, structure in (
        ("gradual", "block-16x1"),
        ("reweighted", "block-16x1"),
        ("admm", "bsp"),
    )
)


class SpeechWide(speech.Speech):
    """The experiment; see the module."""

    name = "speech_wide"
    title = "Phone recognition, 2 x GRU(768)"
    rows = ROWS
    methods = ("dense", *(row.name for row in rows))
    full_plan = speech.Plan(units=768, learning_rates=(1e-3, 1.5e-3), bfloat16=True)
    quick_plan = dataclasses.replace(speech.QUICK, bfloat16=True)


if __name__ == "__main__":
    SpeechWide.main()
