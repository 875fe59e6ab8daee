#include "initiator/lun/logical_unit.h"

#include <gmock/gmock.h>

#include <optional>

#include "base/byte_order.h"
#include "tests/initiator/session/session_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

class LogicalUnitTest : public SessionTest {
 protected:
  void SetUp() override { ASSERT_TRUE(initiator.start()); }
  void TearDown() override { initiator.stop(); }

  Result<LogicalUnitIdentity> identify(LogicalUnit& which) {
    std::optional<Result<LogicalUnitIdentity>> identity;
    which.identify(
        [](void* owner, Result<LogicalUnitIdentity> result) noexcept {
          auto& place = *static_cast<std::optional<Result<LogicalUnitIdentity>>*>(owner);
          EXPECT_FALSE(place.has_value()) << "told twice";
          place = std::move(result);
        },
        &identity);
    EXPECT_FALSE(identity.has_value()) << "told from inside identify()";
    EXPECT_TRUE(runs_until(reactor, [&] { return identity.has_value(); }));
    return *identity;
  }

  TestSession initiator{reactor, test_session_options()};
  LogicalUnit unit{reactor, initiator.session, encode_lun(0)};
};

TEST_F(LogicalUnitTest, LearnsWhoTheLunIs) {
  lun->options.thin_provisioned = true;
  lun->options.max_transfer_blocks = 2048;
  const auto identity = identify(unit);
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->vendor, "SIM");
  EXPECT_EQ(identity->product, "DISK");
  EXPECT_EQ(identity->revision, "0001");
  EXPECT_EQ(identity->serial, "SERIAL0");
  EXPECT_EQ(identity->wwid, "360014050000000000000000000000001");
  EXPECT_EQ(identity->block_count, 16384U);
  EXPECT_EQ(identity->logical_block_bytes, 512U);
  EXPECT_EQ(identity->physical_block_bytes, 4096U);
  EXPECT_EQ(identity->max_transfer_blocks, 2048U);
  EXPECT_TRUE(identity->thin_provisioned);
  EXPECT_FALSE(identity->write_protected);
}

TEST_F(LogicalUnitTest, SerialNumberStandsInForAMissingPage83) {
  lun->options.naa_extension = 0;
  EXPECT_EQ(identify(unit)->wwid, "SSIM_DISK_SERIAL0");
}

TEST_F(LogicalUnitTest, NoIdentificationAtAllIsAnEmptyWwid) {
  lun->options.naa_extension = 0;
  lun->options.serial.clear();
  EXPECT_EQ(identify(unit)->wwid, "");
}

TEST_F(LogicalUnitTest, UnitAttentionsAreRetried) {
  for (const int code : {0x2900, 0x2a09, 0x3f0e, 0x2a01}) {
    target->add_unit_attention(static_cast<std::uint16_t>(code));
  }
  EXPECT_TRUE(identify(unit));
}

// The LUN is another one from a certain command on, and says so in the answer to that.
class ChangedLunTest : public LogicalUnitTest {
 protected:
  void change_at(std::uint8_t operation, std::function<void()> change) {
    target->inject({.matches =
                        [operation, change = std::move(change)](const SimCommand& command) {
                          if (command.cdb[0] != operation) {
                            return false;
                          }
                          change();
                          return true;
                        },
                    .status = ScsiStatus::check_condition,
                    .sense = make_sense(SenseKey::unit_attention, 0x2900)});
  }
};

TEST_F(ChangedLunTest, WhatWasToldBeforeAUnitAttentionCountsForNothing) {
  lun->options.thin_provisioned = true;
  lun->options.max_transfer_blocks = 2048;
  change_at(scsi_operation::kServiceActionIn16, [this] {
    lun->options.naa_extension = 0;
    lun->options.serial.clear();
    lun->options.thin_provisioned = false;
    lun->options.max_transfer_blocks = 0;
  });
  const auto identity = identify(unit);
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->wwid, "");
  EXPECT_EQ(identity->serial, "");
  EXPECT_FALSE(identity->thin_provisioned);
  EXPECT_EQ(identity->max_transfer_blocks, 0U);
}

TEST_F(ChangedLunTest, WhatTheOneBeforeHadAndThisOneHasNotCountsForNothing) {
  lun->options.thin_provisioned = true;
  lun->options.max_transfer_blocks = 2048;
  change_at(scsi_operation::kServiceActionIn16, [this] {
    lun->options.pages = {{0xb0, {}}, {0xb1, {}}, {0xb2, {}}};
  });
  const auto identity = identify(unit);
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->max_transfer_blocks, 0U);
  EXPECT_EQ(identity->limits.max_unmap_blocks, 0U);
  EXPECT_EQ(identity->rotation_rate, 0U);
  EXPECT_FALSE(identity->provisioning.unmap);
}

TEST_F(ChangedLunTest, OneThatKnowsTheLongCommandsAfterAllIsDrivenWithThem) {
  lun->options.has_16_byte_commands = false;
  change_at(scsi_operation::kReadCapacity10, [this] { lun->options.has_16_byte_commands = true; });
  const auto identity = identify(unit);
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_TRUE(identity->has_16_byte_commands);
  EXPECT_EQ(identity->max_transfer_blocks, 0U);
}

TEST_F(LogicalUnitTest, EndlessUnitAttentionsEnd) {
  target->inject({.count = 0,
                  .status = ScsiStatus::check_condition,
                  .sense = make_sense(SenseKey::unit_attention, 0x2900)});
  EXPECT_FALSE(identify(unit));
}

TEST_F(LogicalUnitTest, BusyIsRetried) {
  target->inject({.count = 3, .status = ScsiStatus::busy});
  target->inject({.count = 2, .status = ScsiStatus::task_set_full});
  EXPECT_TRUE(identify(unit));
}

TEST_F(LogicalUnitTest, NotReadyIsUnavailable) {
  target->inject(
      {.status = ScsiStatus::check_condition, .sense = make_sense(SenseKey::not_ready, 0x0403)});
  const auto identity = identify(unit);
  ASSERT_FALSE(identity);
  EXPECT_EQ(identity.error().code, ErrorCode::unavailable);
  EXPECT_THAT(identity.error().message, HasSubstr("not ready: sense 2/04/03"));
}

TEST_F(LogicalUnitTest, MissingLunIsNotFound) {
  LogicalUnit missing(reactor, initiator.session, encode_lun(5));
  const auto identity = identify(missing);
  ASSERT_FALSE(identity);
  EXPECT_EQ(identity.error().code, ErrorCode::not_found);
  EXPECT_THAT(identity.error().message, HasSubstr("LUN 5"));
}

TEST_F(LogicalUnitTest, DeviceThatIsNoDiskIsRefused) {
  lun->options.device_type = 0x05;
  const auto identity = identify(unit);
  ASSERT_FALSE(identity);
  EXPECT_EQ(identity.error().code, ErrorCode::unsupported);
}

TEST_F(LogicalUnitTest, FailedTargetIsAnError) {
  target->inject({.response_code = 1});
  EXPECT_FALSE(identify(unit));
}

TEST_F(LogicalUnitTest, LostConnectionIsAnError) {
  target->inject({.hold = true});
  target->inject({.drop_connection = true});
  lun->options.serial = "X";
  LogicalUnit other(reactor, initiator.session, encode_lun(0));
  std::optional<Result<LogicalUnitIdentity>> identity;
  other.identify(
      [](void* owner, Result<LogicalUnitIdentity> result) noexcept {
        *static_cast<std::optional<Result<LogicalUnitIdentity>>*>(owner) = std::move(result);
      },
      &identity);
  ASSERT_TRUE(runs_until(reactor, [&] { return target->held() == 1; }));
  reactor.network().reset_connections(test_address(1));
  ASSERT_TRUE(runs_until(reactor, [&] { return identity.has_value(); }));
  EXPECT_FALSE(*identity);
  EXPECT_EQ(identity->error().code, ErrorCode::unavailable);
}

// Each of its commands may be the one that is lost, those that a LUN need not know, too.
TEST_F(LogicalUnitTest, AConnectionThatIsLostAtAnyCommandIsAnError) {
  for (const std::uint8_t operation :
       {scsi_operation::kTestUnitReady, scsi_operation::kInquiry,
        scsi_operation::kServiceActionIn16, scsi_operation::kModeSense6}) {
    ASSERT_TRUE(initiator.up());
    target->inject(
        {.matches = [=](const SimCommand& command) { return command.cdb[0] == operation; },
         .drop_connection = true});
    const auto identity = identify(unit);
    ASSERT_FALSE(identity) << "operation " << int{operation};
    EXPECT_EQ(identity.error().code, ErrorCode::unavailable);
  }
}

TEST_F(LogicalUnitTest, CancelledIdentifyTellsNobody) {
  target->inject({.hold = true});
  auto cancelled = std::make_unique<LogicalUnit>(reactor, initiator.session, encode_lun(0));
  cancelled->identify(
      [](void*, Result<LogicalUnitIdentity>) noexcept { ADD_FAILURE() << "told after cancel"; },
      nullptr);
  ASSERT_TRUE(runs_until(reactor, [&] { return target->held() == 1; }));
  cancelled->cancel_identify();
  cancelled.reset();  // the command is still at the target
  target->release_held();
  reactor.run_for(seconds(1));
  EXPECT_EQ(initiator.session.commands_in_flight(), 0U);
}

TEST_F(LogicalUnitTest, ReadOnlyLunIsSeen) {
  lun->options.read_only = true;
  EXPECT_TRUE(identify(unit)->write_protected);
  lun->options.has_mode_sense = false;
  EXPECT_FALSE(identify(unit)->write_protected) << "unknown is not an error";
}

TEST_F(LogicalUnitTest, LunWithout16ByteCommandsIsDrivenWith10) {
  lun->options.has_16_byte_commands = false;
  const auto identity = identify(unit);
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->block_count, 16384U);
  EXPECT_EQ(identity->max_transfer_blocks, 65535U);
  BlockRequest request;
  request.sector = 8;
  request.sector_count = 16;
  ScsiTask task;
  for (const auto& [operation, code] : {std::pair{BlockOperation::read, 0x28},
                                        {BlockOperation::write, 0x2a},
                                        {BlockOperation::flush, 0x35}}) {
    request.operation = operation;
    unit.prepare_io(task, request);
    EXPECT_EQ(task.cdb[0], code);
  }
}

TEST_F(LogicalUnitTest, SectorsBecomeLogicalBlocks) {
  auto large = std::make_shared<SimLun>(SimLunOptions{.block_count = 100, .block_bytes = 4096});
  target->add_lun(300, large);
  LogicalUnit big(reactor, initiator.session, encode_lun(300));
  const auto identity = identify(big);
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->logical_block_bytes, 4096U);
  std::vector<std::byte> data = test_pattern(8192, 1);
  BlockRequest request;
  request.operation = BlockOperation::write;
  request.sector = 80;
  request.sector_count = 16;
  request.data = data.data();
  TestCommand write;
  big.prepare_io(write.task, request);
  EXPECT_EQ(write.task.cdb[0], 0x8a);
  EXPECT_EQ(load_be64(reinterpret_cast<const std::byte*>(write.task.cdb.data()) + 2), 10U);
  EXPECT_EQ(load_be32(reinterpret_cast<const std::byte*>(write.task.cdb.data()) + 10), 2U);
  EXPECT_EQ(write.task.data_length_bytes, 8192U);
  write.data = data;
  write.submit(initiator.session);
  ASSERT_TRUE(runs_until(reactor, [&] { return write.done; }));
  EXPECT_TRUE(write.task.succeeded());
  EXPECT_TRUE(std::equal(data.begin(), data.end(), large->medium().begin() + 40960));
}

TEST_F(LogicalUnitTest, FlushAndTestUnitReadyMoveNoData) {
  ASSERT_TRUE(identify(unit));
  TestCommand flush;
  BlockRequest request;
  request.operation = BlockOperation::flush;
  unit.prepare_io(flush.task, request);
  EXPECT_EQ(flush.task.direction, DataDirection::none);
  flush.submit(initiator.session);
  ASSERT_TRUE(runs_until(reactor, [&] { return flush.done; }));
  EXPECT_TRUE(flush.task.succeeded());
  EXPECT_EQ(lun->counters.flushes, 1U);
  TestCommand ready;
  unit.prepare_test_unit_ready(ready.task);
  ready.submit(initiator.session);
  ASSERT_TRUE(runs_until(reactor, [&] { return ready.done; }));
  EXPECT_TRUE(ready.task.succeeded());
}

// Every command that is more than a read or a write, and what it does to the LUN.
class LogicalUnitCommandsTest : public LogicalUnitTest {
 protected:
  LogicalUnitCommandsTest() {
    lun->options.thin_provisioned = true;
    lun->options.tpgs = 3;
    lun->options.port_groups = {{.tag = 1, .state = AccessState::active_optimized, .ports = {1}},
                                {.tag = 2, .state = AccessState::standby, .ports = {2}}};
  }
  void run() {
    bool done = false;
    task.owner = &done;
    task.on_complete = [](ScsiTask& completed) noexcept {
      *static_cast<bool*>(completed.owner) = true;
    };
    initiator.session.submit(task);
    ASSERT_TRUE(runs_until(reactor, [&] { return done; }));
  }
  void fill(std::byte value) { std::fill(lun->medium().begin(), lun->medium().end(), value); }
  [[nodiscard]] bool sectors_are(std::uint64_t first, std::uint64_t count, std::byte value) const {
    const auto begin = lun->medium().begin() + static_cast<std::ptrdiff_t>(first * 512);
    return std::all_of(begin, begin + static_cast<std::ptrdiff_t>(count * 512),
                       [value](std::byte byte) { return byte == value; });
  }

  std::array<std::byte, 4096> buffer{};
  ScsiTask task;
};

TEST_F(LogicalUnitCommandsTest, IdentityTellsWhatTheLunCanDo) {
  const auto identity = identify(unit);
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->tpgs, 3);
  EXPECT_EQ(identity->write_cache, WriteCache::on);
  EXPECT_TRUE(identity->force_unit_access);
  EXPECT_TRUE(identity->task_aborted_status);
  EXPECT_FALSE(identity->software_write_protect);
  EXPECT_TRUE(identity->has_16_byte_commands);
  EXPECT_TRUE(identity->provisioning.unmap);
  EXPECT_TRUE(identity->provisioning.write_same_unmap);
  EXPECT_TRUE(identity->provisioning.reads_zeros);
  EXPECT_EQ(identity->limits.max_unmap_blocks, 1024U);
  EXPECT_EQ(identity->limits.max_unmap_ranges, 16U);
  EXPECT_EQ(identity->limits.unmap_granularity_blocks, 8U);
  EXPECT_EQ(identity->limits.unmap_alignment_blocks, 4U);
  EXPECT_EQ(identity->limits.max_write_same_blocks, 4096U);
  EXPECT_EQ(identity->rotation_rate, 1);
}

TEST_F(LogicalUnitCommandsTest, ModeSense10WhereThereIsNo6) {
  lun->options.has_mode_sense6 = false;
  lun->options.write_cache = false;
  lun->options.force_unit_access = false;
  lun->options.software_write_protect = true;
  const auto identity = identify(unit);
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->write_cache, WriteCache::off);
  EXPECT_FALSE(identity->force_unit_access);
  EXPECT_TRUE(identity->software_write_protect);
  EXPECT_TRUE(identity->write_protected) << "whichever way";
}

TEST_F(LogicalUnitCommandsTest, UnmapOfSeveralRanges) {
  fill(std::byte{7});
  const std::array<LogicalUnit::SectorRange, 2> ranges = {
      {{.sector = 8, .sector_count = 16}, {.sector = 100, .sector_count = 1}}};
  unit.prepare_unmap(task, ranges, buffer);
  run();
  EXPECT_TRUE(task.succeeded());
  EXPECT_EQ(lun->counters.unmaps, 1U);
  EXPECT_TRUE(sectors_are(8, 16, std::byte{0}) && sectors_are(100, 1, std::byte{0}));
  EXPECT_TRUE(sectors_are(0, 8, std::byte{7}) && sectors_are(24, 76, std::byte{7}));
}

TEST_F(LogicalUnitCommandsTest, RefusedUnmapBringsItsSense) {
  const std::array<LogicalUnit::SectorRange, 1> ranges = {{{.sector = 16380, .sector_count = 16}}};
  unit.prepare_unmap(task, ranges, buffer);
  run();
  EXPECT_FALSE(task.succeeded());
  EXPECT_EQ(task.sense.code(), 0x2100);
}

TEST_F(LogicalUnitCommandsTest, DiscardInTheFormThatTheLunHas) {
  BlockRequest request;
  request.operation = BlockOperation::discard;
  request.sector = 8;
  request.sector_count = 16;
  LogicalUnit::DiscardParameters parameters;
  for (const bool has_unmap : {true, false}) {
    lun->options.has_unmap = has_unmap;
    const auto identity = identify(unit);
    ASSERT_TRUE(identity);
    EXPECT_EQ(identity->discard_form(), has_unmap ? DiscardForm::unmap : DiscardForm::write_same);
    fill(std::byte{7});
    unit.prepare_discard(task, request, identity->discard_form(), parameters);
    run();
    EXPECT_TRUE(task.succeeded());
    EXPECT_TRUE(sectors_are(8, 16, std::byte{0}) && sectors_are(24, 8, std::byte{7}) &&
                sectors_are(0, 8, std::byte{7}));
  }
  EXPECT_EQ(lun->counters.unmaps, 1U);
  EXPECT_EQ(lun->counters.write_sames, 1U);
}

TEST(LogicalUnitIdentityTest, BlocksAreDeallocatedOnlyWhereTheLunIsThin) {
  LogicalUnitIdentity identity;
  identity.provisioning.unmap = identity.provisioning.write_same_unmap = true;
  identity.limits.max_unmap_blocks = identity.limits.max_unmap_ranges = 8;
  EXPECT_EQ(identity.discard_form(), DiscardForm::none);
  identity.thin_provisioned = true;
  EXPECT_EQ(identity.discard_form(), DiscardForm::unmap);
  identity.limits.max_unmap_blocks = 0;
  EXPECT_EQ(identity.discard_form(), DiscardForm::write_same);
  identity.limits.max_unmap_blocks = 8;
  identity.limits.max_unmap_ranges = 0;
  EXPECT_EQ(identity.discard_form(), DiscardForm::write_same);
  identity.provisioning.write_same_unmap = false;
  EXPECT_EQ(identity.discard_form(), DiscardForm::none);
}

TEST_F(LogicalUnitCommandsTest, DeallocationInLogicalBlocksOf4096) {
  auto large = std::make_shared<SimLun>(
      SimLunOptions{.block_count = 100, .block_bytes = 4096, .thin_provisioned = true});
  std::fill(large->medium().begin(), large->medium().end(), std::byte{7});
  target->add_lun(20, large);
  LogicalUnit big(reactor, initiator.session, encode_lun(20));
  ASSERT_TRUE(identify(big));
  const std::array<LogicalUnit::SectorRange, 1> ranges = {{{.sector = 8, .sector_count = 16}}};
  big.prepare_unmap(task, ranges, buffer);
  run();
  EXPECT_TRUE(task.succeeded());
  BlockRequest request;
  request.operation = BlockOperation::discard;
  request.sector = 40;
  request.sector_count = 8;
  LogicalUnit::DiscardParameters parameters;
  big.prepare_discard(task, request, DiscardForm::write_same, parameters);
  EXPECT_EQ(task.data_length_bytes, 4096U);
  run();
  EXPECT_TRUE(task.succeeded());
  for (std::size_t block = 0; block < 8; ++block) {
    const bool zero = block == 1 || block == 2 || block == 5;
    EXPECT_EQ(large->medium()[block * 4096 + 4095], zero ? std::byte{0} : std::byte{7}) << block;
  }
}

TEST_F(LogicalUnitCommandsTest, TargetPortGroupsAreReportedAndSet) {
  lun->options.implicit_transition_seconds = 30;
  unit.prepare_report_target_port_groups(task, buffer, true);
  run();
  auto groups = parse_target_port_groups(std::span{buffer}.first(task.transferred_bytes));
  ASSERT_TRUE(groups);
  EXPECT_EQ(groups->implicit_transition_seconds, 30);
  ASSERT_EQ(groups->groups.size(), 2U);
  EXPECT_EQ(groups->groups[1].state, AccessState::standby);
  const std::array<SetTargetPortGroup, 2> wanted = {
      {{.tag = 1, .state = AccessState::standby},
       {.tag = 2, .state = AccessState::active_optimized}}};
  unit.prepare_set_target_port_groups(task, wanted, buffer);
  run();
  EXPECT_TRUE(task.succeeded());
  unit.prepare_report_target_port_groups(task, buffer, false);
  run();
  groups = parse_target_port_groups(std::span{buffer}.first(task.transferred_bytes));
  ASSERT_TRUE(groups);
  EXPECT_EQ(groups->groups[0].state, AccessState::standby);
  EXPECT_EQ(groups->groups[1].state, AccessState::active_optimized);
}

TEST_F(LogicalUnitCommandsTest, ReportLunsTellsNumbersBelowAndAbove256) {
  target->add_lun(300, std::make_shared<SimLun>(SimLunOptions{.block_count = 8}));
  unit.prepare_report_luns(task, buffer);
  run();
  const auto luns = parse_report_luns(std::span{buffer}.first(task.transferred_bytes));
  ASSERT_TRUE(luns);
  ASSERT_EQ(luns->size(), 2U);
  EXPECT_EQ(decode_lun((*luns)[0]), 0U);
  EXPECT_EQ(decode_lun((*luns)[1]), 300U);
}

TEST_F(LogicalUnitCommandsTest, ReservationCommandsAreSentAsTheyAre) {
  unit.prepare_reserve_in(task, ReserveInAction::read_keys, buffer);
  EXPECT_EQ(task.cdb[0], 0x5e);
  EXPECT_EQ(task.direction, DataDirection::in);
  EXPECT_EQ(task.data_length_bytes, 4096U);
  run();
  EXPECT_EQ(task.sense.code(), 0x2000) << "this LUN has none";
  unit.prepare_reserve_out(task, ReserveOutAction::reserve, ReservationType::exclusive_access,
                           {.key = 5, .service_action_key = 0}, buffer);
  EXPECT_EQ(task.cdb[1], 0x01);
  EXPECT_EQ(task.cdb[2], 0x03);
  EXPECT_EQ(task.data_length_bytes, kReserveOutListBytes);
  run();
  EXPECT_EQ(task.status, ScsiStatus::check_condition);
}

}  // namespace
}  // namespace iscsi_blkback
