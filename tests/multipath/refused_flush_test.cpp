// Flushes that the LUN refuses: they are acknowledged only where no write can be in a volatile
// cache, as far as every path of the disk knows.
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

using namespace scsi_operation;

bool is_flush(const SimCommand& command) {
  return command.cdb[0] == kSynchronizeCache10 || command.cdb[0] == kSynchronizeCache16;
}
bool is_mode_sense(const SimCommand& command) {
  return command.cdb[0] == kModeSense6 || command.cdb[0] == kModeSense10;
}

class RefusedFlushTest : public MultipathTest {
 protected:
  RefusedFlushTest() {
    options_.path_selector = PathSelectorKind::round_robin;
    options_.path_grouping_policy = PathGroupingPolicy::multibus;
  }

  // A LUN that knows no SYNCHRONIZE CACHE.
  void refuse_flushes() {
    lun_options_.unknown_operations = {kSynchronizeCache10, kSynchronizeCache16};
  }
  // Those through this portal are not answered before target_->release_held(). count: SimFault's.
  void hold_inquiries(std::uint16_t portal, std::uint32_t count) {
    SimFault held;
    held.matches = [portal](const SimCommand& command) {
      return command.portal == portal && command.cdb[0] == kInquiry;
    };
    held.count = count;
    held.hold = true;
    target_->inject(held);
  }
  // Each path has learned that no flush is needed.
  void start_without_cache(std::vector<std::uint16_t> portals) {
    lun_options_.write_cache = false;
    refuse_flushes();
    start(std::move(portals));
    for (int i = 0; i < 4; ++i) {
      ASSERT_EQ(answer(flush()), IoStatus::ok);
    }
  }
  void switch_cache_on() {
    lun_->options.write_cache = true;
    lun_->options.unknown_operations.clear();
  }
  void log_in_again(std::size_t portal) {
    cut(portal);
    ASSERT_TRUE(
        reactor_.run_until([&] { return path(portal).state != PathState::up; }, seconds(1)));
    restore(portal);
    ASSERT_TRUE(wait_for_up(sessions_.size()));
  }
  // count: so many; 0: all from now on.
  void answer_with(bool (*matches)(const SimCommand&), ScsiStatus status,
                   std::vector<std::byte> sense = {}, std::uint32_t count = 0) {
    SimFault fault;
    fault.matches = matches;
    fault.count = count;
    fault.status = status;
    fault.sense = std::move(sense);
    target_->inject(fault);
  }
  static bool is_flush_at_1(const SimCommand& command) {
    return command.portal == 1 && is_flush(command);
  }
};

// ---- the target says that something has changed

class ChangedCacheTest : public RefusedFlushTest, public testing::WithParamInterface<int> {};

TEST_P(ChangedCacheTest, AFlushIsSentAfterAUnitAttentionThatMaySpeakOfTheCache) {
  start_without_cache({1});
  switch_cache_on();
  target_->add_unit_attention(static_cast<std::uint16_t>(GetParam()));
  ASSERT_EQ(answer(write(0, 8, 1)), IoStatus::ok);  // hears of it
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

TEST_P(ChangedCacheTest, AFlushIsSentAfterAnAsynchronousMessageThatMaySpeakOfTheCache) {
  start_without_cache({1});
  switch_cache_on();
  target_->send_scsi_event(0, SenseKey::unit_attention, static_cast<std::uint16_t>(GetParam()));
  reactor_.run_for(milliseconds(1));
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

INSTANTIATE_TEST_SUITE_P(Codes, ChangedCacheTest,
                         testing::Values(0x2a00, 0x2a01, 0x3f00, 0x3f01, 0x3f02, 0x3f03, 0x2900));

TEST_F(RefusedFlushTest, WithoutACacheNoneIsNeededAfterAChangeEither) {
  start_without_cache({1, 1});
  target_->add_unit_attention(0x2a01);
  ASSERT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(answer(flush()), IoStatus::ok);
  }
  EXPECT_EQ(lun_->counters.flushes, 0U);
}

// The refusal is of before: what it would be judged by is just being read again.
TEST_F(RefusedFlushTest, ARefusalThatComesWhileTheLunIsReadAgainIsNotJudgedByWhatWasKnown) {
  lun_options_.write_cache = false;
  start({1});
  SimFault refusal;
  refusal.matches = is_flush;
  refusal.status = ScsiStatus::check_condition;
  refusal.sense = make_sense(SenseKey::data_protect, 0x2700);
  refusal.extra_delay = milliseconds(5);
  target_->inject(refusal);
  const GuestRequest& request = flush();
  reactor_.run_for(milliseconds(2));
  lun_->options.write_cache = true;
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a01);
  EXPECT_EQ(answer(request), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

// ---- what one path knows and another one does not

// The target says nothing, and only a new login hears of the cache.
class OtherPathsTest : public RefusedFlushTest {
 protected:
  void let_path_0_hear() {
    start_without_cache({1, 1});
    switch_cache_on();
    log_in_again(0);
  }
  // It has been told of a change and reads what there is, until target_->release_held().
  void read_path_0_again() {
    hold_inquiries(0, 0);
    SimFault attention = sense_fault(SenseKey::unit_attention, 0x2a01);
    attention.matches = io_at(0);
    target_->inject(attention);
    for (int i = 0; i < 2; ++i) {
      ASSERT_EQ(answer(write(0, 8, 3)), IoStatus::ok);
    }
    ASSERT_EQ(up(), 1U);
  }
};

TEST_F(OtherPathsTest, AFlushIsSentWhereOnePathKnowsOfACache) {
  let_path_0_hear();
  for (std::uint64_t i = 1; i <= 4; ++i) {
    ASSERT_EQ(answer(write(0, 8, 3)), IoStatus::ok);
    EXPECT_EQ(answer(flush()), IoStatus::ok);
    EXPECT_EQ(lun_->counters.flushes, i);
  }
}

TEST_F(OtherPathsTest, AFlushIsSentWhereAPathThatKnewOfACacheIsDown) {
  let_path_0_hear();
  cut(0);
  ASSERT_TRUE(wait_for_up(1));
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

TEST_F(OtherPathsTest, AFlushIsSentWhereAPathThatKnewOfACacheHasBeenRemoved) {
  let_path_0_hear();
  ASSERT_TRUE(device_->remove_path(*sessions_[0], 0));
  reactor_.run_for(seconds(10));
  ASSERT_EQ(device_->snapshot().paths.size(), 1U);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

TEST_F(OtherPathsTest, WhereNoPathTakesItAFlushIsNotSupported) {
  start_without_cache({1, 1});
  lun_->options.write_cache = true;  // and knows no flushes still
  log_in_again(0);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(answer(flush(), milliseconds(20)), IoStatus::not_supported) << "it has been told";
  }
}

TEST_F(OtherPathsTest, WhenTheCacheIsOffAgainAsAllPathsKnowNoFlushIsNeeded) {
  start_without_cache({1, 1});
  lun_->options.write_cache = true;
  log_in_again(0);
  ASSERT_EQ(answer(flush()), IoStatus::not_supported);
  lun_->options.write_cache = false;
  log_in_again(0);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(answer(flush()), IoStatus::ok);
  }
}

class UntoldPathTest : public OtherPathsTest {
 protected:
  // Path 1 comes back and is not told, for good.
  void log_in_untold() {
    answer_with(
        [](const SimCommand& command) { return command.portal == 1 && is_mode_sense(command); },
        ScsiStatus::check_condition, make_sense(SenseKey::hardware_error, 0x4400));
    log_in_again(1);
  }
};

// There may be a cache by now: who has been told that there is none was told before.
TEST_F(UntoldPathTest, HasTheOtherPathAskedAgainForACache) {
  start_without_cache({1, 1});
  lun_->options.write_cache = true;  // and knows no flushes still
  log_in_untold();
  EXPECT_EQ(answer(flush()), IoStatus::not_supported);
}

TEST_F(UntoldPathTest, MakesNoFlushNeedfulWhenTheOtherPathIsToldAgainThatThereIsNone) {
  start_without_cache({1, 1});
  log_in_untold();
  EXPECT_EQ(answer(flush(), seconds(4)), IoStatus::ok);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(answer(flush(), milliseconds(20)), IoStatus::ok) << "once is enough";
  }
}

TEST_F(UntoldPathTest, DoesNotMakeACacheUnknown) {
  start_without_cache({1, 1});
  lun_->options.write_cache = true;
  log_in_again(0);
  log_in_untold();
  EXPECT_EQ(answer(flush(), milliseconds(20)), IoStatus::not_supported);
}

TEST_F(UntoldPathTest, IsAskedWhenThereIsNoOther) {
  start_without_cache({1, 1});
  log_in_untold();
  cut(0);
  ASSERT_TRUE(wait_for_up(1));
  const GuestRequest& request = flush();
  reactor_.run_for(seconds(6));
  ASSERT_TRUE(pending(request));
  target_->clear_faults();
  EXPECT_EQ(answer(request), IoStatus::ok);
}

TEST_F(UntoldPathTest, IsWaitedForThoughThereHasBeenACacheBefore) {
  start_without_cache({1, 1});
  lun_->options.write_cache = true;
  log_in_again(0);
  ASSERT_EQ(answer(flush(), milliseconds(20)), IoStatus::not_supported);
  lun_->options.write_cache = false;
  log_in_again(0);
  ASSERT_EQ(answer(flush()), IoStatus::ok);
  log_in_untold();
  EXPECT_EQ(answer(flush(), seconds(4)), IoStatus::ok);
}

// Path 0 has been told of a change and reads what there is; path 1 has not been told.
TEST_F(OtherPathsTest, WhileAPathIsBeingReadAgainNoFlushIsTakenToBeNeedless) {
  start_without_cache({1, 1});
  switch_cache_on();
  read_path_0_again();
  EXPECT_EQ(answer(flush(), seconds(1)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
  target_->clear_faults();
  target_->release_held();
}

// One path hears that there is none any more; what the other one carries may still be cached.
TEST_F(OtherPathsTest, AFlushGoesByAPathThatStillKnowsOfACache) {
  start();
  lun_->options.write_cache = false;
  answer_with(is_flush_at_1, ScsiStatus::check_condition,
              make_sense(SenseKey::illegal_request, 0x2000));
  log_in_again(1);
  for (std::uint64_t i = 1; i <= 4; ++i) {
    EXPECT_EQ(answer(flush()), IoStatus::ok);
    EXPECT_EQ(lun_->counters.flushes, i);
  }
}

// What path 1 says is of before the cache, and comes behind what path 0 says of it.
TEST_F(OtherPathsTest, AnswersThatCrossEachOtherCountForTheWorse) {
  start_without_cache({1, 1});
  SimFault two_words;
  two_words.count = 0;
  two_words.matches = [this](const SimCommand& command) {
    lun_->options.write_cache = command.portal == 0;
    return false;
  };
  target_->inject(two_words);
  hold_inquiries(1, 1);
  cut(1);
  ASSERT_TRUE(reactor_.run_until([&] { return path(1).state != PathState::up; }, seconds(1)));
  restore(1);
  ASSERT_TRUE(reactor_.run_until([&] { return target_->held() == 1; }, seconds(10)));
  cut(0);
  ASSERT_TRUE(reactor_.run_until([&] { return path(0).state != PathState::up; }, seconds(1)));
  restore(0);
  ASSERT_TRUE(wait_for_up(1));
  target_->release_held();
  ASSERT_TRUE(wait_for_up(2));
  cut(0);
  ASSERT_TRUE(wait_for_up(1));
  EXPECT_EQ(answer(flush()), IoStatus::not_supported);
}

// It is asked for its modes when it serves the LUN.
TEST_F(OtherPathsTest, APortInStandbyThatTellsNoModesMakesNoFlushNeedful) {
  start_without_cache({1, 1});
  answer_with(
      [](const SimCommand& command) { return command.portal == 0 && is_mode_sense(command); },
      ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x040b));
  cut(0);
  ASSERT_TRUE(wait_for_up(1));
  restore(0);
  ASSERT_TRUE(
      reactor_.run_until([this] { return path(0).state == PathState::ghost; }, seconds(30)));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(answer(flush()), IoStatus::ok);
  }
}

TEST_F(OtherPathsTest, AFlushThatOnePathRefusesGoesByOneThatTakesIt) {
  start();
  answer_with(is_flush_at_1, ScsiStatus::check_condition,
              make_sense(SenseKey::illegal_request, 0x2000));
  for (std::uint64_t i = 1; i <= 4; ++i) {
    EXPECT_EQ(answer(flush(), milliseconds(20)), IoStatus::ok);
    EXPECT_EQ(lun_->counters.flushes, i);
  }
  EXPECT_LE(path(1).failures, 2U) << "it has been learned";
}

TEST_F(OtherPathsTest, AFlushWaitsForRoomOnThePathThatTakesIt) {
  start();
  answer_with(is_flush_at_1, ScsiStatus::check_condition,
              make_sense(SenseKey::illegal_request, 0x2000));
  const auto write_at_0 = [this]() -> GuestRequest& { return write(requests_.size() * 8, 8, 1); };
  hold_next_write_at(0);
  const GuestRequest& occupant = at_path(0, write_at_0);
  reactor_.run_for(milliseconds(5));
  SimFault full = status_fault(ScsiStatus::task_set_full);
  full.matches = writes_at(0);
  target_->inject(full);
  at_path(0, write_at_0);  // from then on there is room for one command
  reactor_.run_for(milliseconds(5));
  const std::uint64_t before = path(1).requests;
  const GuestRequest& request = flush();
  reactor_.run_for(milliseconds(120));
  EXPECT_TRUE(pending(request));
  EXPECT_GE(path(1).requests, before + 3) << "there is no room on path 0";
  EXPECT_LE(path(1).requests, before + 8) << "asked again and again";
  target_->release_held();
  EXPECT_EQ(answer(request, milliseconds(100)), IoStatus::ok);
  EXPECT_EQ(answer(occupant), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

// ---- nothing is told of the cache

struct Trouble {
  const char* what;
  ScsiStatus status;
  std::vector<std::byte> sense;
};
const Trouble kTroubles[] = {
    {"hardware_error", ScsiStatus::check_condition, make_sense(SenseKey::hardware_error, 0x4400)},
    {"not_ready", ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0403)},
    {"unusable_sense", ScsiStatus::check_condition, {}},
    {"busy", ScsiStatus::busy, {}},
};
class UntoldCacheTest : public RefusedFlushTest, public testing::WithParamInterface<Trouble> {};
class LastingTroubleTest : public UntoldCacheTest {
 protected:
  void start_in_trouble(const std::vector<std::uint16_t>& portals, bool write_cache) {
    lun_options_.write_cache = write_cache;
    refuse_flushes();
    start_target(portals);
    answer_with(is_mode_sense, GetParam().status, GetParam().sense);
    start_device(false);
    ASSERT_TRUE(wait_for_up(portals.size()));
  }
};

TEST_P(UntoldCacheTest, TroubleThatPassesHidesNoCache) {
  lun_options_.write_cache = true;
  refuse_flushes();
  start_target({1});
  answer_with(is_mode_sense, GetParam().status, GetParam().sense, 5);
  start_device();
  EXPECT_EQ(answer(flush()), IoStatus::not_supported);
}

TEST_P(UntoldCacheTest, TroubleThatPassesInventsNoCache) {
  lun_options_.write_cache = false;
  refuse_flushes();
  start_target({1});
  answer_with(is_mode_sense, GetParam().status, GetParam().sense, 5);
  start_device();
  EXPECT_EQ(answer(flush()), IoStatus::ok);
}

TEST_P(LastingTroubleTest, AFlushThatIsRefusedIsNotAcknowledgedWhereNothingIsTold) {
  start_in_trouble({1}, true);
  ASSERT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  for (int i = 0; i < 2; ++i) {
    const GuestRequest& request = flush();
    reactor_.run_for(seconds(6));
    EXPECT_TRUE(pending(request)) << "the LUN may tell";
    EXPECT_EQ(answer(request), IoStatus::not_supported);
  }
}

// A reservation of another host's, a controller that starts: nobody tells when it is over.
TEST_P(LastingTroubleTest, AFlushThatIsRefusedWaitsForTheLunToTellOfItsCache) {
  start_in_trouble({1, 1}, false);
  const GuestRequest& request = flush();
  for (int second = 0; second < 6; ++second) {
    reactor_.run_for(milliseconds(995));
    EXPECT_GE(up(), 1U) << "the guest's other requests go on";
  }
  ASSERT_TRUE(pending(request));
  target_->clear_faults();
  EXPECT_EQ(answer(request), IoStatus::ok);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(answer(flush(), milliseconds(20)), IoStatus::ok);
  }
}

TEST_P(LastingTroubleTest, AFlushThatIsRefusedIsNotAcknowledgedWhereTheLunTellsOfACacheInTheEnd) {
  start_in_trouble({1, 1}, true);
  const GuestRequest& request = flush();
  reactor_.run_for(seconds(6));
  ASSERT_TRUE(pending(request));
  target_->clear_faults();
  EXPECT_EQ(answer(request), IoStatus::not_supported);
}

std::string name_of(const testing::TestParamInfo<Trouble>& test) {
  return test.param.what;
}
INSTANTIATE_TEST_SUITE_P(Troubles, UntoldCacheTest, testing::ValuesIn(kTroubles), name_of);
// A path that is busy for ever is not used.
INSTANTIATE_TEST_SUITE_P(Troubles, LastingTroubleTest,
                         testing::ValuesIn(kTroubles, kTroubles + std::size(kTroubles) - 1),
                         name_of);

// ---- in which words

TEST_F(RefusedFlushTest, WithoutACacheNoRefusalKeepsAFlushWaiting) {
  lun_options_.write_cache = false;
  start({1, 1});
  for (const auto& [key, code] : {std::pair{SenseKey::illegal_request, 0x2c00},
                                  {SenseKey::illegal_request, 0x2600},
                                  {SenseKey::illegal_request, 0x8001},
                                  {SenseKey::data_protect, 0x2700},
                                  {SenseKey::data_protect, 0x2704},
                                  {SenseKey::illegal_request, 0x2101},
                                  {SenseKey::illegal_request, 0x2100},
                                  {SenseKey::illegal_request, 0x2400},
                                  {SenseKey::illegal_request, 0x2000}}) {
    answer_with(is_flush, ScsiStatus::check_condition,
                make_sense(key, static_cast<std::uint16_t>(code)));
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(answer(flush(), milliseconds(20)), IoStatus::ok) << std::hex << code;
    }
    target_->clear_faults();
  }
}

// Whatever is refused for good with a cache: the guest's disk cannot be served.
TEST_F(RefusedFlushTest, WithACacheARefusalForGoodIsNotSupported) {
  start({1, 1});
  for (const int code : {0x2400, 0x2401, 0x2100, 0x2000}) {
    answer_with(is_flush, ScsiStatus::check_condition,
                make_sense(SenseKey::illegal_request, static_cast<std::uint16_t>(code)));
    EXPECT_EQ(answer(flush(), milliseconds(20)), IoStatus::not_supported) << std::hex << code;
    target_->clear_faults();
    EXPECT_EQ(answer(flush(), milliseconds(20)), IoStatus::ok) << "each is sent";
  }
  answer_with(is_flush, ScsiStatus::check_condition, make_sense(SenseKey::data_protect, 0x2700));
  EXPECT_EQ(answer(flush(), milliseconds(20)), IoStatus::write_protected);
}

// The device's user asks again.
TEST_F(RefusedFlushTest, WhatMayPassIsNoRefusalForGood) {
  start({1, 1});
  answer_with(is_flush, ScsiStatus::reservation_conflict);
  EXPECT_EQ(answer(flush()), IoStatus::reservation_conflict);
  target_->clear_faults();
  answer_with(is_flush, ScsiStatus::check_condition, make_sense(SenseKey::illegal_request, 0x2c00));
  EXPECT_EQ(answer(flush()), IoStatus::target_error);
  target_->clear_faults();
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

TEST_F(RefusedFlushTest, AnInvalidFieldInOneFormIsNoneInTheOther) {
  start({1});
  answer_with([](const SimCommand& command) { return command.cdb[0] == kSynchronizeCache16; },
              ScsiStatus::check_condition, make_sense(SenseKey::illegal_request, 0x2400));
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

// There is nothing to flush, whatever it says for ever, however it says it.
class NeedlessFlushTest : public RefusedFlushTest, public testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    lun_options_.write_cache = GetParam();
    start({1});
  }
};

TEST_P(NeedlessFlushTest, WhateverTheTargetSaysOfItInTheEndItIsDoneWithout) {
  const Trouble kWords[] = {
      {"no sense data", ScsiStatus::check_condition, {}},
      {"sense data of no format", ScsiStatus::check_condition, std::vector<std::byte>(18)},
      {"a status that is none", static_cast<ScsiStatus>(0x22), {}},
      {"reservation conflict", ScsiStatus::reservation_conflict, {}},
      {"task aborted", ScsiStatus::task_aborted, {}},
      {"ACA active", ScsiStatus::aca_active, {}},
      {"busy", ScsiStatus::busy, {}},
      {"task set full", ScsiStatus::task_set_full, {}},
      {"aborted", ScsiStatus::check_condition, make_sense(SenseKey::aborted_command, 0x0000)},
      {"internal target failure", ScsiStatus::check_condition,
       make_sense(SenseKey::hardware_error, 0x4400)},
      {"vendor's", ScsiStatus::check_condition, make_sense(SenseKey::vendor_specific, 0x8000)},
      {"blank check", ScsiStatus::check_condition, make_sense(SenseKey::blank_check, 0x0000)},
      {"protection", ScsiStatus::check_condition, make_sense(SenseKey::aborted_command, 0x1001)},
      {"becoming ready", ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0401)},
      {"attention", ScsiStatus::check_condition, make_sense(SenseKey::unit_attention, 0x2a02)},
      {"parameter list", ScsiStatus::check_condition,
       make_sense(SenseKey::illegal_request, 0x2600)},
  };
  for (const Trouble& word : kWords) {
    SCOPED_TRACE(word.what);
    answer_with(is_flush, word.status, word.sense);
    const GuestRequest& request = flush();
    const bool answered =
        reactor_.run_until([&] { return request.completions != 0; }, std::chrono::minutes(3));
    if (GetParam()) {
      EXPECT_TRUE(!answered || request.status != IoStatus::ok) << "it may not be on the medium";
    } else {
      EXPECT_EQ(request.status, IoStatus::ok);
      EXPECT_EQ(up(), 1U) << "the path serves all else";
    }
    target_->clear_faults();
    wait(request);
    ASSERT_TRUE(wait_for_up(1));
  }
}

TEST_P(NeedlessFlushTest, OneThatIsNeverAnsweredIsDoneWithoutWhenItIsAborted) {
  SimFault silent;
  silent.matches = is_flush;
  silent.count = 0;
  silent.answer = false;
  target_->inject(silent);
  const GuestRequest& request = flush();
  reactor_.run_for(seconds(40));
  EXPECT_EQ(pending(request), GetParam());
  target_->clear_faults();
  EXPECT_EQ(answer(request, std::chrono::minutes(5)), IoStatus::ok);
}

TEST_P(NeedlessFlushTest, AResponseCodeOfTheTargetsIsNoReason) {
  SimFault failure;
  failure.matches = is_flush;
  failure.count = 0;
  failure.response_code = 1;
  target_->inject(failure);
  EXPECT_EQ(answer(flush()), GetParam() ? IoStatus::target_error : IoStatus::ok);
}

// What it says of the data of others is no matter of this flush.
TEST_P(NeedlessFlushTest, ALossThatItTellsIsToldAllTheSame) {
  answer_with(is_flush, ScsiStatus::check_condition, make_sense(SenseKey::medium_error, 0x0c00), 1);
  EXPECT_EQ(answer(flush()), IoStatus::medium_error);
}

INSTANTIATE_TEST_SUITE_P(Cache, NeedlessFlushTest, testing::Bool(),
                         [](const auto& test) { return std::string(test.param ? "on" : "off"); });

// What it is judged by is just being read again.
TEST_F(RefusedFlushTest, AnErrorThatComesWhileTheLunIsReadAgainDoesNotEndAFlush) {
  lun_options_.write_cache = false;
  start({1});
  SimFault conflict;
  conflict.matches = is_flush;
  conflict.status = ScsiStatus::reservation_conflict;
  conflict.extra_delay = milliseconds(5);
  target_->inject(conflict);
  const GuestRequest& request = flush();
  reactor_.run_for(milliseconds(2));
  lun_->options.write_cache = true;
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a01);
  EXPECT_EQ(answer(request), IoStatus::reservation_conflict) << "who asks again will be told";
}

TEST_F(OtherPathsTest, WhileAPathIsBeingReadAgainAnErrorDoesNotEndAFlush) {
  lun_options_.write_cache = false;
  start({1, 1});
  read_path_0_again();
  answer_with(is_flush, ScsiStatus::reservation_conflict);
  EXPECT_EQ(answer(flush(), seconds(1)), IoStatus::reservation_conflict);
  target_->clear_faults();
  target_->release_held();
}

// ---- whenever it fails

struct FlushTrouble {
  const char* what;
  SimFault fault;
};

std::vector<FlushTrouble> flush_troubles() {
  std::vector<FlushTrouble> troubles;
  const auto add = [&](const char* what, const std::function<void(SimFault&)>& change) {
    troubles.push_back({what, {}});
    troubles.back().fault.matches = is_flush;
    change(troubles.back().fault);
  };
  const auto add_sense = [&](const char* what, SenseKey key, std::uint16_t code) {
    add(what, [&](SimFault& fault) {
      fault.status = ScsiStatus::check_condition;
      fault.sense = make_sense(key, code);
    });
  };
  add_sense("hardware error", SenseKey::hardware_error, 0x4400);
  add_sense("becoming ready", SenseKey::not_ready, 0x0401);
  add_sense("aborted command", SenseKey::aborted_command, 0x0000);
  add_sense("reset", SenseKey::unit_attention, 0x2900);
  add_sense("capacity changed", SenseKey::unit_attention, 0x2a09);
  add_sense("modes changed", SenseKey::unit_attention, 0x2a01);
  add_sense("recovered error", SenseKey::recovered_error, 0x0c00);
  troubles.back().fault.execute = true;
  add_sense("unknown command", SenseKey::illegal_request, 0x2000);
  add_sense("unknown field", SenseKey::illegal_request, 0x2400);
  const auto add_status = [&](const char* what, ScsiStatus status) {
    add(what, [&](SimFault& fault) { fault.status = status; });
  };
  add_status("busy", ScsiStatus::busy);
  add_status("task set full", ScsiStatus::task_set_full);
  add_status("reservation conflict", ScsiStatus::reservation_conflict);
  add("response code", [](SimFault& fault) { fault.response_code = 1; });
  add("lost connection", [](SimFault& fault) { fault.drop_connection = true; });
  add("executed, lost connection", [](SimFault& fault) {
    fault.drop_connection = true;
    fault.execute = true;
  });
  add("slow", [](SimFault& fault) {
    fault.execute = true;
    fault.extra_delay = seconds(3);
  });
  add("no answer", [](SimFault& fault) { fault.answer = false; });
  return troubles;
}

class FlushMomentTest : public RefusedFlushTest, public testing::WithParamInterface<const char*> {
 protected:
  // What else happens between the flush and its answer.
  void begin(std::string_view moment) {
    if (moment == "suspended_before") {
      device_->set_guest({GuestState::suspended});
    } else if (moment == "no_path") {
      refuse(0);
      refuse(1);
      ASSERT_TRUE(wait_for_up(0));
    } else if (moment == "path_lost") {
      cut(0);
      ASSERT_TRUE(wait_for_up(1));
    } else if (moment == "second_path_is_identified") {
      cut(1);
      ASSERT_TRUE(wait_for_up(1));
      hold_inquiries(1, 1);
      restore(1);
      ASSERT_TRUE(reactor_.run_until([&] { return target_->held() == 1; }, seconds(10)));
    } else if (moment == "resize") {
      lun_->resize(lun_->options.block_count + 8);
      target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a09);
    }
  }
  void go_on(std::string_view moment) {
    reactor_.run_for(milliseconds(1));
    if (moment == "suspended_meanwhile") {
      device_->set_guest({GuestState::suspended});
    } else if (moment == "path_lost_meanwhile") {
      cut(0);
    } else if (moment == "path_removed_meanwhile") {
      ASSERT_TRUE(device_->remove_path(*sessions_[0], 0));
    } else if (moment == "hung_meanwhile") {
      target_->set_hung(true);
    }
    reactor_.run_for(seconds(5));
    if (moment == "hung_meanwhile") {
      target_->set_hung(false);
    }
    target_->release_held();
    device_->set_guest({GuestState::runs});
    accept(0);
    accept(1);
    restore(0);
    restore(1);
  }
};

// Success is the LUN's word, and for what had been written before.
TEST_P(FlushMomentTest, NoFlushIsAnsweredWithoutBeingExecutedAndEachOnce) {
  const std::string_view moment = GetParam();
  start();
  std::uint64_t execution = 0;
  for (const FlushTrouble& trouble : flush_troubles()) {
    for (const std::uint32_t count : {1U, 3U}) {
      SCOPED_TRACE(testing::Message() << trouble.what << ", " << count);
      ASSERT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
      ASSERT_NO_FATAL_FAILURE(begin(moment));
      SimFault fault = trouble.fault;
      fault.count = count;
      target_->inject(fault);
      execution = lun_->counters.flushes;
      std::vector<const GuestRequest*> flushes;
      for (std::uint32_t i = 0; i < count; ++i) {
        flushes.push_back(&flush());
      }
      ASSERT_NO_FATAL_FAILURE(go_on(moment));
      for (const GuestRequest* request : flushes) {
        if (answer(*request, std::chrono::minutes(3)) == IoStatus::ok) {
          EXPECT_GT(lun_->counters.flushes, execution);
        }
      }
      target_->clear_faults();
      EXPECT_EQ(answer(flush()), IoStatus::ok) << "the next one";
      if (moment != "path_removed_meanwhile") {
        ASSERT_TRUE(wait_for_up(2, std::chrono::minutes(2)));
      } else {
        return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Moments, FlushMomentTest,
                         testing::Values("always", "suspended_before", "suspended_meanwhile",
                                         "no_path", "path_lost", "path_lost_meanwhile",
                                         "path_removed_meanwhile", "second_path_is_identified",
                                         "resize", "hung_meanwhile"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace iscsi_blkback
