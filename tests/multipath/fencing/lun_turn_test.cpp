// Disks of one host at one LUN: which of them may use it, and what the others are told.
#include "multipath/fencing/lun_turn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "multipath/fencing/shared_fencing.h"
#include "tests/support/blocking_barrier.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// The other thread, which does nothing unless it is told to.
class HeldJobs final : public BarrierJobs {
 public:
  void run(std::unique_ptr<BarrierJob> job) override { out_.push_back(std::move(job)); }
  [[nodiscard]] std::size_t out() const { return out_.size(); }
  void work() {
    for (const auto& job : out_) {
      job->work();
    }
  }
  void hand_back() {
    for (const auto& job : std::exchange(out_, {})) {
      job->done();
    }
  }
  void finish() {
    work();
    hand_back();
  }

 private:
  std::vector<std::unique_ptr<BarrierJob>> out_;
};

// A disk without paths: nothing of it is ever outstanding.
class Disk final : public LunTurn::Owner {
 public:
  Disk(SimReactor& reactor, LunTurn::Options options, BarrierJobs* jobs = nullptr)
      : fencing_(reactor, jobs),
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
  void learn(const std::string& t10_name) {
    turn.learn({.designators = {{.code_set = 2, .type = 1, .bytes = t10_name}}}, "iqn.test",
               SerialNumberIs::the_luns);
  }
  [[nodiscard]] std::string key() const {
    return lun_barrier_key(barrier_name_of(names_), "iqn.test", 0);
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
      if (*step == DiskStep::look_at_others) {
        turn.look();
      }
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

  // Another disk at the LUN of this one, as another process has it, with these writes lost.
  BlockingBarrier end_beside(const Disk& disk, PathMask unfenced) {
    auto beside = BlockingBarrier::enter(
        options("").directory, disk.key(),
        {.name = "beside", .shared = true, .quiesce_time = seconds(60)}, reactor_.now());
    EXPECT_TRUE(beside);
    beside->set_use(HolderUse::ended, 0, {});
    beside->set_unfenced(unfenced, false, reactor_.now() + seconds(60));
    return std::move(*beside);
  }
  // No time passes.
  void end_turn() { reactor_.run_for({}); }

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

// ---- what a request finds

TEST_F(LunTurnTest, ARequestThatFindsAChangeWaitsForTheLookOfThisTurn) {
  Disk disk(reactor_, options("one", true));
  disk.enter();
  end_turn();
  EXPECT_FALSE(disk.turn.must_wait());
  auto beside = end_beside(disk, 0);
  disk.steps.clear();
  EXPECT_TRUE(disk.turn.must_wait());
  EXPECT_TRUE(disk.turn.must_wait()) << "it has not been looked at yet";
  EXPECT_FALSE(disk.turn.waits());
  end_turn();
  EXPECT_FALSE(disk.turn.must_wait());
  EXPECT_THAT(disk.steps, ElementsAre(DiskStep::look_at_others, DiskStep::release_held));
  beside.leave();
}

TEST_F(LunTurnTest, ARequestDoesNotLookItself) {
  Disk disk(reactor_, options("one", true));
  disk.enter();
  end_turn();
  auto beside = end_beside(disk, path_bit(0));
  EXPECT_TRUE(disk.turn.must_wait());
  EXPECT_EQ(disk.turn.why(), "");
  disk.steps.clear();
  end_turn();
  EXPECT_TRUE(disk.turn.must_wait());
  EXPECT_THAT(disk.turn.why(), HasSubstr("no write of beside"));
  EXPECT_THAT(disk.steps, Not(Contains(DiskStep::release_held)));
  beside.leave();
}

TEST_F(LunTurnTest, WhereALookIsWantedNothingPassesBeforeIt) {
  Disk disk(reactor_, options("one"));
  disk.enter();
  end_turn();
  disk.steps.clear();
  disk.turn.want_look();
  EXPECT_TRUE(disk.turn.must_wait());
  end_turn();
  EXPECT_FALSE(disk.turn.must_wait());
  EXPECT_THAT(disk.steps, Contains(DiskStep::release_held));
}

// ---- what another thread does for a disk

TEST_F(LunTurnTest, ADiskWaitsWithoutAWordUntilItHasEntered) {
  HeldJobs jobs;
  Disk disk(reactor_, options("one"), &jobs);
  disk.enter();
  EXPECT_TRUE(disk.turn.must_wait());
  EXPECT_EQ(disk.turn.why(), "");
  jobs.work();
  reactor_.run_for(seconds(10));
  EXPECT_TRUE(disk.turn.must_wait());
  disk.steps.clear();
  jobs.hand_back();
  EXPECT_FALSE(disk.turn.must_wait());
  reactor_.run_for(milliseconds(1));
  EXPECT_THAT(disk.steps, Contains(DiskStep::tell));
}

TEST_F(LunTurnTest, ADiskHasOneJobAtATimeAndIsNotIdleMeanwhile) {
  HeldJobs jobs;
  Disk disk(reactor_, options("one"), &jobs);
  EXPECT_TRUE(disk.turn.idle());
  disk.enter();
  EXPECT_FALSE(disk.turn.idle());
  jobs.finish();
  EXPECT_TRUE(disk.turn.idle());
  reactor_.run_for(seconds(100));
  EXPECT_EQ(jobs.out(), 1U);
  EXPECT_FALSE(disk.turn.idle());
  jobs.finish();
  EXPECT_TRUE(disk.turn.idle());
}

TEST_F(LunTurnTest, ADiskThatIsClosedWhileItEntersIsNotInTheWayOfOthers) {
  HeldJobs jobs;
  Disk disk(reactor_, options("one"), &jobs);
  disk.enter();
  disk.turn.close();
  disk.steps.clear();
  jobs.finish();
  reactor_.run_for(milliseconds(1));
  EXPECT_THAT(disk.steps, Contains(DiskStep::finish_removals));
  EXPECT_TRUE(disk.turn.idle());
  disk.turn.leave();
  Disk next(reactor_, options("two"));
  next.enter();
  EXPECT_FALSE(next.turn.must_wait());
}

TEST_F(LunTurnTest, WhileAJobIsOutAChangeIsLookedAtAllTheSame) {
  HeldJobs jobs;
  Disk first(reactor_, options("one", true), &jobs);
  first.enter();
  jobs.finish();
  reactor_.run_for(seconds(2));
  ASSERT_EQ(jobs.out(), 1U);
  EXPECT_FALSE(first.turn.must_wait());
  auto second = end_beside(first, path_bit(0));
  EXPECT_TRUE(first.turn.must_wait());
  end_turn();
  EXPECT_TRUE(first.turn.waits());
  EXPECT_EQ(jobs.out(), 1U);
  second.set_unfenced(0, false, {});
  EXPECT_TRUE(first.turn.must_wait());
  end_turn();
  EXPECT_FALSE(first.turn.must_wait());
  second.leave();
  jobs.finish();
}

TEST_F(LunTurnTest, WhoeverKnowsANewNameOfItsLunWaitsUntilItIsTold) {
  HeldJobs jobs;
  Disk disk(reactor_, options("one"), &jobs);
  disk.enter();
  jobs.finish();
  EXPECT_FALSE(disk.turn.must_wait());
  disk.learn("SIM     one");
  EXPECT_TRUE(disk.turn.must_wait());
  jobs.finish();
  EXPECT_FALSE(disk.turn.must_wait());
  reactor_.run_for(milliseconds(1));
  EXPECT_THAT(disk.steps, Contains(DiskStep::release_held));
  EXPECT_EQ(jobs.out(), 0U);
}

TEST_F(LunTurnTest, ANameThatIsLearntWhileAJobIsOutIsToldByTheNext) {
  HeldJobs jobs;
  Disk disk(reactor_, options("one"), &jobs);
  disk.enter();
  disk.learn("SIM     one");
  jobs.finish();
  EXPECT_EQ(jobs.out(), 1U);
  EXPECT_TRUE(disk.turn.must_wait());
  jobs.work();
  disk.learn("SIM     two");
  jobs.hand_back();
  EXPECT_EQ(jobs.out(), 1U);
  EXPECT_TRUE(disk.turn.must_wait());
  jobs.finish();
  EXPECT_FALSE(disk.turn.must_wait());
  EXPECT_EQ(jobs.out(), 0U);
  const auto file = BarrierFile::open(options("one").directory, disk.key());
  ASSERT_TRUE(file);
  EXPECT_EQ(file->names().known.size(), 3U);
}

TEST_F(LunTurnTest, AGuestThatIsResumedWaitsUntilItsFileHasBeenLookedFor) {
  HeldJobs jobs;
  Disk disk(reactor_, options("one"), &jobs);
  disk.enter();
  jobs.finish();
  disk.turn.set_guest({.state = GuestState::suspended, .vm = 0});
  reactor_.run_for(seconds(2));
  ASSERT_EQ(jobs.out(), 1U);  // of before
  jobs.work();
  disk.turn.set_guest({.state = GuestState::runs, .vm = 0});
  EXPECT_TRUE(disk.turn.must_wait());
  jobs.hand_back();
  EXPECT_TRUE(disk.turn.must_wait());
  jobs.finish();
  EXPECT_FALSE(disk.turn.must_wait());
}

TEST_F(LunTurnTest, ADiskWhoseFileIsRemovedMovesWithWhatItHasToldMeanwhile) {
  HeldJobs jobs;
  Disk disk(reactor_, options("one"), &jobs);
  disk.enter();
  jobs.finish();
  std::filesystem::remove_all(folder_.path() + "/barrier");
  reactor_.run_for(seconds(2));
  jobs.work();
  disk.turn.set_guest({.state = GuestState::ended, .vm = 0});
  disk.turn.tell_unfenced({.paths = 1}, reactor_.now() + seconds(60));
  jobs.hand_back();
  auto next = BlockingBarrier::enter(options("one").directory, disk.key(),
                                     {.name = "two", .quiesce_time = seconds(60)}, reactor_.now());
  ASSERT_TRUE(next);
  EXPECT_THAT(next->look(reactor_.now()).late_writes_of, HasSubstr("one"));
  disk.turn.tell_unfenced({}, {});
  EXPECT_TRUE(next->look(reactor_.now()).may_write());
  next->leave();
  jobs.finish();
}

}  // namespace
}  // namespace iscsi_blkback
