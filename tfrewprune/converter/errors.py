# SPDX-License-Identifier: Apache-2.0
"""The one exception of the converter."""


class ConversionError(ValueError):
    """A model that cannot be converted, unpacked or inspected.

    The message says what was wrong, what was expected and what was received.
    """
