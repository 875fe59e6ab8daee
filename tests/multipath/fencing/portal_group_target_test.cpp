// Trials of portal groups at real targets: the portals of one tgtd know of each other's sessions,
// those of two processes that have the same target name and tag do not.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>

#include "base/uring_reactor.h"
#include "multipath/fencing/portal_group_trial.h"
#include "tests/support/real_target_test.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class PortalGroupTarget : public RealTargetTest, public PortalGroupTrial::Owner {
 protected:
  void TearDown() override {
    std::size_t stopped = 0;
    for (const auto& session : sessions) {
      session->stop([](void* count) noexcept { ++*static_cast<std::size_t*>(count); }, &stopped);
    }
    EXPECT_TRUE(run_until([&] { return stopped == sessions.size(); }));
  }
  void on_trial_over(TrialVerdict found) noexcept override { verdict = found; }

  void log_in(std::uint16_t port) {
    SessionOptions options;
    options.portal = SocketAddress::parse("127.0.0.1", port).value();
    options.portal_name = options.portal.to_string();
    options.initiator_name = "iqn.2026-01.test:initiator";
    options.target_name = TgtProcess::kTargetName;
    options.isid = {0x80, 0, 0, 1, 0, static_cast<std::uint8_t>(sessions.size() + 1)};
    sessions.push_back(std::make_unique<Session>(*reactor, options));
    sessions.back()->start();
    ASSERT_TRUE(run_until([this] { return sessions.back()->state() == SessionState::logged_in; }));
  }
  std::optional<TrialVerdict> try_both() {
    trial = std::make_unique<PortalGroupTrial>(*reactor, *sessions[0], *sessions[1], *this);
    EXPECT_TRUE(run_until([this] { return verdict.has_value(); }));
    trial.reset();
    for (const auto& session : sessions) {
      EXPECT_EQ(session->statistics().logins, 1U);
      EXPECT_EQ(session->statistics().connection_losses, 0U);
    }
    return verdict;
  }

  std::vector<std::unique_ptr<Session>> sessions;
  std::unique_ptr<PortalGroupTrial> trial;
  std::optional<TrialVerdict> verdict;
};

TEST_F(PortalGroupTarget, PortalsOfOneTgtAreOneNexusSpace) {
  TgtProcess tgt;
  const auto started = tgt.start({.portals = 2});
  ASSERT_TRUE(started) << started.error().message;
  log_in(tgt.port(0));
  log_in(tgt.port(1));
  EXPECT_EQ(try_both(), TrialVerdict::proven);
}

TEST_F(PortalGroupTarget, PortalsOfTwoTgtsAreNot) {
  TgtProcess one;
  TgtProcess other;
  for (TgtProcess* tgt : {&one, &other}) {
    const auto started = tgt->start({});
    ASSERT_TRUE(started) << started.error().message;
    log_in(tgt->port());
  }
  EXPECT_EQ(try_both(), TrialVerdict::refuted);
}

}  // namespace
}  // namespace iscsi_blkback
