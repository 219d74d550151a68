# SPDX-License-Identifier: Apache-2.0
"""`python -m tfrewprune` is the `tfrewprune` command."""

import sys

from tfrewprune.cli import main

sys.exit(main())
