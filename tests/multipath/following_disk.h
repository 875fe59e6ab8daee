// FollowingDisk: tests of disks of one host that lead to the same LUN: device_ of MultipathTest,
// and others beside it or after it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/multipath/multipath_fixture.h"
#include "tests/support/blocking_barrier.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {

// Another disk: a device of its own, and its requests.
class OtherDisk final : public MultipathDevice::Observer {
 public:
  OtherDisk(SimReactor& reactor, SharedFencing& fencing, const MultipathOptions& options)
      : reactor_(reactor),
        device_(std::make_unique<MultipathDevice>(reactor, fencing, options, *this)) {}
  ~OtherDisk() { close(); }

  [[nodiscard]] MultipathDevice& device() { return *device_; }
  [[nodiscard]] int ready_calls() const { return ready_calls_; }

  GuestRequest& write(std::uint64_t sector, int fill) {
    return submit(BlockOperation::write, sector, fill);
  }
  GuestRequest& read(std::uint64_t sector) { return submit(BlockOperation::read, sector, 0); }
  GuestRequest& flush() { return submit(BlockOperation::flush, 0, 0); }

  GuestRequest& submit(BlockOperation operation, std::uint64_t sector, int fill) {
    GuestRequest& request = *requests_.emplace_back(std::make_unique<GuestRequest>());
    request.reactor = &reactor_;
    request.submitted_at = reactor_.now();
    request.data.assign(std::size_t{8} * kSectorBytes, static_cast<std::byte>(fill));
    request.block.operation = operation;
    request.block.sector = sector;
    if (operation != BlockOperation::flush) {
      request.block.sector_count = 8;
      request.block.data = request.data.data();
    }
    request.block.owner = &request;
    request.block.on_complete = [](BlockRequest& block, IoStatus status) noexcept {
      auto& completed = *static_cast<GuestRequest*>(block.owner);
      ++completed.completions;
      completed.status = status;
      completed.completed_at = completed.reactor->now();
    };
    device_->submit(request.block);
    return request;
  }

  void begin_close(bool wait_for_fences) {
    closing_ = true;
    device_->close(
        wait_for_fences, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed_);
  }
  [[nodiscard]] bool closed() const { return closed_; }
  void close() {
    if (!closing_) {
      begin_close(false);
    }
    EXPECT_TRUE(reactor_.run_until([this] { return closed_; }, seconds(200)));
    device_.reset();
  }

 private:
  void on_ready(MultipathDevice& /*device*/) noexcept override { ++ready_calls_; }
  void on_paths_changed(MultipathDevice& /*device*/) noexcept override {}

  SimReactor& reactor_;
  std::unique_ptr<MultipathDevice> device_;
  std::vector<std::unique_ptr<GuestRequest>> requests_;
  int ready_calls_ = 0;
  bool closing_ = false;
  bool closed_ = false;
};

class FollowingDisk : public MultipathTest {
 protected:
  FollowingDisk() { options_.barrier_directory = folder_.path(); }

  // The next disk at the LUN of device_, with a path by each of these sessions; ready, if it is not
  // kept from that.
  std::unique_ptr<OtherDisk> follow(const std::vector<Session*>& sessions) {
    MultipathOptions options = options_;
    options.holder_name = "the next disk";
    auto next = std::make_unique<OtherDisk>(reactor_, fencing_, options);
    for (Session* session : sessions) {
      EXPECT_TRUE(next->device().add_path(*session, 0));
    }
    EXPECT_TRUE(reactor_.run_until(
        [&] { return next->device().snapshot().paths_up() == sessions.size(); }, seconds(5)));
    return next;
  }

  // As that of MultipathTest: here a request may be held first until the others have been looked at.
  template <typename Ask>
  GuestRequest& at_path(std::size_t at, Ask ask) {
    return MultipathTest::at_path(at, [&]() -> GuestRequest& {
      GuestRequest& request = ask();
      if (device_->snapshot().held != 0) {
        reactor_.run_for(Duration::zero());
      }
      return request;
    });
  }

  // What the disks at the LUN tell each other; device_ is the first of them.
  BarrierFile barrier_file() {
    auto file = BarrierFile::open(folder_.path(), lun_barrier_key(barrier_name_of(device_->names()),
                                                                  target_options_.name, 0));
    EXPECT_TRUE(file);
    return std::move(*file);
  }

  // Another shared disk at the LUN of device_, without a device.
  BlockingBarrier enter_beside() {
    auto barrier = BlockingBarrier::enter(
        folder_.path(), lun_barrier_key(barrier_name_of(device_->names()), target_options_.name, 0),
        {.name = "beside", .shared = true, .quiesce_time = options_.quiesce_time});
    EXPECT_TRUE(barrier);
    return std::move(*barrier);
  }

  TemporaryFolder folder_;
};

}  // namespace iscsi_blkback
