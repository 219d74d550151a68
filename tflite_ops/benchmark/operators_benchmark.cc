// SPDX-License-Identifier: Apache-2.0
//
// Conv2D and FullyConnected over lists of layers, with Google Benchmark.
//
//   operators_benchmark [goals|resnet50|vgg16|mobilenet_v2|gemv|FILE]...
//       [--rates=4,8,16] [--heights=16] [--isa=avx512,avx2] [--threads=1]
//       [Google Benchmark's flags, e.g. --benchmark_filter=3x3
//        --benchmark_out=FILE --benchmark_out_format=json]
//
// Every row is checked against dense loops before it is timed. Counters:
// GFLOP/s done and dense-equivalent, and the share of what FMAs in registers
// reach on this machine, measured at the start of the run.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <sstream>

#include "kernels/select.h"
#include "operators/packed_operator.h"
#include "random_layer.h"
#include "shapes.h"

extern "C" {
double tfrewprune_fma_peak(const char* isa, double seconds);
double tfrewprune_stream(const char* isa, int write, char* data, size_t bytes,
                         double seconds);
}

namespace tfrewprune {
namespace {

using benchmark::Counter;

struct Settings {
  std::vector<std::string> shapes;
  std::vector<int> rates = {4, 8, 16};
  std::vector<int> heights = {16};
  std::vector<Isa> isas = {BestIsa()};
  std::vector<int> threads = {1};
};

// What one row times: an operator on random weights, input and bias.
class Workload {
 public:
  Workload(const LayerShape& shape, int rate, int height)
      : shape_(shape),
        geometry_(shape.geometry),
        layer_(Options(shape, rate, height)),
        input_(layer_.Values(
            Size(geometry_.in_h, geometry_.in_w, geometry_.in_c))),
        bias_(layer_.Values(shape.outputs)),
        output_(Size(geometry_.out_h, geometry_.out_w, shape.outputs)) {}

  const char* Prepare(Isa isa, ThreadPool* pool) {
    Resources resources;
    resources.kernels = SelectKernels(isa);
    resources.pool = pool;
    packed_.SetWeights(layer_.view);
    return shape_.fully_connected
               ? packed_.PrepareFullyConnected(geometry_.in_h,
                                               Activation::kNone, resources)
               : packed_.PrepareConv2D(geometry_, Activation::kNone, resources);
  }

  void Invoke() {
    packed_.Invoke({input_.data(), bias_.data(), nullptr, output_.data()});
  }

  // Some outputs against plain loops over the dense matrix.
  bool Check() const {
    const ConvGeometry& g = geometry_;
    std::mt19937 random(1);
    for (int i = 0; i < 200; ++i) {
      const int y = random() % g.out_h, x = random() % g.out_w;
      const int o = random() % shape_.outputs;
      double sum = bias_[o];
      const float* w = layer_.dense.data() + size_t(o) * layer_.view.columns;
      for (int ky = 0; ky < g.kernel_h; ++ky) {
        for (int kx = 0; kx < g.kernel_w; ++kx, w += g.in_c) {
          const int in_y = y * g.stride_h - g.pad_top + ky * g.dilation_h;
          const int in_x = x * g.stride_w - g.pad_left + kx * g.dilation_w;
          if (in_y < 0 || in_y >= g.in_h || in_x < 0 || in_x >= g.in_w) {
            continue;
          }
          const float* in = input_.data() + Size(in_y, g.in_w, g.in_c) +
                            Size(1, in_x, g.in_c);
          for (int c = 0; c < g.in_c; ++c) sum += double{w[c]} * in[c];
        }
      }
      const float got = output_[(Size(y, g.out_w, 1) + x) * shape_.outputs + o];
      if (!(std::fabs(got - sum) <= Tolerance(layer_.view.columns))) {
        return false;
      }
    }
    return true;
  }

  double Flops() const {
    return 2.0 * geometry_.out_h * geometry_.out_w * layer_.view.column_count *
           layer_.view.band_rows;
  }
  double DenseFlops() const {
    return 2.0 * geometry_.out_h * geometry_.out_w * layer_.view.columns *
           shape_.outputs;
  }
  // Input, weights and output, each once.
  double Bytes() const {
    return sizeof(float) *
           (input_.size() + output_.size() +
            double(layer_.view.column_count) * layer_.view.band_rows);
  }

 private:
  static size_t Size(int a, int b, int c) { return size_t(a) * b * c; }
  static RandomLayerOptions Options(const LayerShape& shape, int rate,
                                    int height) {
    RandomLayerOptions options;
    const ConvGeometry& g = shape.geometry;
    options.rows = shape.outputs;
    options.columns = g.kernel_h * g.kernel_w * g.in_c;
    options.band_rows = height;
    options.kept = std::max(1, static_cast<int>(options.columns) / rate);
    return options;
  }

  LayerShape shape_;
  ConvGeometry geometry_;
  RandomLayer layer_;
  std::vector<float> input_, bias_, output_;
  PackedOperator packed_;
};

void Run(benchmark::State& state, const LayerShape& shape, int rate, int height,
         Isa isa, int threads, double peak) {
  Workload workload(shape, rate, height);
  std::unique_ptr<ThreadPool, void (*)(ThreadPool*)> pool(
      ThreadPool::Create(threads), ThreadPool::Destroy);
  if (const char* error = workload.Prepare(isa, pool.get())) {
    state.SkipWithError(error);
    return;
  }
  workload.Invoke();
  if (!workload.Check()) {
    state.SkipWithError("incorrect result");
    return;
  }
  for (auto _ : state) workload.Invoke();
  const auto rate_flag = Counter::kIsIterationInvariantRate;
  state.counters["GFLOP/s"] = Counter(workload.Flops() * 1e-9, rate_flag);
  state.counters["dense"] = Counter(workload.DenseFlops() * 1e-9, rate_flag);
  state.counters["peak"] =
      Counter(workload.Flops() / peak / threads, rate_flag);
  state.counters["GB/s"] = Counter(workload.Bytes() * 1e-9, rate_flag);
}

std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> words;
  std::istringstream stream(list);
  for (std::string word; std::getline(stream, word, ',');)
    words.push_back(word);
  return words;
}

// What Google Benchmark left of argv is ours. False after a message.
bool ParseArguments(int argc, char** argv, Settings* settings) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string list =
        equals == std::string::npos ? "" : argument.substr(equals + 1);
    std::vector<int>* numbers = name == "--rates"     ? &settings->rates
                                : name == "--heights" ? &settings->heights
                                : name == "--threads" ? &settings->threads
                                                      : nullptr;
    if (numbers != nullptr) {
      numbers->clear();
      for (const std::string& word : Split(list)) {
        numbers->push_back(std::atoi(word.c_str()));
        if (numbers->back() < 1) {
          std::fprintf(stderr, "%s: expected numbers above 0, found '%s'\n",
                       name.c_str(), word.c_str());
          return false;
        }
      }
    } else if (name == "--isa") {
      settings->isas.clear();
      for (const std::string& word : Split(list)) {
        Isa isa;
        if (!IsaFromName(word.c_str(), &isa) || !IsaSupported(isa)) {
          std::fprintf(stderr, "--isa: this machine has no '%s'\n",
                       word.c_str());
          return false;
        }
        settings->isas.push_back(isa);
      }
    } else if (argument[0] == '-') {
      std::fprintf(stderr, "unknown argument %s\n", argument.c_str());
      return false;
    } else {
      const bool file = argument.find('.') != std::string::npos;
      settings->shapes.push_back(
          file ? argument : TFREWPRUNE_SHAPES "/" + argument + ".txt");
    }
  }
  if (settings->shapes.empty()) {
    settings->shapes.push_back(TFREWPRUNE_SHAPES "/goals.txt");
  }
  return true;
}

int Main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  Settings settings;
  if (!ParseArguments(argc, argv, &settings)) return 2;
  std::vector<LayerShape> layers;
  for (const std::string& path : settings.shapes) {
    std::string error;
    if (!ReadShapes(path, &layers, &error)) {
      std::fprintf(stderr, "%s\n", error.c_str());
      return 2;
    }
  }
  std::map<Isa, double> peak;
  const size_t bytes = 64 << 20;
  const std::unique_ptr<char, void (*)(void*)> memory(
      static_cast<char*>(std::aligned_alloc(64, bytes)), std::free);
  std::fill_n(memory.get(), bytes, 0);
  for (Isa isa : settings.isas) {
    peak[isa] = tfrewprune_fma_peak(IsaName(isa), 0.5);
    const double read =
        tfrewprune_stream(IsaName(isa), 0, memory.get(), bytes, 0.3);
    const double write =
        tfrewprune_stream(IsaName(isa), 1, memory.get(), bytes, 0.3);
    std::fprintf(stderr,
                 "%s: FMA peak %.0f GFLOP/s a thread, 64 MiB read %.1f GB/s, "
                 "written %.1f GB/s\n",
                 IsaName(isa), peak[isa] * 1e-9, read * 1e-9, write * 1e-9);
  }
  for (const LayerShape& layer : layers) {
    for (int height : settings.heights) {
      for (int rate : settings.rates) {
        for (Isa isa : settings.isas) {
          for (int threads : settings.threads) {
            const std::string name =
                layer.name + "/R" + std::to_string(height) + "/" +
                std::to_string(rate) + "x/" + IsaName(isa) +
                "/threads:" + std::to_string(threads);
            auto* row = benchmark::RegisterBenchmark(
                name.c_str(), [=, &peak](benchmark::State& state) {
                  Run(state, layer, rate, height, isa, threads, peak[isa]);
                });
            row->MinTime(0.2)->Unit(benchmark::kMillisecond);
            // The calling thread's own time is not disturbed by neighbours,
            // but says nothing of the work of other threads.
            if (threads > 1) row->UseRealTime();
          }
        }
      }
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace
}  // namespace tfrewprune

int main(int argc, char** argv) { return tfrewprune::Main(argc, argv); }
