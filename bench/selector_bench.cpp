// The path selector: one choice for each request.
#include <benchmark/benchmark.h>

#include "multipath/path_selector.h"

namespace iscsi_blkback {
namespace {

void round_robin(benchmark::State& state) {
  const auto paths = static_cast<std::uint32_t>(state.range(0));
  RoundRobinSelector selector(static_cast<std::uint32_t>(state.range(1)));
  PathMask eligible = 0;
  for (std::uint32_t index = 0; index < paths; ++index) {
    selector.add_path(index);
    // Every other path is down when there are many.
    eligible |= paths < 4 || index % 2 == 0 ? path_bit(index) : 0;
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(selector.select(eligible));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(round_robin)->ArgNames({"paths", "rr_min_io"})->ArgsProduct({{1, 2, 8, 64}, {1, 100}});

}  // namespace
}  // namespace iscsi_blkback
