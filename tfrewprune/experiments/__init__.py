# SPDX-License-Identifier: Apache-2.0
"""Experiments that reproduce tables: one module a table, results beside them.

Run one with ``python -m tfrewprune.experiments.lenet5``. Each finished run is
appended to ``results/TABLE.jsonl`` at once, so an interrupted experiment goes
on where it stopped. Data sets are read from the folder that the environment
variable ``TFREWPRUNE_DATA`` names (see :mod:`tfrewprune.experiments.datasets`).
"""
