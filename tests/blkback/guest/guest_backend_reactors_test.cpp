// A guest's disks over several reactors (here planes of one simulated reactor: what their threads do
// is guest_threads_test's).
#include <gmock/gmock.h>

#include <map>
#include <set>

#include "blkback/guest/spread_data_plane.h"
#include "multipath/attach/session_isid.h"
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;

TEST(PlaneOf, TakesDisksInTheOrderOfTheirNames) {
  std::vector<std::size_t> planes;
  for (const std::uint32_t xvd : {51712U, 51728U, 51744U, 51760U}) {  // xvda to xvdd
    planes.push_back(plane_of(xvd, 3));
  }
  EXPECT_EQ(planes[1], (planes[0] + 1) % 3);
  EXPECT_EQ(planes[2], (planes[0] + 2) % 3);
  EXPECT_EQ(planes[3], planes[0]);
}

TEST(PlaneOf, OfDisksBeyondTheSixteenthGoesOn) {
  constexpr std::uint32_t kXvdq = (1U << 28) | (16U << 8);
  EXPECT_EQ(plane_of(kXvdq + 256, 4), (plane_of(kXvdq, 4) + 1) % 4);
  EXPECT_EQ(plane_of(kXvdq + 1, 4), plane_of(kXvdq, 4)) << "a partition is its disk's";
}

TEST(PlaneOf, IsTheOnlyOne) {
  EXPECT_EQ(plane_of(51728, 1), 0U);
  EXPECT_EQ(plane_of(~0U, 1), 0U);
}

class GuestBackendReactors : public GuestBackendTest {
 protected:
  GuestBackendReactors() {
    place_ = {0, 2};
    for (FakeDisk* disk : {&first_, &second_}) {
      toolstack_.add(*disk);
    }
  }
  ~GuestBackendReactors() override {
    // The backend must not outlive what it uses.
    halt_guests();
    if (!finished_) {
      end_guest(DomainLife::gone);
      EXPECT_TRUE(reactor_.run_until([&] { return finished_; }, 60s));
    }
    backend_.reset();
  }
  DataPlane& data_plane() override {
    spread_.reset();
    other_ = std::make_unique<GuestDataPlane>(reactor_, reactor_, *grants_, *other_channels_,
                                              DomainId{0}, kGuest, barriers_.path(), std::nullopt,
                                              "", nullptr, ReactorPlace{1, 2});
    spread_.emplace(std::vector<DataPlane*>{plane_.get(), other_.get()});
    return *spread_;
  }
  void serve_both() {
    start();
    for (FakeDisk* disk : {&first_, &second_}) {
      ASSERT_TRUE(connect(boot(*disk)));
    }
  }
  // By which sessions LUNs are reached, by LUN.
  void note_isids() {
    target_.inject({.matches =
                        [this](const SimCommand& command) {
                          isids_[command.lun].insert(command.isid);
                          return false;
                        },
                    .count = 0});
  }
  GuestStatus status() {
    GuestStatus status;
    bool told = false;
    backend_->query([&](GuestStatus answer) {
      status = std::move(answer);
      told = true;
    });
    EXPECT_TRUE(run_until([&] { return told; }));
    return status;
  }

  const std::unique_ptr<EventChannels> other_channels_ = xen_.events().open(0);
  FakeDisk first_ = disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1");
  FakeDisk second_ = second_disk();
  std::map<std::uint16_t, std::set<Isid>> isids_;
  std::unique_ptr<GuestDataPlane> other_;
  std::optional<SpreadDataPlane> spread_;
};

TEST_F(GuestBackendReactors, EachHasItsOwnDisksAndSessions) {
  note_isids();
  serve_both();
  EXPECT_EQ(target_.sessions(), 2U) << "one alone would have one";
  for (auto& frontend : frontends_) {
    do_io(*frontend);
  }
  ASSERT_EQ(isids_[1].size(), 1U);
  ASSERT_EQ(isids_[2].size(), 1U);
  target_.clear_faults();
  SessionOptions session;
  session.target_name = kTargetName;
  session.portal = SocketAddress::parse("192.0.2.1", 3260).value();
  EXPECT_EQ(isids_[1], std::set{make_isid(0, kGuest, session, 0, 0, "", {0, 2})});
  EXPECT_EQ(isids_[2], std::set{make_isid(0, kGuest, session, 0, 0, "", {1, 2})});
}

TEST_F(GuestBackendReactors, TheStatusHasTheDisksOfAll) {
  serve_both();
  const GuestStatus all = status();
  EXPECT_TRUE(all.complete);
  ASSERT_EQ(all.disks.size(), 2U);
  for (const DiskStatus& disk : all.disks) {
    ASSERT_TRUE(disk.report);
    EXPECT_EQ(disk.report->multipath.paths.size(), 1U);
    EXPECT_TRUE(disk.report->ring);
  }
}

TEST_F(GuestBackendReactors, AllStopWhenTheGuestIsSuspended) {
  serve_both();
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(100ms);
  for (auto& frontend : frontends_) {
    ASSERT_TRUE(frontend->read(0, 8));
    frontend->push();
  }
  std::size_t commands = 0;
  target_.inject({.matches =
                      [&commands](const SimCommand& command) {
                        commands += is_read(command) ? 1 : 0;
                        return false;
                      },
                  .count = 0});
  run_for(10s);
  EXPECT_EQ(commands, 0U);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  EXPECT_TRUE(run_until([&] { return commands == 2; }));
  target_.clear_faults();
}

TEST_F(GuestBackendReactors, TheNextProcessHasTheSameSessions) {
  note_isids();
  serve_both();
  const auto before = isids_;
  const auto frontends_say = [this](const char* state) {
    for (const FakeDisk* disk : {&first_, &second_}) {
      ASSERT_TRUE(toolstack_.store().write(disk->frontend_path() + "/state", state));
    }
  };
  halt_guests();
  frontends_say("6");
  ASSERT_TRUE(reaches_state(first_, 6) && reaches_state(second_, 6));
  backend_->stop();
  ASSERT_TRUE(ends());
  forget_process();
  other_.reset();
  isids_.clear();
  start();
  frontends_say("1");
  ASSERT_TRUE(run_until([&] { return isids_.size() == 2; }));
  EXPECT_EQ(isids_, before);
  target_.clear_faults();
}

TEST_F(GuestBackendReactors, ADiskGoesWhileTheOtherStays) {
  serve_both();
  toolstack_.request_detach(first_);
  ASSERT_TRUE(reaches_state(first_, 6));
  EXPECT_EQ(target_.sessions(), 1U);
  do_io(*frontends_[1]);
}

}  // namespace
}  // namespace iscsi_blkback
