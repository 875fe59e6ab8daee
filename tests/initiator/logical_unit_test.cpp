#include "initiator/logical_unit.h"

#include <gmock/gmock.h>

#include <optional>

#include "base/byte_order.h"
#include "tests/initiator/session_fixture.h"

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
  EXPECT_EQ(identify(unit)->wwid, "SSERIAL0");
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

TEST(EncodeLun, UsesPeripheralAndFlatAddressing) {
  EXPECT_EQ(encode_lun(0), 0U);
  EXPECT_EQ(encode_lun(255), 0x00ff000000000000U);
  EXPECT_EQ(encode_lun(256), 0x4100000000000000U);
  EXPECT_EQ(encode_lun(16383), 0x7fff000000000000U);
}

}  // namespace
}  // namespace iscsi_blkback
