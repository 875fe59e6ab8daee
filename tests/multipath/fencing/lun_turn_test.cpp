// Disks of one host at one LUN: which of them may use it, and what the others are told.
#include "multipath/fencing/lun_turn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/log.h"
#include "multipath/fencing/shared_fencing.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::HasSubstr;

// A disk without paths: nothing of it is ever outstanding.
class Disk final : public LunTurn::Owner {
 public:
  Disk(SimReactor& reactor, LunTurn::Options options)
      : fencing_(reactor),
        log_(reactor, options.holder_name),
        steps_(
            reactor, [](void* self) noexcept { static_cast<Disk*>(self)->settle(); }, this),
        turn(reactor, std::move(options), fencing_, paths_, steps_, log_, *this) {
    names_.designators = {{.code_set = 1, .type = 3, .bytes = "\x60" + std::string(15, 'a')}};
  }
  ~Disk() { turn.leave(); }

  void enter(bool read_only = false) {
    turn.enter(names_, "iqn.test", 0, SerialNumberIs::the_luns, read_only);
  }
  [[nodiscard]] const LunNames& names() const override { return names_; }
  [[nodiscard]] PortalGroupFences portal_group_fences() const noexcept override {
    return PortalGroupFences::no;
  }
  void on_overtaken() noexcept override { ++overtaken; }

 private:
  void settle() {
    while (const auto step = steps_.take_next({})) {
      steps.push_back(*step);
    }
  }

  SharedFencing fencing_;
  PathSet paths_;
  DiskLog log_;
  DiskSteps steps_;
  LunNames names_;

 public:
  std::vector<DiskStep> steps;
  int overtaken = 0;
  LunTurn turn;
};

class LunTurnTest : public testing::Test {
 protected:
  LunTurnTest() { set_log_level(LogLevel::error); }

  LunTurn::Options options(const std::string& name, bool shared = false) {
    return {.directory = folder_.path() + "/barrier",
            .holder_name = name,
            .shared = shared,
            .quiesce_time = seconds(60),
            .host_started_at = std::nullopt};
  }

  SimReactor reactor_{1};
  TemporaryFolder folder_;
};

TEST_F(LunTurnTest, ADiskThatIsAloneUsesItsLunAtOnce) {
  Disk disk(reactor_, options("one"));
  disk.enter();
  EXPECT_FALSE(disk.turn.must_wait());
  EXPECT_EQ(disk.turn.why(), "");
}

TEST_F(LunTurnTest, ASecondDiskWaitsUntilTheFirstHasEnded) {
  Disk first(reactor_, options("one"));
  first.enter();
  Disk second(reactor_, options("two"));
  second.enter();
  EXPECT_TRUE(second.turn.must_wait());
  EXPECT_THAT(second.turn.why(), HasSubstr("in use by one"));
  reactor_.run_for(seconds(100));
  EXPECT_TRUE(second.turn.waits());
  EXPECT_FALSE(first.turn.must_wait());
  first.turn.set_guest({.state = GuestState::ended, .vm = 0});
  reactor_.run_for(seconds(1));
  EXPECT_FALSE(second.turn.waits());
  EXPECT_THAT(second.steps, Contains(DiskStep::release_held));
}

TEST_F(LunTurnTest, DisksThatAreBothSharedDoNotWait) {
  Disk first(reactor_, options("one", true));
  first.enter();
  Disk second(reactor_, options("two", true));
  second.enter();
  EXPECT_FALSE(second.turn.must_wait());
}

TEST_F(LunTurnTest, ADiskThatOnlyReadsNeitherWaitsNorIsWaitedFor) {
  Disk reader(reactor_, options("reader"));
  reader.enter(true);
  Disk writer(reactor_, options("writer"));
  writer.enter();
  Disk another_reader(reactor_, options("another"));
  another_reader.enter(true);
  EXPECT_FALSE(writer.turn.must_wait());
  EXPECT_FALSE(another_reader.turn.must_wait());
}

TEST_F(LunTurnTest, WithoutADirectoryNobodyIsWaitedFor) {
  LunTurn::Options alone = options("one");
  alone.directory.clear();
  Disk first(reactor_, alone);
  first.enter();
  Disk second(reactor_, alone);
  second.enter();
  EXPECT_FALSE(second.turn.must_wait());
}

TEST_F(LunTurnTest, ADiskThatCannotTellOthersIsNotServed) {
  LunTurn::Options nowhere = options("one");
  nowhere.directory = "/proc/nowhere";
  Disk disk(reactor_, nowhere);
  disk.enter();
  EXPECT_TRUE(disk.turn.must_wait());
  EXPECT_THAT(disk.turn.why(), HasSubstr("cannot be kept in order"));
}

TEST_F(LunTurnTest, AfterAResetOfTheHostQuiesceTimeIsWaitedFor) {
  LunTurn::Options fresh = options("one");
  fresh.host_started_at = reactor_.now();
  Disk disk(reactor_, fresh);
  disk.enter();
  EXPECT_THAT(disk.turn.why(), HasSubstr("this host has run for quiesce_time (60 s)"));
  reactor_.run_for(seconds(59));
  EXPECT_TRUE(disk.turn.waits());
  reactor_.run_for(seconds(2));
  EXPECT_FALSE(disk.turn.waits());
}

TEST_F(LunTurnTest, WhatKeepsADiskWaitingIsToldWhenItChanges) {
  Disk first(reactor_, options("one"));
  first.enter();
  Disk second(reactor_, options("two"));
  second.enter();
  reactor_.run_for(milliseconds(1));
  EXPECT_THAT(second.steps, Contains(DiskStep::tell));
}

}  // namespace
}  // namespace iscsi_blkback
