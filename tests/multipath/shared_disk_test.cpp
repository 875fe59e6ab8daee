// A shared disk's write is answered when none of its lost copies can land any more, because another
// writer of the LUN (of this host or of another one, which can hear nothing of this disk) goes by
// that answer.
#include "tests/multipath/following_disk.h"

namespace iscsi_blkback {
namespace {

class SharedDisk : public FollowingDisk {
 protected:
  SharedDisk() {
    options_.shared = true;
    options_.portal_group_fences.reset();
    options_.quiesce_time = seconds(60);
  }
  void TearDown() override {
    target_->clear_faults();
    accept(0);
  }

  // A write that portal 0 keeps, is lost there and executed at another one.
  GuestRequest& lose_a_write(std::uint32_t sectors = 8) {
    hold_writes_at(0);
    GuestRequest& lost = at_path(0, [&]() -> GuestRequest& { return write(0, sectors, 1); });
    reactor_.run_for(milliseconds(20));
    EXPECT_GE(target_->held(), 1U);
    refuse(0);
    reactor_.run_for(milliseconds(200));
    EXPECT_EQ(medium(0), 1);
    return lost;
  }
  // After which the target executes nothing any more.
  void expect_answer_after_the_quiesce_time(const GuestRequest& lost) {
    reactor_.run_for(seconds(59));
    EXPECT_TRUE(pending(lost));
    target_->release_held();
    EXPECT_EQ(answer(lost, seconds(2)), IoStatus::ok);
  }
  void expect_newer_data_stays(OtherDisk& other) {
    EXPECT_EQ(answer(other.write(0, 2), seconds(100)), IoStatus::ok);
    target_->release_held();
    reactor_.run_for(milliseconds(10));
    EXPECT_EQ(medium(0), 2);
  }
};

TEST_F(SharedDisk, AnswersALostWriteAfterTheQuiesceTime) {
  start({1, 2});
  auto other = follow({sessions_[1].get()});
  GuestRequest& lost = lose_a_write();
  EXPECT_EQ(device_->snapshot().held, 1U);
  expect_answer_after_the_quiesce_time(lost);
  EXPECT_EQ(device_->snapshot().held, 0U);
  expect_newer_data_stays(*other);
}

TEST_F(SharedDisk, AnswersALostWriteAfterTheQuiesceTimeWhereTheOtherWriterIsOfAnotherHost) {
  start({1, 2});
  options_.barrier_directory.clear();
  auto other = follow({sessions_[1].get()});
  expect_answer_after_the_quiesce_time(lose_a_write());
  expect_newer_data_stays(*other);
}

TEST_F(SharedDisk, AnswersALostWriteWhenItsOwnPathIsBack) {
  start({1, 2});
  auto other = follow({sessions_[1].get()});
  GuestRequest& lost = lose_a_write();
  reactor_.run_for(seconds(2));
  EXPECT_TRUE(pending(lost));
  accept(0);
  EXPECT_EQ(answer(lost, seconds(3)), IoStatus::ok);
  expect_newer_data_stays(*other);
}

TEST_F(SharedDisk, AnswersALostWriteWhenAnotherPortalHasFencedIt) {
  options_.portal_group_fences = PortalGroupFences::yes;
  start({1, 1});
  auto other = follow({sessions_[1].get()});
  GuestRequest& lost = lose_a_write();
  EXPECT_EQ(lost.status, IoStatus::ok) << "at once";
  expect_newer_data_stays(*other);
}

// A disk that waits for a fence has nobody else to wait for it: no newer write of its own.
TEST_F(SharedDisk, HasTheLostWriteFencedByAPreemption) {
  options_.reservation_key = 0x5a00;
  options_.portal_group_fences = PortalGroupFences::yes;
  options_.fence_settle_time = seconds(5);
  start({1, 2});
  reactor_.run_for(milliseconds(10));
  GuestRequest& lost = lose_a_write();
  EXPECT_EQ(answer(lost, seconds(6)), IoStatus::ok);
  EXPECT_EQ(target_->counters.preemptions, 1U);
}

TEST_F(SharedDisk, AnswersOtherWritesAndReadsAsEver) {
  start({1, 2});
  GuestRequest& lost = lose_a_write();
  EXPECT_EQ(answer(write(100, 8, 3), milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(answer(read(0, 8), milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(answer(flush(), milliseconds(50)), IoStatus::ok);
  EXPECT_TRUE(pending(lost));
}

TEST_F(SharedDisk, AnswersAWriteOfWhichAPieceWasLostAfterTheQuiesceTime) {
  lun_options_.max_transfer_blocks = 8;
  start({1, 2});
  GuestRequest& lost = lose_a_write(24);
  EXPECT_EQ(medium(16), 1) << "the last piece is there";
  expect_answer_after_the_quiesce_time(lost);
}

// The guest's program that has been told of an error hands its block on, too.
TEST_F(SharedDisk, TellsOfAFailureAfterTheQuiesceTime) {
  options_.no_path_retry = seconds(1);
  start({1, 2});
  refuse(1);
  hold_writes_at(0);
  ASSERT_TRUE(wait_for_up(1));
  GuestRequest& lost = write(0, 8, 1);
  reactor_.run_for(milliseconds(20));
  refuse(0);
  reactor_.run_for(seconds(50));
  EXPECT_TRUE(pending(lost));
  EXPECT_EQ(answer(lost, seconds(20)), IoStatus::no_path);
  accept(1);
}

TEST_F(SharedDisk, ACloseDoesNotWaitForAnAnswerThatWaits) {
  start({1, 2});
  GuestRequest& lost = lose_a_write();
  const TimePoint before = reactor_.now();
  close();
  EXPECT_EQ(lost.status, IoStatus::aborted);
  EXPECT_LT(reactor_.now() - before, milliseconds(50));
}

TEST_F(SharedDisk, ASuspendedDiskAnswersWhenTheWriteIsFenced) {
  start({1, 2});
  GuestRequest& lost = lose_a_write();
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(seconds(1));
  EXPECT_TRUE(pending(lost));
  accept(0);
  EXPECT_EQ(answer(lost, seconds(3)), IoStatus::ok);
  device_->set_guest({GuestState::runs});
}

TEST_F(SharedDisk, ADiskThatIsNotSharedAnswersAtOnce) {
  options_.shared = false;
  start({1, 2});
  GuestRequest& lost = lose_a_write();
  EXPECT_EQ(lost.status, IoStatus::ok);
}

}  // namespace
}  // namespace iscsi_blkback
