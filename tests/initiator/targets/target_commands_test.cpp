// The commands beyond read and write, and task management, against a real target.
#include "tests/initiator/targets/target_fixture.h"

namespace iscsi_blkback {
namespace {

class TgtCommandsTest : public TgtTest {
 protected:
  // A command that prepare_... has filled in.
  void run_prepared(Io& io) {
    io.done = false;
    io.task.owner = &io;
    io.task.on_complete = [](ScsiTask& completed) noexcept {
      static_cast<Io*>(completed.owner)->done = true;
    };
    session->submit(io.task);
    ASSERT_TRUE(run(io)) << session->last_error().message;
  }
  void write(std::uint64_t sector, std::size_t bytes, std::byte value) {
    Io io;
    io.data.assign(bytes, value);
    BlockRequest request;
    request.operation = BlockOperation::write;
    request.sector = sector;
    request.sector_count = static_cast<std::uint32_t>(bytes / kSectorBytes);
    request.data = io.data.data();
    unit->prepare_io(io.task, request);
    run_prepared(io);
    EXPECT_TRUE(io.task.succeeded()) << sense_text(io.task.sense);
  }
  [[nodiscard]] std::vector<std::byte> read(std::uint64_t sector, std::size_t bytes) {
    Io io;
    io.data.assign(bytes, std::byte{0xee});
    io.submit(*unit, BlockOperation::read, sector);
    EXPECT_TRUE(run(io));
    EXPECT_TRUE(io.task.succeeded()) << sense_text(io.task.sense);
    return io.data;
  }
  FunctionOutcome manage(TaskFunction which, const ScsiTask* task = nullptr) {
    bool done = false;
    TaskManagement function;
    function.function = which;
    function.lun = unit->lun();
    function.task = task;
    function.owner = &done;
    function.on_complete = [](TaskManagement& completed) noexcept {
      *static_cast<bool*>(completed.owner) = true;
    };
    session->submit(function);
    EXPECT_TRUE(run_until([&] { return done; }));
    return function.outcome;
  }

  std::array<std::byte, 4096> buffer{};
};

TEST_F(TgtCommandsTest, LogicalBlocksOf4096) {
  ASSERT_TRUE(logged_in());
  ASSERT_TRUE(tgt.add_lun(2, kDiskBytes, 4096));
  unit = std::make_unique<LogicalUnit>(*reactor, *session, encode_lun(2));
  const auto identity = identify();
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->logical_block_bytes, 4096U);
  EXPECT_EQ(identity->block_count, kDiskBytes / 4096);
  write(80, 65536, std::byte{7});
  EXPECT_EQ(read(80, 65536), std::vector<std::byte>(65536, std::byte{7}));
  EXPECT_EQ(read(72, 4096), std::vector<std::byte>(4096, std::byte{0}));
}

TEST_F(TgtCommandsTest, DeallocatesInBothForms) {
  ASSERT_TRUE(tgt.administer({"--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun", "1",
                              "--params", "thin_provisioning=1"}));
  ASSERT_TRUE(logged_in());
  const auto identity = identify();
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_TRUE(identity->thin_provisioned);
  EXPECT_TRUE(identity->provisioning.unmap);
  write(0, 262144, std::byte{9});
  Io io;
  // tgt 1.0.85 deallocates, and then answers 05/25/00 with a residual of the list: what counts here
  // is what the LUN has done.
  const std::array<LogicalUnit::SectorRange, 2> ranges = {
      {{.sector = 0, .sector_count = 64}, {.sector = 128, .sector_count = 64}}};
  unit->prepare_unmap(io.task, ranges, buffer);
  run_prepared(io);
  EXPECT_EQ(read(0, 32768), std::vector<std::byte>(32768, std::byte{0}));
  EXPECT_EQ(read(64, 32768), std::vector<std::byte>(32768, std::byte{9}));
  EXPECT_EQ(read(128, 32768), std::vector<std::byte>(32768, std::byte{0}));
  BlockRequest request;
  request.operation = BlockOperation::discard;
  request.sector = request.sector_count = 64;
  LogicalUnit::DiscardParameters parameters;
  unit->prepare_discard(io.task, request, DiscardForm::write_same, parameters);
  run_prepared(io);
  EXPECT_TRUE(io.task.succeeded()) << sense_text(io.task.sense);
  EXPECT_EQ(read(64, 32768), std::vector<std::byte>(32768, std::byte{0}));
  EXPECT_EQ(read(192, 512), std::vector<std::byte>(512, std::byte{9}));
}

TEST_F(TgtCommandsTest, PersistentReservationFromRegistrationToClear) {
  ASSERT_TRUE(logged_in());
  ASSERT_TRUE(identify());
  Io io;
  const auto out = [&](ReserveOutAction action, ReservationType type, std::uint64_t key,
                       std::uint64_t action_key) {
    unit->prepare_reserve_out(io.task, action, type, {.key = key, .service_action_key = action_key},
                              buffer);
    run_prepared(io);
    EXPECT_TRUE(io.task.succeeded()) << sense_text(io.task.sense);
  };
  const auto keys = [&] {
    unit->prepare_reserve_in(io.task, ReserveInAction::read_keys, buffer);
    run_prepared(io);
    return parse_reservation_keys(std::span{buffer}.first(io.task.transferred_bytes));
  };
  const auto state = [&] {
    unit->prepare_reserve_in(io.task, ReserveInAction::read_reservation, buffer);
    run_prepared(io);
    return parse_reservation(std::span{buffer}.first(io.task.transferred_bytes));
  };
  out(ReserveOutAction::register_key, ReservationType::none, 0, 0x1234);
  ASSERT_TRUE(keys());
  EXPECT_EQ(keys()->keys, std::vector<std::uint64_t>{0x1234});
  ASSERT_TRUE(state());
  EXPECT_FALSE(state()->reservation);
  out(ReserveOutAction::reserve, ReservationType::write_exclusive_registrants_only, 0x1234, 0);
  ASSERT_TRUE(state() && state()->reservation);
  EXPECT_EQ(state()->reservation->key, 0x1234U);
  EXPECT_EQ(state()->reservation->type, ReservationType::write_exclusive_registrants_only);
  write(0, 512, std::byte{1});
  out(ReserveOutAction::release, ReservationType::write_exclusive_registrants_only, 0x1234, 0);
  EXPECT_FALSE(state()->reservation);
  out(ReserveOutAction::clear, ReservationType::none, 0x1234, 0);
  EXPECT_TRUE(keys()->keys.empty());
}

TEST_F(TgtCommandsTest, TargetWithoutPortGroupsSaysSo) {
  ASSERT_TRUE(logged_in());
  ASSERT_TRUE(identify());
  Io io;
  unit->prepare_report_target_port_groups(io.task, buffer, true);
  run_prepared(io);
  EXPECT_EQ(io.task.status, ScsiStatus::check_condition);
  EXPECT_EQ(io.task.sense.key, SenseKey::illegal_request) << sense_text(io.task.sense);
}

TEST_F(TgtCommandsTest, ReportsItsLuns) {
  ASSERT_TRUE(logged_in());
  ASSERT_TRUE(tgt.add_lun(300, kDiskBytes));
  Io io;
  unit->prepare_report_luns(io.task, buffer);
  run_prepared(io);
  const auto luns = parse_report_luns(std::span{buffer}.first(io.task.transferred_bytes));
  ASSERT_TRUE(luns);
  std::vector<std::uint32_t> numbers;
  for (const std::uint64_t lun : *luns) {
    numbers.push_back(decode_lun(lun).value_or(0xffff));
  }
  EXPECT_EQ(numbers, (std::vector<std::uint32_t>{0, 1, 300}));
}

// The target is stopped while command and function are on their way, so that it finds both.
TEST_F(TgtCommandsTest, AbortOfACommandThatIsJustBeingServed) {
  ASSERT_TRUE(logged_in());
  ASSERT_TRUE(identify());
  tgt.signal(SIGSTOP);
  Io io;
  io.data.assign(65536, std::byte{3});
  io.submit(*unit, BlockOperation::write, 0);
  reactor->run_once(milliseconds{1});
  reactor->run_once(milliseconds{1});
  bool done = false;
  TaskManagement abort;
  abort.lun = unit->lun();
  abort.task = &io.task;
  abort.owner = &done;
  abort.on_complete = [](TaskManagement& completed) noexcept {
    *static_cast<bool*>(completed.owner) = true;
  };
  session->submit(abort);
  reactor->run_once(milliseconds{1});
  tgt.signal(SIGCONT);
  ASSERT_TRUE(run_until([&] { return done && io.done; })) << session->last_error().message;
  EXPECT_TRUE(abort.outcome == FunctionOutcome::complete ||
              abort.outcome == FunctionOutcome::no_such_task)
      << to_string(abort.outcome);
  EXPECT_EQ(session->statistics().connection_losses, 0U);
  write(0, 4096, std::byte{4});
  EXPECT_EQ(read(0, 4096), std::vector<std::byte>(4096, std::byte{4}));
}

TEST_F(TgtCommandsTest, ResetOfTheLogicalUnit) {
  ASSERT_TRUE(logged_in());
  ASSERT_TRUE(identify());
  EXPECT_EQ(manage(TaskFunction::logical_unit_reset), FunctionOutcome::complete);
  EXPECT_EQ(session->state(), SessionState::logged_in);
  ASSERT_TRUE(identify()) << "which passes over the unit attention";
  EXPECT_EQ(manage(TaskFunction::abort_task_set), FunctionOutcome::complete);
}

}  // namespace
}  // namespace iscsi_blkback
