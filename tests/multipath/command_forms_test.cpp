// A command that the LUN does not know decides nothing where there is another form of it, or where it is
// not needed.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

using namespace scsi_operation;

class CommandFormsTest : public MultipathTest {
 protected:
  void start_without(std::set<std::uint8_t> operations,
                     std::vector<std::uint16_t> portals = {1, 1}) {
    lun_options_.unknown_operations = std::move(operations);
    start_target(std::move(portals));
    SimFault count;
    count.count = 0;
    count.matches = [this](const SimCommand& command) {
      ++seen_[command.cdb[0]];
      return false;
    };
    target_->inject(count);
    start_device();
    seen_.clear();
  }
  std::uint32_t seen(std::uint8_t operation) { return seen_[operation]; }

 private:
  std::map<std::uint8_t, std::uint32_t> seen_;  // commands that came to the target
};

TEST_F(CommandFormsTest, AFlushWithoutSynchronizeCache16IsAskedForWith10) {
  start_without({kSynchronizeCache16}, {1});
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 2U);
  EXPECT_EQ(seen(kSynchronizeCache16), 1U) << "it has been learned";
}

TEST_F(CommandFormsTest, AFlushWithoutSynchronizeCache10IsAskedForWith16) {
  lun_options_.has_16_byte_commands = false;
  start_without({kSynchronizeCache10}, {1});
  lun_->options.has_16_byte_commands = true;  // its READ CAPACITY(16) alone was unknown
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

TEST_F(CommandFormsTest, WithoutAWriteCacheAndWithoutFlushesThereIsNothingToFlush) {
  lun_options_.write_cache = false;
  start_without({kSynchronizeCache10, kSynchronizeCache16}, {1});
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(answer(flush()), IoStatus::ok);
  }
  EXPECT_EQ(lun_->counters.flushes, 0U);
  EXPECT_EQ(seen(kSynchronizeCache16) + seen(kSynchronizeCache10), 2U) << "asked once each";
}

TEST_F(CommandFormsTest, ALunThatKnowsNoModeSenseHasNoCache) {
  lun_options_.has_mode_sense = false;
  start_without({kSynchronizeCache10, kSynchronizeCache16});
  EXPECT_EQ(answer(flush()), IoStatus::ok);
}

TEST_F(CommandFormsTest, WithoutAWriteCacheButWithFlushesTheyAreSent) {
  lun_options_.write_cache = false;
  start_without({});
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

TEST_F(CommandFormsTest, AVolatileCacheThatCannotBeFlushedIsAnError) {
  start_without({kSynchronizeCache10, kSynchronizeCache16});
  EXPECT_EQ(answer(flush()), IoStatus::not_supported);
  EXPECT_EQ(answer(flush()), IoStatus::not_supported);
}

// After its firmware has changed a LUN may know what it did not.
TEST_F(CommandFormsTest, WhatALunKnowsIsForgottenWhenItIsIdentifiedAnew) {
  start_without({kSynchronizeCache16}, {1});
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  lun_->options.unknown_operations = {kSynchronizeCache10};
  target_->add_unit_attention(0x3f01);
  target_->add_unit_attention(0x2900);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 2U);
}

TEST_F(CommandFormsTest, ReadsAndWritesHaveAnotherFormToo) {
  start_without({kRead16, kWrite16});
  EXPECT_EQ(answer(write(8, 8, 5)), IoStatus::ok);
  EXPECT_EQ(medium(8), 5);
  const GuestRequest& request = read(8, 8);
  EXPECT_EQ(answer(request), IoStatus::ok);
  EXPECT_EQ(request.data[0], std::byte{5});
  EXPECT_EQ(up(), 2U);
}

TEST_F(CommandFormsTest, ManyAtOnceThatMeetTheUnknownFormAllSucceed) {
  start_without({kRead16, kWrite16, kSynchronizeCache16});
  for (std::uint64_t i = 0; i < 32; ++i) {
    write(i * 8, 8, static_cast<int>(i + 1));
    read(1024 + i * 8, 8);
  }
  flush();
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
  for (std::uint64_t i = 0; i < 32; ++i) {
    EXPECT_EQ(medium(i * 8), static_cast<int>(i + 1));
  }
}

// The lower half of the address, in another form, is another place of the disk.
TEST_F(CommandFormsTest, WhatThe10ByteFormsCannotSayIsNeverAskedForWithThem) {
  constexpr std::uint64_t kBehind = (std::uint64_t{1} << 32) + 8;
  lun_options_.unknown_operations = {kRead16, kWrite16};
  start_target({1});
  lun_->options.block_count = kBehind + 8;  // its medium ends before that: nothing gets there
  start_device();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(answer(write(kBehind, 8, 5)), IoStatus::not_supported);
    EXPECT_EQ(answer(read(kBehind, 8)), IoStatus::not_supported);
  }
  EXPECT_EQ(medium(8), 0);
}

// Of a LUN whose 16-byte forms are refused; 65536 blocks are more than the others can count.
TEST_F(CommandFormsTest, ARequestOfTooManyBlocksForAFormThatWasLearnedIsNoShorterOne) {
  constexpr std::uint32_t kMany = 65536 + 8;
  lun_options_.block_count = 2 * kMany;
  start_without({kRead16, kWrite16}, {1});
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  EXPECT_EQ(answer(write(0, kMany, 5)), IoStatus::not_supported);
  EXPECT_EQ(medium(0), 1) << "its first 8 blocks are no answer to it";
  EXPECT_EQ(answer(write(0, 8, 2)), IoStatus::ok);
}

TEST_F(CommandFormsTest, NoFormAtAllIsNotSupported) {
  start_without({kRead16, kRead10});
  EXPECT_EQ(answer(read(0, 8)), IoStatus::not_supported);
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
}

TEST_F(CommandFormsTest, TheDirectioCheckerFindsTheOtherForm) {
  options_.path_checker = PathCheckerKind::directio;
  start_without({kRead16}, {1});
  reactor_.run_for(seconds(30));
  EXPECT_EQ(up(), 1U);
  EXPECT_GE(seen(kRead10), 1U);
}

// Each form refused in each of these words, for each command; the other form is there.
class RefusedFormTest : public CommandFormsTest,
                        public testing::WithParamInterface<std::tuple<int, bool, bool>> {
 protected:
  void refuse(std::uint8_t operation) {
    const auto [code, by_descriptors, has_long_forms] = GetParam();
    SimFault refusal;
    refusal.matches = [operation](const SimCommand& command) {
      return command.cdb[0] == operation;
    };
    refusal.count = 0;
    refusal.status = ScsiStatus::check_condition;
    refusal.sense = make_sense(SenseKey::illegal_request, static_cast<std::uint16_t>(code));
    if (by_descriptors) {
      refusal.sense = {std::byte{0x72},
                       std::byte{0x05},
                       static_cast<std::byte>(code >> 8),
                       static_cast<std::byte>(code & 0xff),
                       {},
                       {},
                       {},
                       {}};
    }
    target_->inject(refusal);
  }
};

TEST_P(RefusedFormTest, IsAskedForInTheOtherForm) {
  const bool has_long_forms = std::get<2>(GetParam());
  lun_options_.has_16_byte_commands = has_long_forms;
  start_without({}, {1});
  lun_->options.has_16_byte_commands = true;  // its READ CAPACITY(16) alone was unknown
  refuse(has_long_forms ? kRead16 : kRead10);
  refuse(has_long_forms ? kWrite16 : kWrite10);
  refuse(has_long_forms ? kSynchronizeCache16 : kSynchronizeCache10);
  for (int i = 1; i <= 3; ++i) {
    EXPECT_EQ(answer(write(8, 8, i), seconds(1)), IoStatus::ok);
    EXPECT_EQ(medium(8), i);
    const GuestRequest& request = read(8, 8);
    EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
    EXPECT_EQ(request.data[0], static_cast<std::byte>(i));
    EXPECT_EQ(answer(flush(), seconds(1)), IoStatus::ok);
    EXPECT_EQ(lun_->counters.flushes, static_cast<std::uint64_t>(i));
  }
  EXPECT_LE(seen(kRead16) + seen(kRead10), 4U) << "it has been learned";
  EXPECT_EQ(path(0).state, PathState::up);
}

INSTANTIATE_TEST_SUITE_P(Words, RefusedFormTest,
                         testing::Combine(testing::Values(0x2000, 0x2400), testing::Bool(),
                                          testing::Bool()));

TEST_F(CommandFormsTest, AnInvalidFieldInBothFormsIsAnError) {
  start_without({}, {1});
  SimFault refusal = sense_fault(SenseKey::illegal_request, 0x2400, 0);
  target_->inject(refusal);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(answer(write(8, 8, 1), seconds(1)), IoStatus::target_error);
    EXPECT_EQ(answer(read(8, 8), seconds(1)), IoStatus::target_error);
  }
  target_->clear_faults();
  EXPECT_EQ(answer(write(8, 8, 2)), IoStatus::ok);
}

// Of a read it speaks of the range, which is the same in each form.
TEST_F(CommandFormsTest, ARangeThatTheLunHasNotIsNotAskedForInTheOtherForm) {
  start_without({}, {1});
  SimFault refusal = sense_fault(SenseKey::illegal_request, 0x2100, 0);
  target_->inject(refusal);
  EXPECT_EQ(answer(read(0, 8), seconds(1)), IoStatus::out_of_range);
  EXPECT_EQ(seen(kRead10), 0U);
}

TEST_F(CommandFormsTest, TheDirectioCheckerTakesAnInvalidFieldForTheForm) {
  options_.path_checker = PathCheckerKind::directio;
  start_without({}, {1});
  SimFault refusal;
  refusal.matches = [](const SimCommand& command) { return command.cdb[0] == kRead16; };
  refusal.count = 0;
  refusal.status = ScsiStatus::check_condition;
  refusal.sense = make_sense(SenseKey::illegal_request, 0x2400);
  target_->inject(refusal);
  reactor_.run_for(seconds(30));
  EXPECT_EQ(up(), 1U);
  EXPECT_GE(seen(kRead10), 1U);
}

}  // namespace
}  // namespace iscsi_blkback
