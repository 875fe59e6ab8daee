// LunWriteBarrierTest: disks of one host at one LUN, without their devices.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/blocking_barrier.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {

class LunWriteBarrierTest : public testing::Test {
 protected:
  static constexpr TimePoint kNow{std::chrono::hours(100)};
  static constexpr Duration kQuiesceTime = std::chrono::seconds(60);
  static constexpr std::uint64_t kGuest = 5;  // UUIDs
  static constexpr std::uint64_t kAnotherGuest = 6;

  BlockingBarrier enter(const std::string& name = "disk", bool shared = false, TimePoint now = {}) {
    return enter_as({.name = name, .shared = shared, .quiesce_time = kQuiesceTime}, now);
  }
  BlockingBarrier enter_for(std::uint64_t vm, const std::string& name, TimePoint now = {}) {
    return enter_as({.name = name, .vm = vm, .quiesce_time = kQuiesceTime}, now);
  }
  BlockingBarrier enter_in(std::uint32_t domain, std::uint64_t vm, const std::string& name) {
    return enter_as({.name = name, .vm = vm, .domain = domain, .quiesce_time = kQuiesceTime}, kNow);
  }
  // It has the LUN.
  static void write(BlockingBarrier& barrier) {
    EXPECT_TRUE(barrier.look(kNow).may_write());
    barrier.set_outstanding(0, true);
    barrier.set_outstanding(0, false);
  }
  BlockingBarrier enter_as(const BlockingBarrier::Holder& holder, TimePoint now) {
    auto barrier = BlockingBarrier::enter(folder(), "36001405aa", holder, now);
    EXPECT_TRUE(barrier) << barrier.error().message;
    return std::move(*barrier);
  }
  // What its process leaves behind: the kernel closes the file, and nobody says anything.
  static void die(BlockingBarrier& barrier) { barrier = BlockingBarrier(); }

  // What a service that cleans folders does, or an operator.
  void clean() {
    for (const auto& file : files()) {
      std::filesystem::remove(file);
    }
  }
  // The only dead disk's.
  static std::optional<BarrierNexus> nexus_of_dead(BlockingBarrier& later, std::uint32_t path) {
    const auto dead = later.look(kNow).dead;
    EXPECT_THAT(dead, testing::SizeIs(1));
    return later.nexus_of({dead.at(0).slot, dead.at(0).turn, path});
  }

  std::string folder() { return folder_.path() + "/run/barrier"; }
  std::vector<std::filesystem::path> files() {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder())) {
      files.push_back(entry.path());
    }
    return files;
  }

  TemporaryFolder folder_;
};

}  // namespace iscsi_blkback
