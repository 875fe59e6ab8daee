// The keys that paths register at a real target, read by a session beside them: they are taken back
// when a path and when the disk ends.
#include <gmock/gmock.h>

#include "base/log.h"
#include "multipath/fencing/shared_fencing.h"
#include "multipath/multipath_device.h"
#include "tests/initiator/targets/target_fixture.h"

namespace iscsi_blkback {
namespace {

class ReservationKeyTarget : public TgtTest, public MultipathDevice::Observer {
 protected:
  void SetUp() override {
    set_log_level(LogLevel::error);
    TgtTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    MultipathOptions multipath;
    multipath.alias = "disk";
    multipath.reservation_key = 0x5a0000;
    fencing_.emplace(*reactor);
    device_ = std::make_unique<MultipathDevice>(*reactor, *fencing_, multipath, *this);
    for (std::uint8_t path = 0; path < 2; ++path) {
      SessionOptions other = options;
      other.isid = {0x80, 0, 0, 1, 0, static_cast<std::uint8_t>(path + 2)};
      sessions_.push_back(std::make_unique<Session>(*reactor, other));
      ASSERT_TRUE(device_->add_path(*sessions_.back(), TgtProcess::kLun));
      sessions_.back()->start();
    }
    ASSERT_TRUE(logged_in());
    ASSERT_TRUE(identify());
    ASSERT_TRUE(run_until([this] { return device_->snapshot().paths_up() == 2; }));
    ASSERT_TRUE(run_until([this] { return keys().size() == 2; }));
  }

  void TearDown() override {
    close_device();
    std::size_t stopped = 0;
    for (const std::unique_ptr<Session>& each : sessions_) {
      each->stop([](void* count) noexcept { ++*static_cast<std::size_t*>(count); }, &stopped);
    }
    if (reactor) {
      EXPECT_TRUE(run_until([&] { return stopped == sessions_.size(); }));
    }
    TgtTest::TearDown();
  }

  void close_device() {
    if (device_ == nullptr) {
      return;
    }
    bool closed = false;
    device_->close(
        false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
    EXPECT_TRUE(run_until([&] { return closed; }));
    device_.reset();
  }

  [[nodiscard]] std::vector<std::uint64_t> keys() {
    Io io;
    io.data.resize(512);
    unit->prepare_reserve_in(io.task, ReserveInAction::read_keys, io.data);
    io.task.owner = &io;
    io.task.on_complete = [](ScsiTask& completed) noexcept {
      static_cast<Io*>(completed.owner)->done = true;
    };
    session->submit(io.task);
    EXPECT_TRUE(run(io));
    const auto parsed = parse_reservation_keys(std::span{io.data}.first(io.task.transferred_bytes));
    EXPECT_TRUE(parsed) << sense_text(io.task.sense);
    return parsed ? parsed->keys : std::vector<std::uint64_t>();
  }

  void on_ready(MultipathDevice&) noexcept override {}
  void on_paths_changed(MultipathDevice&) noexcept override {}
  void on_path_removed(MultipathDevice&, Session&) noexcept override { ++removed_; }

  std::optional<SharedFencing> fencing_;
  std::unique_ptr<MultipathDevice> device_;
  std::vector<std::unique_ptr<Session>> sessions_;
  int removed_ = 0;
};

TEST_F(ReservationKeyTarget, ARemovedPathAndAClosedDiskTakeTheirKeysBack) {
  ASSERT_THAT(keys(), testing::UnorderedElementsAre(0x5a00000000010002, 0x5a00000000010003));
  ASSERT_TRUE(device_->remove_path(*sessions_[0], TgtProcess::kLun));
  ASSERT_TRUE(run_until([this] { return removed_ == 1; }));
  EXPECT_THAT(keys(), testing::ElementsAre(0x5a00000000010003));
  close_device();
  EXPECT_THAT(keys(), testing::IsEmpty());
}

}  // namespace
}  // namespace iscsi_blkback
