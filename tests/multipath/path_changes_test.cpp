// Paths that are added to a disk in use, and removed from it. A session that its path has let go of
// is stopped and freed at once, so that nothing may use it any more.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class PathChanges : public MultipathTest {
 protected:
  PathChanges() { options_.path_selector = PathSelectorKind::round_robin; }

  // Whatever is lost is lost for both sides in the end.
  void TearDown() override {
    for (std::size_t portal = 0; portal < target_options_.portals.size(); ++portal) {
      reactor_.network().set_dropping(portal_address(portal), false);
      accept(portal);
    }
    target_->clear_faults();
    target_->fault_functions(TaskFunction::abort_task_set, std::nullopt);
    if (device_) {
      reactor_.run_for(seconds(5));
      EXPECT_TRUE(wait_for_up(device_->snapshot().paths.size()));
      target_->release_held();
      EXPECT_TRUE(reactor_.run_until([this] { return device_->snapshot().in_flight == 0; }));
    }
  }

  void on_path_removed(MultipathDevice& /*device*/, Session& session) noexcept override {
    ++removed_;
    removed_at_ = reactor_.now();
    if (shared_) {
      return;
    }
    session.stop(
        [](void* self) noexcept {
          auto& test = *static_cast<PathChanges*>(self);
          test.reactor_.schedule({}, [&test] { test.free_stopped(); });
        },
        this);
  }
  void free_stopped() {
    std::erase_if(sessions_, [](const std::unique_ptr<Session>& session) {
      return session->state() == SessionState::free;
    });
  }

  Result<void> remove(std::size_t session) { return device_->remove_path(*sessions_[session], 0); }
  bool wait_for_removal(Duration at_most, int count = 1) {
    return reactor_.run_until([this, count] { return removed_ == count; }, at_most);
  }
  [[nodiscard]] std::uint32_t leaving() const { return device_->snapshot().leaving; }

  GuestRequest& read_at(std::size_t at, std::uint64_t sector) {
    return at_path(at, [&]() -> GuestRequest& { return read(sector, 8); });
  }
  // Writes to places of their own from sector 100 on, the last of them at the path: its place.
  GuestRequest& write_at(std::size_t at, int fill) {
    return at_path(at, [&]() -> GuestRequest& { return write(place_ += 8, 8, fill); });
  }
  // To the network: what waits in the session is taken back when its path is removed.
  void let_be_sent() { reactor_.run_for(std::chrono::microseconds(1)); }
  // A write that stays in the target; it executes it when released, its connection gone or not.
  GuestRequest& write_held_at_first(int fill) {
    hold_next_write_at(0);
    GuestRequest& request = write_at(0, fill);
    EXPECT_TRUE(reactor_.run_until([this] { return target_->held() == 1; }, seconds(1)));
    return request;
  }
  void never_answer(std::function<bool(const SimCommand&)> which, std::uint32_t count = 1) {
    SimFault fault;
    fault.matches = std::move(which);
    fault.count = count;
    fault.answer = false;
    target_->inject(fault);
  }
  void change(PathGroupingPolicy policy, PathSelectorKind selector) {
    PathPolicySettings changes;
    changes.path_grouping_policy = policy;
    changes.path_selector = selector;
    device_->change_policies(changes);
  }
  static std::string refusal(const Result<void>& result) {
    return result ? "" : result.error().message;
  }

  int removed_ = 0;
  bool shared_ = false;  // sessions have other users
  TimePoint removed_at_{};
  std::uint64_t place_ = 100;
};

TEST_F(PathChanges, ARemovedPathTakesNothingNewAndItsSessionIsLetGo) {
  start();
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  }
  ASSERT_TRUE(remove(0));
  EXPECT_EQ(removed_, 0) << "not from inside";
  ASSERT_EQ(device_->snapshot().paths.size(), 1U);
  EXPECT_EQ(path(0).portal, portal_address(1).to_string());
  GuestRequest& next = write(0, 8, 2);
  EXPECT_EQ(path(0).in_flight, 1U);
  EXPECT_EQ(answer(next), IoStatus::ok);
  EXPECT_TRUE(wait_for_removal(milliseconds(1)));
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(target_->sessions_at(0), 0U);
  EXPECT_EQ(target_->counters.logouts, 1U);
  EXPECT_EQ(sessions_.size(), 1U);
  EXPECT_EQ(medium(0), 2);
}

TEST_F(PathChanges, WhatIsOutstandingAtAPathThatWorksIsAnsweredThere) {
  start({1, 2});
  target_->options().command_delay = milliseconds(50);
  GuestRequest& reading = read_at(0, 0);
  GuestRequest& writing = write_at(0, 3);
  const std::uint64_t sector = place_;
  let_be_sent();
  ASSERT_TRUE(remove(0));
  EXPECT_EQ(leaving(), 1U);
  GuestRequest& overlapping = write(sector, 8, 4);
  EXPECT_EQ(device_->snapshot().held, 0U) << "nothing is lost, so nothing has to be fenced";
  EXPECT_EQ(answer(writing, milliseconds(60)), IoStatus::ok);
  EXPECT_EQ(answer(reading, milliseconds(10)), IoStatus::ok);
  EXPECT_EQ(answer(overlapping, milliseconds(60)), IoStatus::ok);
  EXPECT_TRUE(wait_for_removal(milliseconds(60)));
  EXPECT_GE(removed_at_, writing.completed_at);
  EXPECT_EQ(leaving(), 0U);
  EXPECT_EQ(target_->counters.terminated_tasks, 0U);
}

// The connection goes while the path leaves: the write is retried and answered at once, what
// overlaps it waits for the fence, and the session stays for that.
TEST_F(PathChanges, AWriteThatIsLostWhileItsPathLeavesIsFenced) {
  start({1, 2});  // no sibling: only the session's own login fences
  GuestRequest& lost = write_held_at_first(1);
  const std::uint64_t sector = place_;
  ASSERT_TRUE(remove(0));
  reactor_.run_for(milliseconds(10));
  EXPECT_TRUE(pending(lost));
  refuse(0);
  EXPECT_EQ(answer(lost, milliseconds(50)), IoStatus::ok) << "retried elsewhere at once";
  GuestRequest& newer = write(sector + 4, 8, 2);
  GuestRequest& beside = write(sector + 8, 8, 3);
  EXPECT_EQ(answer(beside, milliseconds(50)), IoStatus::ok);
  reactor_.run_for(seconds(20));
  EXPECT_TRUE(pending(newer));
  EXPECT_EQ(removed_, 0);
  EXPECT_EQ(leaving(), 1U);
  EXPECT_EQ(refusal(device_->add_path(*sessions_[0], 0)),
            "disk has the path by 10.0.0.1:3260 already")
      << "as long as it is leaving";

  target_->release_held();  // the late write strikes
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(target_->counters.executed_after_close, 1U);
  accept(0);
  EXPECT_EQ(answer(newer, seconds(3)), IoStatus::ok);
  EXPECT_EQ(medium(sector), 1);
  EXPECT_EQ(medium(sector + 4), 2);
  EXPECT_TRUE(wait_for_removal(milliseconds(10)));
}

TEST_F(PathChanges, ASiblingFencesWhatAPathThatLeavesHasLost) {
  start();
  GuestRequest& lost = write_held_at_first(1);
  const std::uint64_t sector = place_;
  ASSERT_TRUE(remove(0));
  refuse(0);
  EXPECT_EQ(answer(lost, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(answer(write(sector, 8, 2), milliseconds(50)), IoStatus::ok);
  EXPECT_TRUE(wait_for_removal(seconds(1)));
  target_->release_held();
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(target_->counters.executed_after_close, 0U);
  EXPECT_EQ(medium(sector), 2);
  EXPECT_EQ(target_->sessions(), 1U);
}

TEST_F(PathChanges, APathWhosePortalIsGoneForGoodIsGoneAfterTheQuiesceTime) {
  options_.quiesce_time = seconds(20);
  start({1, 2});
  GuestRequest& lost = write_held_at_first(1);
  const std::uint64_t sector = place_;
  refuse(0);
  EXPECT_EQ(answer(lost, milliseconds(50)), IoStatus::ok);
  ASSERT_TRUE(remove(0));  // after the loss
  GuestRequest& newer = write(sector, 8, 2);
  EXPECT_FALSE(wait_for_removal(seconds(19)));
  EXPECT_TRUE(pending(newer));
  EXPECT_TRUE(wait_for_removal(seconds(2)));
  EXPECT_EQ(answer(newer, milliseconds(50)), IoStatus::ok);
}

TEST_F(PathChanges, ADeadPathIsGoneAtOnce) {
  start();
  refuse(0);
  ASSERT_TRUE(wait_for_up(1));
  reactor_.run_for(seconds(5));
  ASSERT_TRUE(remove(0));
  EXPECT_TRUE(wait_for_removal(milliseconds(1)));
}

TEST_F(PathChanges, APathIsRemovedWhileItIsSilent) {
  start({1, 2});
  ASSERT_EQ(answer(write(0, 8, 5)), IoStatus::ok);
  drop_silently(0);
  GuestRequest& reading = read_at(0, 0);
  GuestRequest& writing = write_at(0, 6);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).suspect; }, seconds(1)));
  ASSERT_TRUE(remove(0));
  EXPECT_EQ(answer(reading, milliseconds(50)), IoStatus::ok) << "the hedge has answered";
  EXPECT_LE(reading.took(), milliseconds(250));
  EXPECT_EQ(static_cast<int>(reading.data[0]), 5);
  EXPECT_EQ(answer(writing, seconds(3)), IoStatus::ok) << "after path_timeout";
  EXPECT_EQ(removed_, 0) << "the write is not fenced";
  reactor_.network().set_dropping(portal_address(0), false);
  EXPECT_TRUE(wait_for_removal(seconds(5)));
}

TEST_F(PathChanges, APathBecomesSilentWhileItLeaves) {
  start({1, 2});
  ASSERT_EQ(answer(write(0, 8, 5)), IoStatus::ok);
  drop_silently(0);
  GuestRequest& reading = read_at(0, 0);
  let_be_sent();
  ASSERT_TRUE(remove(0));
  EXPECT_EQ(answer(reading, milliseconds(250)), IoStatus::ok);
  EXPECT_EQ(static_cast<int>(reading.data[0]), 5);
  EXPECT_EQ(removed_, 0) << "the connection still has the buffer of the first command";
  EXPECT_TRUE(wait_for_removal(seconds(3)));
  cut(0);  // the target has not noticed
  restore(0);
}

TEST_F(PathChanges, APathIsRemovedWhileItsCheckIsUnderWay) {
  start();
  never_answer(
      [](const SimCommand& command) { return command.portal == 0 && command.cdb[0] == 0; });
  reactor_.run_for(seconds(6));  // TEST UNIT READY has been sent
  const TimePoint asked = reactor_.now();
  ASSERT_TRUE(remove(0));
  EXPECT_TRUE(wait_for_removal(seconds(6)));
  EXPECT_GE(removed_at_, asked + seconds(4)) << "it was waited for";
  EXPECT_EQ(target_->counters.terminated_tasks, 0U) << "aborted, the connection was not dropped";
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(target_->counters.logouts, 1U);
}

TEST_F(PathChanges, StuckCommandsAreAbortedAndTheSessionStaysForOthers) {
  start();
  shared_ = true;
  target_->add_lun(300, std::make_shared<SimLun>(SimLunOptions{.naa_extension = 2}));
  MultipathDevice second(reactor_, fencing_, options_, *this);
  ASSERT_TRUE(second.add_path(*sessions_[0], 300));
  ASSERT_TRUE(reactor_.run_until([&] { return second.snapshot().paths_up() == 1; }));
  never_answer([](const SimCommand& command) {
    return command.portal == 0 && command.lun == 0 && is_write(command);
  });
  GuestRequest& stuck = write_at(0, 7);
  const std::uint64_t sector = place_;
  let_be_sent();
  ASSERT_TRUE(remove(0));
  reactor_.run_for(milliseconds(4900));
  EXPECT_TRUE(pending(stuck));
  EXPECT_EQ(answer(stuck, milliseconds(200)), IoStatus::ok);
  EXPECT_EQ(medium(sector), 7);
  EXPECT_EQ(target_->counters.aborted_tasks, 1U);
  EXPECT_EQ(answer(write(sector, 8, 8), milliseconds(50)), IoStatus::ok) << "nothing to fence";
  EXPECT_EQ(leaving(), 0U);
  EXPECT_EQ(second.snapshot().paths_up(), 1U);
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
  bool closed = false;
  second.close(
      false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  EXPECT_TRUE(reactor_.run_until([&] { return closed; }, seconds(1)));
}

TEST_F(PathChanges, ATargetThatDoesNotAnswerTheAbortLosesTheConnection) {
  start();
  never_answer(writes_at(0));
  target_->fault_functions(TaskFunction::abort_task_set, SimFunctionFault{.answer = false});
  GuestRequest& stuck = write_at(0, 7);
  let_be_sent();
  ASSERT_TRUE(remove(0));
  EXPECT_EQ(answer(stuck, seconds(17)), IoStatus::ok);
  EXPECT_TRUE(wait_for_removal(seconds(5)));
}

TEST_F(PathChanges, ATargetThatRefusesToAbortLosesTheConnection) {
  start();
  never_answer(writes_at(0));
  target_->fault_functions(TaskFunction::abort_task_set,
                           SimFunctionFault{.execute = false, .response = 5});
  GuestRequest& stuck = write_at(0, 7);
  let_be_sent();
  ASSERT_TRUE(remove(0));
  EXPECT_EQ(answer(stuck, seconds(11)), IoStatus::ok);
  EXPECT_TRUE(wait_for_removal(seconds(5)));
}

TEST_F(PathChanges, APathIsRemovedWhileItsLoginIsUnderWay) {
  start_target();
  drop_silently(0);
  start_device(false);
  ASSERT_TRUE(wait_for_up(1));
  ASSERT_EQ(path(0).session_state, SessionState::connecting);
  ASSERT_TRUE(remove(0));
  EXPECT_TRUE(wait_for_removal(milliseconds(1)));
  reactor_.run_for(seconds(30));
  EXPECT_EQ(sessions_.size(), 1U);
}

TEST_F(PathChanges, APathIsRemovedWhileItIsBeingIdentified) {
  start_target();
  target_->options().command_delay = milliseconds(100);
  start_device(false);
  reactor_.run_for(milliseconds(150));
  ASSERT_EQ(path(0).state, PathState::pending);
  ASSERT_TRUE(remove(0));
  EXPECT_TRUE(wait_for_removal(milliseconds(1)));
  EXPECT_TRUE(wait_for_up(1));
}

TEST_F(PathChanges, RemovingTheOnlyPathThatIsUpQueuesRequests) {
  options_.no_path_retry = seconds(10);
  start();
  refuse(1);
  ASSERT_TRUE(wait_for_up(1));
  ASSERT_TRUE(remove(0));
  GuestRequest& waits = read(0, 8);
  EXPECT_TRUE(device_->snapshot().queueing);
  reactor_.run_for(seconds(9));
  EXPECT_TRUE(pending(waits));
  EXPECT_EQ(answer(waits, seconds(2)), IoStatus::no_path);
  accept(1);
  EXPECT_TRUE(wait_for_up(1));
}

TEST_F(PathChanges, ACloseEndsARemoval) {
  start({1, 2});
  GuestRequest& lost = write_held_at_first(1);
  refuse(0);
  EXPECT_EQ(answer(lost, milliseconds(50)), IoStatus::ok);
  ASSERT_TRUE(remove(0));
  reactor_.run_for(seconds(1));
  ASSERT_EQ(leaving(), 1U);
  close();
  EXPECT_EQ(removed_, 0);
}

TEST_F(PathChanges, ACloseThatWaitsForFencesWaitsForThoseOfAPathThatLeaves) {
  options_.quiesce_time = seconds(20);
  start({1, 2});
  GuestRequest& lost = write_held_at_first(1);
  refuse(0);
  EXPECT_EQ(answer(lost, milliseconds(50)), IoStatus::ok);
  ASSERT_TRUE(remove(0));
  const TimePoint began = reactor_.now();
  close(true);
  EXPECT_GE(reactor_.now() - began, seconds(19));
}

TEST_F(PathChanges, ACloseWhileTheFenceSessionOfARemovedPathGoesAway) {
  start();
  write_held_at_first(1);
  ASSERT_TRUE(remove(0));
  refuse(0);
  ASSERT_TRUE(reactor_.run_until([this] { return target_->counters.terminated_tasks != 0; }));
  reactor_.run_for(std::chrono::microseconds(150));  // fenced, and on its way out
  ASSERT_EQ(leaving(), 1U);
  ASSERT_EQ(target_->sessions(), 2U);
  close();
  EXPECT_EQ(removed_, 0);
}

TEST_F(PathChanges, APathIsAddedWhileTheDiskIsInUse) {
  start({1, 1, 1});
  ASSERT_TRUE(remove(2));
  ASSERT_TRUE(wait_for_removal(seconds(1)));
  reactor_.run_for(milliseconds(100));
  Session& session = add_session(2);
  ASSERT_TRUE(device_->add_path(session, 0));
  session.start();
  ASSERT_TRUE(wait_for_up(3));
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  }
  EXPECT_EQ(path(2).requests, 2U);
  EXPECT_EQ(path(2).group, 0U);
}

TEST_F(PathChanges, APathThatIsAddedInAnOutageRevivesWhatWaits) {
  start({1, 1, 1});
  ASSERT_TRUE(remove(2));
  ASSERT_TRUE(wait_for_removal(seconds(1)));
  refuse(0);
  refuse(1);
  ASSERT_TRUE(wait_for_up(0));
  GuestRequest& writing = write(0, 8, 4);
  GuestRequest& reading = read(8, 8);
  reactor_.run_for(seconds(60));
  EXPECT_TRUE(pending(writing));
  Session& session = add_session(2);
  session.start();
  ASSERT_TRUE(device_->add_path(session, 0));
  EXPECT_EQ(answer(writing, milliseconds(100)), IoStatus::ok);
  EXPECT_EQ(answer(reading, milliseconds(10)), IoStatus::ok);
}

TEST_F(PathChanges, AnAddedPathToAnotherLunIsQuarantinedAndCanBeRemoved) {
  start();
  target_->add_lun(9, std::make_shared<SimLun>(SimLunOptions{.naa_extension = 2}));
  ASSERT_TRUE(device_->add_path(*sessions_[0], 9));
  ASSERT_TRUE(reactor_.run_until([this] { return path(2).state == PathState::quarantined; }));
  EXPECT_NE(path(2).last_error.find("another LUN"), std::string::npos) << path(2).last_error;
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  }
  EXPECT_EQ(target_->lun(9).counters.writes, 0U);
  shared_ = true;
  ASSERT_TRUE(device_->remove_path(*sessions_[0], 9));
  EXPECT_TRUE(wait_for_removal(milliseconds(10)));
  EXPECT_EQ(up(), 2U);
}

TEST_F(PathChanges, RefusesAPathThatTheDiskHasAlready) {
  start();
  EXPECT_EQ(refusal(device_->add_path(*sessions_[1], 0)),
            "disk has the path by 10.0.0.2:3260 already");
  EXPECT_EQ(device_->snapshot().paths.size(), 2U);
}

TEST_F(PathChanges, RefusesToRemoveTheLastPath) {
  start();
  ASSERT_TRUE(remove(0));
  EXPECT_EQ(refusal(device_->remove_path(*sessions_.back(), 0)),
            "the path by 10.0.0.2:3260 is the only one of disk: add another one first, or detach "
            "the disk");
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
}

TEST_F(PathChanges, RefusesToRemoveAPathThatTheDiskDoesNotHave) {
  start({1, 1, 1});
  EXPECT_EQ(refusal(device_->remove_path(*sessions_[0], 7)), "disk has no path by 10.0.0.1:3260");
  ASSERT_TRUE(remove(0));
  EXPECT_EQ(refusal(remove(0)), "disk has no path by 10.0.0.1:3260") << "it is leaving";
}

TEST_F(PathChanges, RefusesMoreThanTheMostPaths) {
  start();
  for (std::uint16_t lun = 1; lun <= kMaxPaths - 2; ++lun) {
    ASSERT_TRUE(device_->add_path(*sessions_[0], lun));
  }
  EXPECT_EQ(refusal(device_->add_path(*sessions_[0], 100)),
            "disk has 64 paths already, no more are made");
  close();
}

// Over and over, with requests under way all the time: numbers of paths are used again.
TEST_F(PathChanges, PathsComeAndGoUnderLoad) {
  start({1, 1, 2, 2});
  std::size_t portal = 0;
  for (int round = 0; round < 40; ++round) {
    std::vector<GuestRequest*> asked;
    for (std::uint64_t i = 0; i < 8; ++i) {
      asked.push_back(&write(i * 8, 8, round + 1));
      asked.push_back(&read(i * 8 + 64, 8));
    }
    const auto first = std::find_if(sessions_.begin(), sessions_.end(), [&](const auto& session) {
      return session->options().portal == portal_address(portal) &&
             session->state() == SessionState::logged_in;
    });
    ASSERT_NE(first, sessions_.end());
    ASSERT_TRUE(device_->remove_path(**first, 0));
    for (GuestRequest* request : asked) {
      EXPECT_EQ(answer(*request, milliseconds(100)), IoStatus::ok);
    }
    ASSERT_TRUE(wait_for_removal(seconds(1), round + 1));
    Session& session = add_session(portal);
    session.start();
    ASSERT_TRUE(device_->add_path(session, 0));
    if (round % 3 == 0) {
      change(static_cast<PathGroupingPolicy>(round % 5), static_cast<PathSelectorKind>(round % 4));
    }
    ASSERT_TRUE(wait_for_up(4));
    portal = (portal + 1) % 4;
  }
  for (std::uint64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(medium(i * 8), 40);
  }
}

TEST_F(PathChanges, SelectorsAndPoliciesChangeWithRequestsUnderWay) {
  start({1, 1, 2, 2});
  target_->options().command_delay = milliseconds(20);
  for (int round = 0; round < 20; ++round) {
    for (std::uint64_t i = 0; i < 16; ++i) {
      write((i + 16 * static_cast<std::uint64_t>(round)) % 64 * 8, 8, round + 1);
    }
    reactor_.run_for(milliseconds(5));
    change(static_cast<PathGroupingPolicy>(round % 5), static_cast<PathSelectorKind>(round % 4));
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request, seconds(1)), IoStatus::ok);
  }
  change(PathGroupingPolicy::multibus, PathSelectorKind::queue_length);
  EXPECT_EQ(device_->snapshot().path_selector, "queue-length 0");
  EXPECT_EQ(device_->snapshot().groups.size(), 1U);
  for (int i = 0; i < 8; ++i) {
    read(0, 8);
  }
  for (std::size_t at = 0; at < 4; ++at) {
    EXPECT_EQ(path(at).in_flight, 2U) << at;
  }
}

}  // namespace
}  // namespace iscsi_blkback
