// The ring: first the indices alone, then a guest's requests through a VbdQueue to a disk in memory,
// with grants and event channels in memory. The second includes the guest's side (FakeFrontend).
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#include "blkback/ring/back_ring.h"
#include "blkback/ring/vbd_queue.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/mem_xen.h"
#include "tests/support/memory_disk.h"
#include "tests/support/ring_parameters.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

struct FreeDeleter {
  void operator()(std::byte* memory) const { std::free(memory); }
};

void ring_alone(benchmark::State& state) {
  const auto batch = static_cast<std::uint32_t>(state.range(0));
  constexpr std::size_t kBytes = kMaxRingPages * 4096;
  const std::unique_ptr<std::byte, FreeDeleter> memory(
      static_cast<std::byte*>(std::aligned_alloc(4096, kBytes)));
  std::memset(memory.get(), 0, kBytes);
  auto& header = *reinterpret_cast<SharedRingHeader*>(memory.get());
  BackRing<BlkifX86_64> ring({memory.get(), kBytes});
  for (auto _ : state) {
    header.request_producer += batch;
    for (std::uint32_t left = ring.poll(); left != 0; --left) {
      const BlkifRequest request = ring.consume();
      ring.put_response(request.id, request.operation, kBlkifOkay);
    }
    benchmark::DoNotOptimize(ring.final_check());
    benchmark::DoNotOptimize(ring.publish());
  }
  state.SetItemsProcessed(state.iterations() * batch);
}
BENCHMARK(ring_alone)->ArgName("batch")->Arg(1)->Arg(32)->Arg(256);

class Rig final : public VbdQueue::Owner {
 public:
  Rig() {
    FakeFrontend::Options options;
    options.ring_pages = 4;
    frontend_.emplace(xen_, options);
    frontend_->set_up_ring();
    bell_ = reactor_.watch_readable(
        frontend_->event_fd(),
        [](void* self) noexcept { static_cast<Rig*>(self)->frontend_->poll(); }, this);
    frontend_->on_completion([this](const FakeFrontend::Completion&) { ++completed_; });
    vbd_ = std::move(VbdQueue::open(reactor_, turn_, *dispatcher_, disk_,
                                    ring_parameters(*frontend_), {.name = "bench"}, *this)
                         .value());
  }
  ~Rig() {
    vbd_->close([](void* self) noexcept { static_cast<Rig*>(self)->vbd_.reset(); }, this);
    reactor_.run_until_idle();
    bell_.reset();
    frontend_.reset();
  }
  void on_queue_broken(VbdQueue&, const Error&) noexcept override { std::abort(); }

  FakeFrontend& frontend() { return *frontend_; }
  void run_batch(std::uint64_t requests) {
    const std::uint64_t goal = completed_ + requests;
    frontend_->push();
    if (!reactor_.run_until([this, goal] { return completed_ == goal; })) {
      std::abort();
    }
  }

 private:
  static Geometry geometry() {
    Geometry geometry;
    geometry.sector_count = 65536;
    return geometry;
  }

  MemXen xen_;
  SimReactor reactor_{1};
  std::unique_ptr<GrantTable> grants_ = xen_.grants().open(0);
  std::unique_ptr<EventChannels> channels_ = xen_.events().open(0);
  std::optional<EventDispatcher> dispatcher_{std::in_place, reactor_, *channels_};
  RingTurn turn_{reactor_, *grants_};
  MemoryDisk disk_{reactor_, geometry()};
  std::optional<FakeFrontend> frontend_;
  std::unique_ptr<FdWatch> bell_;
  std::unique_ptr<VbdQueue> vbd_;
  std::uint64_t completed_ = 0;
};

void guest_reads(benchmark::State& state) {
  const auto depth = static_cast<std::uint64_t>(state.range(0));
  const auto sectors = static_cast<std::uint32_t>(state.range(1) / 512);
  Rig rig;
  for (auto _ : state) {
    for (std::uint64_t number = 0; number < depth; ++number) {
      rig.frontend().read(number * sectors, sectors);
    }
    rig.run_batch(depth);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
  state.SetBytesProcessed(state.iterations() * state.range(0) * state.range(1));
}
BENCHMARK(guest_reads)->ArgNames({"depth", "bytes"})->ArgsProduct({{1, 32}, {4096, 45056}});

void guest_writes(benchmark::State& state) {
  const auto depth = static_cast<std::uint64_t>(state.range(0));
  const std::vector<std::byte> data(static_cast<std::size_t>(state.range(1)));
  Rig rig;
  for (auto _ : state) {
    for (std::uint64_t number = 0; number < depth; ++number) {
      rig.frontend().write(number * data.size() / 512, data);
    }
    rig.run_batch(depth);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
  state.SetBytesProcessed(state.iterations() * state.range(0) * state.range(1));
}
BENCHMARK(guest_writes)->ArgNames({"depth", "bytes"})->ArgsProduct({{1, 32}, {4096, 45056}});

}  // namespace
}  // namespace iscsi_blkback
