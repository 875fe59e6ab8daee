// The path selectors: what one request costs them.
#include <benchmark/benchmark.h>

#include <array>

#include "multipath/groups/path_selector.h"

namespace iscsi_blkback {
namespace {

void choose(benchmark::State& state, PathSelectorKind kind) {
  const auto paths = static_cast<std::uint32_t>(state.range(0));
  const auto selector = make_path_selector(kind, 1);
  PathMask eligible = 0;
  for (std::uint32_t index = 0; index < paths; ++index) {
    selector->add_path(index);
    // Every other path is down when there are many.
    eligible |= paths < 4 || index % 2 == 0 ? path_bit(index) : 0;
  }
  std::array<PathLoad, kMaxPaths> loads{};
  for (auto _ : state) {
    // What Path and PathGroups do with the choice.
    const std::uint32_t chosen = selector->select(eligible, loads, 4096, {});
    ++loads[chosen].requests;
    loads[chosen].bytes += 4096;
    benchmark::ClobberMemory();
    --loads[chosen].requests;
    loads[chosen].bytes -= 4096;
    if (kind == PathSelectorKind::historical_service_time) {
      selector->on_ended(chosen, {}, {});
    }
  }
  state.SetItemsProcessed(state.iterations());
}
#define ISCSI_BLKBACK_SELECTOR_BENCH(kind)                \
  BENCHMARK_CAPTURE(choose, kind, PathSelectorKind::kind) \
      ->ArgName("paths")                                  \
      ->Arg(1)                                            \
      ->Arg(2)                                            \
      ->Arg(8)                                            \
      ->Arg(64)
ISCSI_BLKBACK_SELECTOR_BENCH(round_robin);
ISCSI_BLKBACK_SELECTOR_BENCH(queue_length);
ISCSI_BLKBACK_SELECTOR_BENCH(service_time);
ISCSI_BLKBACK_SELECTOR_BENCH(historical_service_time);

}  // namespace
}  // namespace iscsi_blkback
