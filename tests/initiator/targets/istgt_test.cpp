// The initiator against a real istgt on loopback: a target that numbers its answer to a ping before
// answers that it sends first.
#include "tests/initiator/targets/target_fixture.h"
#include "tests/support/istgt_process.h"

namespace iscsi_blkback {
namespace {

class IstgtTest : public RealTargetTest {
 protected:
  void SetUp() override {
    if (!IstgtProcess::available()) {
      GTEST_SKIP() << "needs root and the package istgt";
    }
    make_reactor();
    if (IsSkipped()) {
      return;
    }
    const auto started = istgt.start({.disk_bytes = kDiskBytes});
    ASSERT_TRUE(started) << started.error().message;
    SessionOptions options;
    options.initiator_name = "iqn.2026-01.test:initiator";
    options.target_name = IstgtProcess::kTargetName;
    options.portal = SocketAddress::parse("127.0.0.1", istgt.port()).value();
    options.isid = {0x80, 7, 7, 7, 0, 1};
    session.emplace(*reactor, options);
    unit.emplace(*reactor, *session, encode_lun(IstgtProcess::kLun));
    session->start();
    ASSERT_TRUE(run_until([this] { return session->state() == SessionState::logged_in; }))
        << session->last_error().message;
  }
  void TearDown() override {
    if (session && session->state() != SessionState::free) {
      bool stopped = false;
      session->stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
      EXPECT_TRUE(run_until([&] { return stopped; }));
    }
    unit.reset();
    session.reset();
  }

  IstgtProcess istgt;
  std::optional<Session> session;
  std::optional<LogicalUnit> unit;
};

TEST_F(IstgtTest, PingsUnderLoadDropNoConnection) {
  std::optional<Result<LogicalUnitIdentity>> identity;
  unit->identify(
      [](void* self, Result<LogicalUnitIdentity> told) noexcept {
        *static_cast<std::optional<Result<LogicalUnitIdentity>>*>(self) = std::move(told);
      },
      &identity);
  ASSERT_TRUE(run_until([&] { return identity.has_value(); }));
  ASSERT_TRUE(*identity) << identity->error().message;

  std::array<Io, 16> load;
  for (std::size_t i = 0; i < load.size(); ++i) {
    load[i].data.assign(16384, static_cast<std::byte>(i));
    load[i].done = true;
  }
  std::uint32_t submitted = 0;
  std::uint32_t completed = 0;
  std::uint32_t pings = 0;
  const TimePoint end = reactor->now() + seconds(3);
  TimePoint next_ping = reactor->now();
  const auto keep_busy = [&](bool more) {
    for (std::size_t i = 0; i < load.size(); ++i) {
      if (load[i].done) {
        completed += load[i].task.data != nullptr ? 1 : 0;
        EXPECT_TRUE(load[i].task.data == nullptr || load[i].task.succeeded())
            << session->last_error().message;
        load[i].task.data = nullptr;
        if (more) {
          load[i].submit(*unit, submitted++ % 2 == 0 ? BlockOperation::write : BlockOperation::read,
                         i * 32);
        }
      }
    }
  };
  while (reactor->now() < end && !HasFailure()) {
    keep_busy(true);
    if (reactor->now() >= next_ping) {
      next_ping = reactor->now() + milliseconds(1);
      session->ping();
      ++pings;
    }
    reactor->run_once(milliseconds{1});
  }
  ASSERT_TRUE(run_until([&] {
    keep_busy(false);
    return completed == submitted || HasFailure();
  }));
  EXPECT_EQ(session->statistics().connection_losses, 0U) << session->last_error().message;
  EXPECT_GE(completed, 100U);
  EXPECT_GE(pings, 100U);
}

}  // namespace
}  // namespace iscsi_blkback
