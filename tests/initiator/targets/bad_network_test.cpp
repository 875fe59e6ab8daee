// A session with a real target through a bad network: after every fault it logs in again, its tasks
// have ended exactly once and truthfully, and nothing that the network kept for later does harm.
#include <gtest/gtest.h>

#include "initiator/pdu/pdu.h"
#include "tests/initiator/targets/target_fixture.h"
#include "tests/support/tcp_proxy.h"

namespace iscsi_blkback {
namespace {

using Way = TcpProxy::Way;
using Ending = TcpProxy::Ending;

constexpr std::size_t kIoBytes = 65536;

class BadNetworkTest : public TgtTest {
 protected:
  void SetUp() override {
    TgtTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    auto started = TcpProxy::start(tgt.port());
    ASSERT_TRUE(started) << started.error().message;
    proxy = std::move(*started);
    // tgt answers within milliseconds; these bound only how long the tests take.
    options.stall_probe = milliseconds{200};
    options.path_timeout = milliseconds{1000};
    options.noop_out_interval = milliseconds{200};
    options.noop_out_timeout = milliseconds{800};
    connect(proxy->port());
    ASSERT_TRUE(logged_in()) << session->last_error().message;
    ASSERT_TRUE(identify());
  }
  void TearDown() override {
    TgtTest::TearDown();
    proxy.reset();
  }

  [[nodiscard]] bool is_down() {
    return run_until([this] { return session->state() != SessionState::logged_in; });
  }
  // The next login after so many, and the LUN answers.
  void expect_login(std::uint64_t epoch) {
    ASSERT_TRUE(run_until([&] { return session->login_epoch() >= epoch; }))
        << session->last_error().message;
    ASSERT_TRUE(logged_in()) << session->last_error().message;
    const auto identity = identify();
    ASSERT_TRUE(identity) << identity.error().message;
  }
  // A session that has forgotten that its connections end again and again (repeated_ends.h), which
  // would make it wait. The next login.
  void start_anew() {
    bool stopped = false;
    session->stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
    ASSERT_TRUE(run_until([&] { return stopped; }));
    session->start();
    expect_login(session->login_epoch() + 1);
  }
  void expect_contents(std::uint64_t sector, std::byte value) {
    Io read;
    read.data.resize(kIoBytes);
    read.submit(*unit, BlockOperation::read, sector);
    ASSERT_TRUE(run(read));
    ASSERT_TRUE(read.task.succeeded());
    EXPECT_EQ(read.data, std::vector<std::byte>(kIoBytes, value));
  }
  void write(std::uint64_t sector, std::byte value) {
    Io write;
    write.data.assign(kIoBytes, value);
    write.submit(*unit, BlockOperation::write, sector);
    ASSERT_TRUE(run(write));
    ASSERT_TRUE(write.task.succeeded());
  }

  std::unique_ptr<TcpProxy> proxy;
};

TEST_F(BadNetworkTest, SurvivesADelay) {
  proxy->set_delay(milliseconds{20});
  write(0, std::byte{1});
  expect_contents(0, std::byte{1});
  EXPECT_EQ(session->statistics().connection_losses, 0U);
}

TEST_F(BadNetworkTest, AnIdleSessionNoticesAStallAndLogsInAgain) {
  proxy->stall(Way::to_initiator);
  ASSERT_TRUE(is_down());
  expect_login(2);
}

TEST_F(BadNetworkTest, AStalledCommandIsLostAndTheSessionLogsInAgain) {
  proxy->stall(Way::to_target);
  Io read;
  read.data.resize(kIoBytes);
  read.submit(*unit, BlockOperation::read, 0);
  ASSERT_TRUE(run(read));
  EXPECT_EQ(read.task.outcome, TaskOutcome::connection_lost);
  expect_login(2);
}

TEST_F(BadNetworkTest, StalledAnswersThatComeInTimeAreTaken) {
  proxy->stall(Way::to_initiator);
  Io read;
  read.data.resize(kIoBytes);
  read.submit(*unit, BlockOperation::read, 0);
  ASSERT_TRUE(run_until([this] { return proxy->stalled(Way::to_initiator) >= kIoBytes; }));
  proxy->release();
  ASSERT_TRUE(run(read));
  EXPECT_TRUE(read.task.succeeded());
  EXPECT_EQ(session->login_epoch(), 1U);
}

TEST_F(BadNetworkTest, AResetIsNoticedAtOnce) {
  Io read;
  read.data.resize(kIoBytes);
  proxy->stall(Way::to_target);
  read.submit(*unit, BlockOperation::read, 0);
  ASSERT_TRUE(run_until([this] { return proxy->stalled(Way::to_target) != 0; }));
  proxy->reset();
  ASSERT_TRUE(run(read));
  EXPECT_EQ(read.task.outcome, TaskOutcome::connection_lost);
  expect_login(2);
}

TEST_F(BadNetworkTest, ATargetThatCannotBeReachedForAWhileIsFoundAgain) {
  proxy->set_refusing(true);
  proxy->reset();
  ASSERT_TRUE(is_down());
  ASSERT_TRUE(run_until([this] { return session->statistics().login_failures >= 3; }));
  proxy->set_refusing(false);
  expect_login(2);
}

// Cut in the header, at its end, in the data, one byte before the end of a Data-In PDU, and so on.
TEST_F(BadNetworkTest, AnAnswerCutAnywhereIsLost) {
  for (const Ending ending : {Ending::fin, Ending::reset}) {
    for (const std::uint64_t bytes : {1U, 20U, 47U, 48U, 49U, 5000U, 65535U + 48U}) {
      Io read;
      read.data.resize(kIoBytes);
      proxy->cut_after(Way::to_initiator, bytes, ending);
      read.submit(*unit, BlockOperation::read, 0);
      ASSERT_TRUE(run(read)) << bytes;
      EXPECT_FALSE(read.task.succeeded()) << bytes;
      EXPECT_EQ(read.task.outcome, TaskOutcome::connection_lost) << bytes;
      expect_login(session->login_epoch() + 1);
      start_anew();
    }
  }
}

TEST_F(BadNetworkTest, AWriteCutAnywhereIsLostAndCanBeRepeated) {
  std::uint8_t value = 0;
  for (const Ending ending : {Ending::fin, Ending::reset}) {
    for (const std::uint64_t bytes : {1U, 47U, 48U, 49U, 8192U, 65535U + 48U}) {
      Io lost;
      lost.data.assign(kIoBytes, std::byte{0xee});
      proxy->cut_after(Way::to_target, bytes, ending);
      lost.submit(*unit, BlockOperation::write, 256);
      ASSERT_TRUE(run(lost)) << bytes;
      EXPECT_FALSE(lost.task.succeeded()) << bytes;
      expect_login(session->login_epoch() + 1);
      write(256, std::byte{++value});
      expect_contents(256, std::byte{value});
      start_anew();
    }
  }
}

// A write that the network kept arrives when a newer one to the same blocks has long been answered:
// the login in between has ended the session that it belongs to.
TEST_F(BadNetworkTest, AStaleWriteThatIsReleasedAfterANewLoginDoesNoHarm) {
  write(512, std::byte{1});
  proxy->stall(Way::to_target);
  Io stale;  // with its data in the command's PDU: all that it takes to execute it
  stale.data.assign(4096, std::byte{2});
  stale.submit(*unit, BlockOperation::write, 512);
  ASSERT_TRUE(run(stale));
  EXPECT_EQ(stale.task.outcome, TaskOutcome::connection_lost);
  expect_login(2);
  write(512, std::byte{3});
  ASSERT_GE(proxy->stalled(Way::to_target), kBhsBytes + 4096);
  proxy->release();
  ASSERT_TRUE(run_until([this] { return proxy->open() == 1; }));
  expect_contents(512, std::byte{3});
  EXPECT_EQ(session->login_epoch(), 2U);
}

// Answers that the network kept go to a connection that is not there any more.
TEST_F(BadNetworkTest, StaleAnswersThatAreReleasedAfterANewLoginDoNoHarm) {
  proxy->stall(Way::to_initiator);
  Io lost;
  lost.data.assign(kIoBytes, std::byte{7});
  lost.submit(*unit, BlockOperation::write, 1024);
  ASSERT_TRUE(run(lost));
  EXPECT_EQ(lost.task.outcome, TaskOutcome::connection_lost);
  expect_login(2);
  Io read;
  read.data.resize(kIoBytes);
  read.submit(*unit, BlockOperation::read, 2048);
  proxy->release();
  ASSERT_TRUE(run(read));
  EXPECT_TRUE(read.task.succeeded());
  EXPECT_EQ(read.data, std::vector<std::byte>(kIoBytes, std::byte{0}));
  EXPECT_EQ(session->login_epoch(), 2U);
}

}  // namespace
}  // namespace iscsi_blkback
