// Registrations for persistent reservations are taken back when a path or the disk ends, in virtual
// time. What they are for: lun_fence_test.cpp.
#include <gmock/gmock.h>

#include "multipath/path/pr_registration.h"
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr std::uint64_t kHostKey = 0x5a0000;
constexpr std::uint64_t kFirstKey = 0x5a00000000010001;
constexpr std::uint64_t kSecondKey = 0x5a00000000010002;

class ReservationKeyTest : public MultipathTest {
 protected:
  ReservationKeyTest() {
    options_.reservation_key = kHostKey;
    options_.fence_settle_time = seconds(5);
    options_.quiesce_time = seconds(60);
  }

  // Portals in groups of their own, keys registered.
  void start_registered(std::vector<std::uint16_t> portal_groups = {1, 2}) {
    start(std::move(portal_groups));
    reactor_.run_for(milliseconds(10));
    ASSERT_EQ(keys().size(), sessions_.size());
  }
  [[nodiscard]] std::vector<std::uint64_t> keys(std::uint16_t lun = 0) const {
    return target_->keys(lun);
  }

  void on_path_removed(MultipathDevice& /*device*/, Session& /*session*/) noexcept override {
    ++removed_;
    keys_when_removed_ = keys();
  }
  Result<void> remove(std::size_t session) { return device_->remove_path(*sessions_[session], 0); }
  bool wait_for_removal(Duration at_most) {
    return reactor_.run_until([this] { return removed_ == 1; }, at_most);
  }

  void begin_to_close(bool wait_for_fences = false) {
    device_->close(
        wait_for_fences, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed_);
  }
  // The device is gone at once, whatever its sessions still have of it.
  [[nodiscard]] bool closes(Duration at_most) {
    const bool done = reactor_.run_until([this] { return closed_; }, at_most);
    if (done) {
      device_.reset();
    }
    return done;
  }

  static SimFault fault_of_keys(std::uint32_t count = 0) {
    SimFault fault;
    fault.matches = [](const SimCommand& command) {
      return command.cdb[0] == scsi_operation::kPersistentReserveOut;
    };
    fault.count = count;
    return fault;
  }
  // A write that the target keeps when its path is lost, and which another path has answered.
  void lose_a_write_at_portal_0() {
    SimFault hold;
    hold.matches = writes_at(0);
    hold.hold = true;
    hold.execute = true;
    target_->inject(hold);
    GuestRequest& lost = at_path(0, [this]() -> GuestRequest& { return write(0, 8, 1); });
    ASSERT_TRUE(reactor_.run_until([this] { return target_->held() == 1; }, seconds(1)));
    refuse(0);
    ASSERT_EQ(answer(lost, milliseconds(200)), IoStatus::ok);
  }

  int removed_ = 0;
  std::vector<std::uint64_t> keys_when_removed_;
  bool closed_ = false;
};

TEST_F(ReservationKeyTest, CloseTakesTheKeysBackBeforeTheSessionsLogOut) {
  start_registered();
  begin_to_close();
  EXPECT_TRUE(closes(milliseconds(50)));
  EXPECT_THAT(keys(), IsEmpty());
  EXPECT_EQ(target_->sessions(), 2U);
}

// Two hosts whose numbers differ in one bit, for guests whose numbers do.
TEST_F(ReservationKeyTest, TwoHostsNeverRegisterTheSameKey) {
  options_.reservation_key = 0x5a00;
  last_isid_ = 4;
  start({1});
  options_.reservation_key = 0x5a01;
  MultipathDevice other(reactor_, fencing_, options_, *this);
  last_isid_ = 3;
  Session& session = add_session(0);
  session.start();
  ASSERT_TRUE(other.add_path(session, 0));
  reactor_.run_for(milliseconds(100));
  EXPECT_THAT(keys(), UnorderedElementsAre(0x005a000000010005, 0x005a010000010004));
  bool closed = false;
  other.close(
      false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  EXPECT_TRUE(reactor_.run_until([&] { return closed; }, seconds(1)));
}

TEST_F(ReservationKeyTest, ARemovedPathTakesItsOwnKeyBack) {
  start_registered();
  ASSERT_TRUE(remove(0));
  EXPECT_TRUE(wait_for_removal(milliseconds(50)));
  EXPECT_THAT(keys_when_removed_, ElementsAre(kSecondKey));
  EXPECT_EQ(target_->sessions(), 2U);
}

TEST_F(ReservationKeyTest, APathThatIsAddedAgainRegistersAgain) {
  start_registered();
  ASSERT_TRUE(remove(0));
  ASSERT_TRUE(wait_for_removal(milliseconds(50)));
  ASSERT_TRUE(device_->add_path(*sessions_[0], 0));
  ASSERT_TRUE(wait_for_up(2));
  reactor_.run_for(milliseconds(10));
  EXPECT_THAT(keys(), UnorderedElementsAre(kFirstKey, kSecondKey));
}

TEST_F(ReservationKeyTest, WithoutAReservationKeyNothingIsTakenBack) {
  options_.reservation_key = 0;
  start_target({1, 2});
  int commands = 0;
  SimFault counted = fault_of_keys();
  counted.matches = [&commands](const SimCommand& command) {
    commands += command.cdb[0] == scsi_operation::kPersistentReserveOut ? 1 : 0;
    return false;
  };
  target_->inject(counted);
  start_device();
  ASSERT_TRUE(remove(0));
  EXPECT_TRUE(wait_for_removal(milliseconds(50)));
  begin_to_close();
  EXPECT_TRUE(closes(milliseconds(50)));
  EXPECT_EQ(commands, 0);
}

// Nobody can take back what a nexus without a session has registered, and nobody waits for it.
TEST_F(ReservationKeyTest, APathThatIsDownKeepsItsKey) {
  start_registered();
  refuse(0);
  ASSERT_TRUE(wait_for_up(1));
  begin_to_close();
  EXPECT_TRUE(closes(milliseconds(50)));
  EXPECT_THAT(keys(), ElementsAre(kFirstKey));
}

// Its identity is not read any more when it is back, which does not matter to its own key.
TEST_F(ReservationKeyTest, APathThatIsBackWhileTheDiskClosesTakesItsKeyBack) {
  start_registered();
  lose_a_write_at_portal_0();
  begin_to_close(true);
  reactor_.run_for(seconds(2));
  EXPECT_FALSE(closed_);
  EXPECT_THAT(keys(), UnorderedElementsAre(kFirstKey, kSecondKey)) << "it still has to be fenced";
  accept(0);
  EXPECT_TRUE(closes(seconds(2))) << "its login was the fence";
  EXPECT_EQ(target_->counters.preemptions, 0U);
  EXPECT_THAT(keys(), IsEmpty());
}

TEST_F(ReservationKeyTest, WhileALostWriteWaitsForItsFenceNoKeyIsTakenBack) {
  start_registered();
  lose_a_write_at_portal_0();
  begin_to_close(true);
  while (target_->counters.preemptions == 0) {
    ASSERT_FALSE(closed_);
    ASSERT_THAT(keys(), UnorderedElementsAre(kFirstKey, kSecondKey));
    reactor_.run_for(milliseconds(1));
  }
  EXPECT_TRUE(closes(milliseconds(50)));
  EXPECT_THAT(keys(), IsEmpty()) << "preempted, and taken back";
}

TEST_F(ReservationKeyTest, ARemovedPathKeepsItsKeyUntilItsLostWriteIsFenced) {
  start_registered();
  lose_a_write_at_portal_0();
  ASSERT_TRUE(remove(0));
  GuestRequest& newer = write(0, 8, 2);
  reactor_.run_for(milliseconds(4500));
  EXPECT_EQ(removed_, 0);
  EXPECT_THAT(keys(), UnorderedElementsAre(kFirstKey, kSecondKey));
  EXPECT_EQ(answer(newer, seconds(1)), IoStatus::ok);
  EXPECT_EQ(target_->counters.preemptions, 1U);
  EXPECT_TRUE(wait_for_removal(milliseconds(50)));
  EXPECT_THAT(keys(), ElementsAre(kSecondKey));
}

// The preemption has taken the key, but a registration that was lost with its connection may come
// to be executed after that.
TEST_F(ReservationKeyTest, ARegistrationThatWasLostIsTakenBackAfterAPreemption) {
  start_registered();
  SimFault unanswered = fault_of_keys(1);
  unanswered.answer = false;
  target_->inject(unanswered);
  sessions_[0]->drop({ErrorCode::unavailable, "to register once more"});
  ASSERT_TRUE(wait_for_up(1, seconds(1)) && wait_for_up(2));
  lose_a_write_at_portal_0();
  ASSERT_TRUE(remove(0));
  write(0, 8, 2);
  SimFault slow = fault_of_keys(1);  // the preemption
  slow.execute = true;
  slow.extra_delay = seconds(3);
  target_->inject(slow);
  reactor_.run_for(milliseconds(5150));
  int at_portal_0 = 0;
  SimFault count = fault_of_keys();
  count.matches = [&](const SimCommand& command) {
    at_portal_0 += command.portal == 0 && command.cdb[0] == scsi_operation::kPersistentReserveOut;
    return false;
  };
  target_->inject(count);
  accept(0);
  EXPECT_TRUE(wait_for_removal(seconds(4)));
  EXPECT_EQ(target_->counters.preemptions, 1U);
  EXPECT_GT(at_portal_0, 0);
  target_->clear_faults();
}

TEST_F(ReservationKeyTest, CloseDoesNotWaitLongForATargetThatDoesNotAnswer) {
  start_registered();
  SimFault held = fault_of_keys();
  held.hold = true;
  held.execute = true;
  target_->inject(held);
  const TimePoint began = reactor_.now();
  begin_to_close();
  EXPECT_TRUE(closes(PrRegistration::kUnregisterTime + milliseconds(1)));
  EXPECT_GE(reactor_.now() - began, PrRegistration::kUnregisterTime);
  EXPECT_EQ(keys().size(), 2U);
  target_->clear_faults();
  target_->release_held();
  reactor_.run_for(milliseconds(10));
  EXPECT_THAT(keys(), IsEmpty()) << "the sessions still had the commands";
}

TEST_F(ReservationKeyTest, SessionsEndWithACommandThatIsNeverAnswered) {
  start_registered();
  SimFault never = fault_of_keys();
  never.answer = false;
  target_->inject(never);
  begin_to_close();
  EXPECT_TRUE(closes(PrRegistration::kUnregisterTime + milliseconds(1)));
  const TimePoint began = reactor_.now();
  stop_sessions();
  EXPECT_LE(reactor_.now() - began, session_options_.logout_timeout);
}

TEST_F(ReservationKeyTest, ARemovalDoesNotWaitLongForATargetThatDoesNotAnswer) {
  start_registered();
  SimFault never = fault_of_keys(1);
  never.answer = false;
  target_->inject(never);
  ASSERT_TRUE(remove(0));
  reactor_.run_for(PrRegistration::kUnregisterTime - milliseconds(10));
  EXPECT_EQ(removed_, 0);
  EXPECT_TRUE(wait_for_removal(milliseconds(20)));
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U) << "others may use it";
}

TEST_F(ReservationKeyTest, ADiskThatClosesWhileAPathLeavesWaitsForBothKeys) {
  start_registered();
  SimFault slow = fault_of_keys();
  slow.extra_delay = milliseconds(100);
  target_->inject(slow);
  ASSERT_TRUE(remove(0));
  reactor_.run_for(milliseconds(50));
  begin_to_close();
  EXPECT_TRUE(closes(milliseconds(150)));
  EXPECT_THAT(keys(), IsEmpty());
}

TEST_F(ReservationKeyTest, AConnectionThatGoesWhileTheKeyIsTakenBackDelaysNobody) {
  start_registered();
  SimFault dropped = fault_of_keys(1);
  dropped.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kPersistentReserveOut && command.portal == 0;
  };
  dropped.drop_connection = true;
  target_->inject(dropped);
  begin_to_close();
  EXPECT_TRUE(closes(milliseconds(50)));
  EXPECT_THAT(keys(), ElementsAre(kFirstKey));
}

TEST_F(ReservationKeyTest, UnitAttentionsAndABusyTargetAreMet) {
  start_registered();
  target_->add_unit_attention(0x2903);
  target_->add_unit_attention(0x2a05);
  SimFault busy = fault_of_keys(4);
  busy.status = ScsiStatus::busy;
  target_->inject(busy);
  begin_to_close();
  EXPECT_TRUE(closes(PrRegistration::kUnregisterTime));
  EXPECT_THAT(keys(), IsEmpty());
}

TEST_F(ReservationKeyTest, ATargetThatRefusesToTakeTheKeyBackDelaysNobody) {
  start_registered();
  SimFault refused = fault_of_keys();
  refused.status = ScsiStatus::check_condition;
  refused.sense = make_sense(SenseKey::illegal_request, 0x2000);
  target_->inject(refused);
  begin_to_close();
  EXPECT_TRUE(closes(milliseconds(50)));
  EXPECT_EQ(keys().size(), 2U);
}

TEST_F(ReservationKeyTest, ATargetThatStaysBusyIsNotWaitedForLong) {
  start_registered();
  SimFault busy = fault_of_keys();
  busy.status = ScsiStatus::busy;
  target_->inject(busy);
  begin_to_close();
  EXPECT_TRUE(closes(PrRegistration::kUnregisterTime + milliseconds(10)));
  EXPECT_EQ(keys().size(), 2U);
}

// A second disk over the same sessions.
class TwoDisksTest : public ReservationKeyTest {
 protected:
  void start_two(std::uint16_t second_lun) {
    start_target({1, 2});
    if (second_lun != 0) {
      SimLunOptions other = lun_options_;
      other.naa_extension = 7;
      target_->add_lun(second_lun, std::make_shared<SimLun>(other));
    }
    start_device();
    second_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
    for (const std::unique_ptr<Session>& session : sessions_) {
      ASSERT_TRUE(second_->add_path(*session, second_lun));
    }
    ASSERT_TRUE(reactor_.run_until([this] { return second_->snapshot().paths_up() == 2; }));
    reactor_.run_for(milliseconds(10));
  }
  void close_second() {
    bool closed = false;
    second_->close(
        false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
    EXPECT_TRUE(reactor_.run_until([&] { return closed; }, milliseconds(50)));
    second_.reset();
  }

  std::unique_ptr<MultipathDevice> second_;
};

TEST_F(TwoDisksTest, ADiskTakesBackTheKeysOfItsOwnLun) {
  start_two(1);
  EXPECT_EQ(keys(0).size(), 2U);
  EXPECT_EQ(keys(1).size(), 2U);
  close_second();
  EXPECT_EQ(keys(0).size(), 2U);
  EXPECT_THAT(keys(1), IsEmpty());
}

TEST_F(TwoDisksTest, OfTwoDisksOfOneLunTheLastOneTakesTheKeysBack) {
  start_two(0);
  ASSERT_TRUE(remove(0));
  EXPECT_TRUE(wait_for_removal(milliseconds(50)));
  EXPECT_EQ(keys().size(), 2U) << "the second disk's, too";
  close_second();
  EXPECT_THAT(keys(), ElementsAre(kSecondKey)) << "the first disk's, too";
  begin_to_close();
  EXPECT_TRUE(closes(milliseconds(50)));
  EXPECT_THAT(keys(), IsEmpty());
}

TEST_F(TwoDisksTest, TwoDisksOfOneLunThatCloseTogetherTakeTheKeysBack) {
  start_two(0);
  begin_to_close();
  close_second();
  EXPECT_TRUE(closes(milliseconds(50)));
  EXPECT_THAT(keys(), IsEmpty());
}

}  // namespace
}  // namespace iscsi_blkback
