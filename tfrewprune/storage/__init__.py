# SPDX-License-Identifier: Apache-2.0
"""What the surviving weights of a model need in bytes, however they are stored.

`schemes` (bits of each way to store a sparse matrix) -> `reading` (the matrices of a
model) -> `account` (sizes by layer and in total) -> `plot`.
"""

from tfrewprune.storage.account import Account, LayerAccount, accounting

__all__ = ["Account", "LayerAccount", "accounting"]
