// TgtTest: a session with a real tgt on loopback, on the real reactor; its tests are skipped where
// there is none.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <vector>

#include "base/uring_reactor.h"
#include "initiator/lun/logical_unit.h"
#include "initiator/scsi/cdb.h"
#include "initiator/session/session.h"
#include "tests/support/real_target_test.h"

namespace iscsi_blkback {

using std::chrono::milliseconds;
using std::chrono::seconds;

inline constexpr std::uint64_t kDiskBytes = std::uint64_t{16} << 20;

// One request at the logical unit.
struct Io {
  BlockRequest request;
  ScsiTask task;
  std::vector<std::byte> data;
  bool done = false;

  void submit(LogicalUnit& unit, BlockOperation operation, std::uint64_t sector) {
    done = false;
    request.operation = operation;
    request.sector = sector;
    request.sector_count = static_cast<std::uint32_t>(data.size() / kSectorBytes);
    request.data = data.data();
    unit.prepare_io(task, request);
    task.owner = this;
    task.on_complete = [](ScsiTask& completed) noexcept {
      static_cast<Io*>(completed.owner)->done = true;
    };
    unit.session().submit(task);
  }
};

class TgtTest : public RealTargetTest {
 protected:
  void SetUp() override {
    RealTargetTest::SetUp();
    if (IsSkipped()) {
      return;
    }
    const auto started = tgt.start({.disk_bytes = kDiskBytes});
    ASSERT_TRUE(started) << started.error().message;
    connect(tgt.port());
  }
  void TearDown() override { disconnect(); }

  // A session of its own by this port of 127.0.0.1.
  void connect(std::uint16_t port) {
    disconnect();
    options.portal = SocketAddress::parse("127.0.0.1", port).value();
    options.initiator_name = "iqn.2026-01.test:initiator";
    options.target_name = TgtProcess::kTargetName;
    options.isid = {0x80, 0, 0, 1, 0, 1};
    options.relogin_backoff_max = milliseconds{500};
    session = std::make_unique<Session>(*reactor, options);
    unit = std::make_unique<LogicalUnit>(*reactor, *session, encode_lun(1));
    session->start();
  }
  void disconnect() {
    if (session) {
      bool stopped = false;
      session->stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
      EXPECT_TRUE(run_until([&] { return stopped; }));
    }
    unit.reset();
    session.reset();
  }

  [[nodiscard]] SocketAddress address() const {
    return SocketAddress::parse("127.0.0.1", tgt.port()).value();
  }

  [[nodiscard]] bool logged_in() {
    return run_until([this] { return session->state() == SessionState::logged_in; });
  }
  [[nodiscard]] Result<LogicalUnitIdentity> identify() {
    std::optional<Result<LogicalUnitIdentity>> identity;
    unit->identify(
        [](void* owner, Result<LogicalUnitIdentity> result) noexcept {
          *static_cast<std::optional<Result<LogicalUnitIdentity>>*>(owner) = std::move(result);
        },
        &identity);
    if (!run_until([&] { return identity.has_value(); })) {
      unit->cancel_identify();
      return fail(ErrorCode::timed_out, "identify() does not end");
    }
    return *identity;
  }

  [[nodiscard]] bool run(Io& io) {
    return run_until([&] { return io.done; });
  }
  // A command that is neither read nor write of blocks; its data, if any, is io.data.
  void submit(Io& io, const Cdb& cdb, DataDirection direction) {
    io.done = false;
    io.task.cdb = cdb;
    io.task.lun = unit->lun();
    io.task.direction = direction;
    io.task.data = io.data.data();
    io.task.data_length_bytes = static_cast<std::uint32_t>(io.data.size());
    io.task.owner = &io;
    io.task.on_complete = [](ScsiTask& completed) noexcept {
      static_cast<Io*>(completed.owner)->done = true;
    };
    session->submit(io.task);
  }

  SessionOptions options;  // for the next connect()
  TgtProcess tgt;
  std::unique_ptr<Session> session;
  std::unique_ptr<LogicalUnit> unit;
};

}  // namespace iscsi_blkback
