// SPDX-License-Identifier: Apache-2.0
#include "operators/flat_runs.h"

#include "operators/integers.h"

namespace tfrewprune {
namespace {

// More runs must be predicted to take less than this of the fewest's time.
constexpr double kWorthMoreRuns = 0.97;

}  // namespace

// Fitted to planes in the second-level cache on a CPU that does two FMAs a
// cycle. With all data in the first one FMAs alone would take half a cycle for
// each row and unit, but not in runs of one or two units.
double FlatColumnCycles(int band_rows, double units, int fmas_a_cycle) {
  const double fitted =
      1.5 + 0.125 * band_rows + (0.9 + 0.3 * band_rows) * units;
  const double fmas = band_rows * units / fmas_a_cycle;
  return fitted < fmas ? fmas : fitted;
}

// Shuffles and stores of 16 lanes, too, take twice as long where FMAs do.
double FlatRunCycles(int fmas_a_cycle) { return 200.0 / fmas_a_cycle; }

void FlatRuns::Begin(const ConvGeometry& geometry, int64_t pitch,
                     int64_t output_stride, int max_units, int fmas_a_cycle,
                     int band_rows, double band_columns) {
  fmas_a_cycle_ = fmas_a_cycle;
  geometry_ = geometry;
  pitch_ = pitch;
  output_stride_ = output_stride;
  max_units_ = max_units;
  band_rows_ = band_rows;
  tap_columns_ = band_columns / geometry.kernel_h;
  runs_ = 0;
}

int64_t FlatRuns::Units(const PlanesBlock& block, const Part& part) const {
  const int64_t rows = part.y_end - part.y;
  return DivideUp((rows - 1) * pitch_ + block.x_end - block.x, kFlatUnit);
}

// Of a band, in equal runs.
double FlatRuns::Cycles(int64_t units, int taps) const {
  const int64_t runs = DivideUp(units, max_units_);
  const int64_t longer = units % runs;  // runs with one unit more
  const auto Column = [&](int64_t n) {
    return FlatColumnCycles(band_rows_, static_cast<double>(n), fmas_a_cycle_);
  };
  const double columns =
      static_cast<double>(longer) * Column(units / runs + 1) +
      static_cast<double>(runs - longer) * Column(units / runs);
  return columns * taps * tap_columns_ +
         FlatRunCycles(fmas_a_cycle_) * static_cast<double>(runs);
}

// The rows of a block by the kernel rows they need: how many parts, and how
// they are best joined.
int FlatRuns::FindParts(const PlanesBlock& block, Part* part) const {
  int parts = 0;
  for (int y = block.y; y < block.y_end; ++y) {
    int begin, end;
    KernelRowsInside(geometry_, y, &begin, &end);
    if (parts == kMostParts) {  // whatever more there is: one part
      part[parts - 1] = Joined(part[parts - 1], {y, y, begin, end, 0, 0});
    } else if (parts == 0 || begin != part[parts - 1].tap_begin ||
               end != part[parts - 1].tap_end) {
      part[parts++] = {y, y, begin, end, 0, 0};
    }
    part[parts - 1].y_end = y + 1;
  }
  double joined = 0;  // with all rows up to a part's as one
  for (int i = 0; i < parts; ++i) {
    Part section = part[i];
    for (int first = i; first >= 0; --first) {
      if (first < i) section = Joined(part[first], section);
      joined =
          Cycles(Units(block, section), section.tap_end - section.tap_begin);
      const double cycles = joined + (first > 0 ? part[first - 1].cycles : 0);
      if (first == i || cycles < part[i].cycles) {
        part[i].cycles = cycles;
        part[i].first = first;
      }
    }
  }
  if (parts > 0 && part[parts - 1].cycles > kWorthMoreRuns * joined) {
    part[parts - 1].first = 0;
  }
  return parts;
}

// Two parts, one above the other, as one.
FlatRuns::Part FlatRuns::Joined(const Part& above, const Part& below) {
  Part part = below;
  part.y = static_cast<int>(Min(above.y, below.y));
  part.tap_begin = static_cast<int>(Min(above.tap_begin, below.tap_begin));
  part.tap_end = static_cast<int>(Max(above.tap_end, below.tap_end));
  return part;
}

bool FlatRuns::AddPart(const PlanesBlock& block, const Part& part) {
  const int64_t units = Units(block, part);
  const int64_t runs = DivideUp(units, max_units_);
  const int64_t rows = part.y_end - part.y, width = block.x_end - block.x;
  for (int64_t i = 0; i < runs; ++i) {
    const int64_t begin = units * i / runs * kFlatUnit;
    const int64_t end = units * (i + 1) / runs * kFlatUnit;
    if (runs_ == capacity_) {
      const uint64_t wanted = Max(16, static_cast<int64_t>(2 * capacity_));
      Buffer<FlatRun> larger;
      if (!larger.Allocate(wanted)) return false;
      if (runs_ > 0) memcpy(larger.get(), run_.get(), runs_ * sizeof(FlatRun));
      run_.Swap(&larger);
      capacity_ = wanted;
    }
    FlatRun& run = run_[runs_];
    run.input = (part.y - block.y) * pitch_ + begin;
    run.output = -1;
    run.tap_begin = static_cast<uint32_t>(part.tap_begin);
    run.tap_end = static_cast<uint32_t>(part.tap_end);
    run.units = static_cast<int32_t>((end - begin) / kFlatUnit);
    for (uint16_t& stored : run.stored) stored = 0;
    for (int64_t p = begin; p < end; ++p) {
      const int64_t y = p / pitch_, x = p % pitch_;
      if (y >= rows || x >= width) continue;
      if (run.output < 0) {
        run.output =
            ((part.y + y) * geometry_.out_w + block.x + x) * output_stride_;
      }
      run.stored[(p - begin) / kFlatUnit] |=
          static_cast<uint16_t>(1u << (p - begin) % kFlatUnit);
    }
    if (run.output >= 0) ++runs_;  // else all of it is in a gap
  }
  return true;
}

bool FlatRuns::Add(const PlanesBlock& block) {
  Part part[kMostParts];
  // From the last section to the first; they are taken the other way round.
  int last[kMostParts], sections = 0;
  for (int i = FindParts(block, part) - 1; i >= 0; i = part[i].first - 1) {
    last[sections++] = i;
  }
  while (sections > 0) {
    Part section = part[last[--sections]];
    for (int i = section.first; i < last[sections]; ++i) {
      section = Joined(part[i], section);
    }
    if (!AddPart(block, section)) return false;
  }
  return true;
}

}  // namespace tfrewprune
