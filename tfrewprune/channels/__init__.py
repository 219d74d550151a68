# SPDX-License-Identifier: Apache-2.0
"""Channels between the layers of a model, of Keras or of TFLite. Needs numpy only.

`units` (which channels are one) -> `order` (an order in which they may come instead).
"""
