// SPDX-License-Identifier: Apache-2.0
#ifndef TFREWPRUNE_OPERATORS_PLANES_BLOCK_H_
#define TFREWPRUNE_OPERATORS_PLANES_BLOCK_H_

namespace tfrewprune {

// Output pixels [y, y_end) x [x, x_end) whose input is transposed together, and
// the items, tiles or runs, that take them.
struct PlanesBlock {
  int y, y_end, x, x_end;
  int item, item_end;
};

}  // namespace tfrewprune

#endif  // TFREWPRUNE_OPERATORS_PLANES_BLOCK_H_
