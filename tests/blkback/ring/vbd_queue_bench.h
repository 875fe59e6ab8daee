// Bench: one guest with one disk, a VbdQueue over a disk in memory, on one simulated reactor.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blkback/ring/vbd_queue.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/mem_xen.h"
#include "tests/support/memory_disk.h"
#include "tests/support/ring_parameters.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

inline constexpr std::uint64_t kDiskSectors = 4096;

inline std::vector<std::byte> pattern(std::size_t bytes, std::uint32_t seed) {
  std::vector<std::byte> data(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    data[i] = static_cast<std::byte>((i * 7 + i / 512 * 13 + seed) & 0xff);
  }
  return data;
}

inline Geometry geometry() {
  Geometry geometry;
  geometry.sector_count = kDiskSectors;
  return geometry;
}

class Bench final : public VbdQueue::Owner {
 public:
  explicit Bench(FakeFrontend::Options options = {}, std::uint64_t seed = 1)
      : reactor(seed),
        grants(xen.grants().open(options.backend)),
        channels(xen.events().open(options.backend)),
        events(std::in_place, reactor, *channels),
        turn(std::in_place, reactor, *grants),
        memory(reactor, geometry()),
        disk(reactor, memory),
        frontend(std::in_place, xen, options) {
    frontend->set_up_ring();
    guest_bell_ = reactor.watch_readable(
        frontend->event_fd(),
        [](void* owner) noexcept { static_cast<Bench*>(owner)->frontend->poll(); }, this);
  }

  ~Bench() {
    if (vbd != nullptr) {
      close_and_run();
    }
    guest_bell_.reset();
    frontend.reset();
  }

  Result<void> connect(VbdOptions options = {}) {
    options.name = "xvda of guest 1";
    Result<std::unique_ptr<VbdQueue>> opened =
        VbdQueue::open(reactor, *turn, *events, disk, ring_parameters(*frontend), options, *this);
    if (!opened) {
      return tl::unexpected(opened.error());
    }
    vbd = std::move(*opened);
    return {};
  }

  void close() {
    vbd->close(
        [](void* owner) noexcept {
          Bench& bench = *static_cast<Bench*>(owner);
          ++bench.closed;
          bench.vbd.reset();
        },
        this);
  }

  void close_and_run() {
    close();
    disk.release();
    ASSERT_TRUE(reactor.run_until([this] { return vbd == nullptr; }, std::chrono::seconds(10)));
    reactor.run_until_idle();
  }

  // Pushes, runs until everything is quiet, and takes the answer to one request.
  FakeFrontend::Answer answer(std::optional<FakeFrontend::RequestId> id) {
    EXPECT_TRUE(id.has_value());
    frontend->push();
    std::optional<FakeFrontend::Answer> answer;
    (void)reactor.run_until(
        [&] {
          answer = frontend->take_completion(id.value_or(0));
          return answer.has_value();
        },
        std::chrono::seconds(10));
    reactor.run_until_idle();
    EXPECT_TRUE(answer.has_value()) << "no answer";
    return answer.value_or(FakeFrontend::Answer{99, 99, {}});
  }

  void on_queue_broken(VbdQueue& /*queue*/, const Error& error) noexcept override {
    broken.push_back(error.message);
  }

  MemXen xen;
  SimReactor reactor;
  std::unique_ptr<GrantTable> grants;
  std::unique_ptr<MemEventChannels> channels;
  std::optional<EventDispatcher> events;
  std::optional<RingTurn> turn;
  MemoryDisk memory;
  FaultyDisk disk;
  std::optional<FakeFrontend> frontend;
  std::unique_ptr<VbdQueue> vbd;
  std::vector<std::string> broken;
  int closed = 0;

 private:
  std::unique_ptr<FdWatch> guest_bell_;
};

inline BlkifRequest raw_read(std::uint64_t sector, GrantReference reference) {
  BlkifRequest request{};
  request.operation = kBlkifRead;
  request.segment_count = 1;
  request.sector = sector;
  request.segments[0] = BlkifSegment{reference, 0, 7, 0};
  return request;
}

}  // namespace iscsi_blkback
