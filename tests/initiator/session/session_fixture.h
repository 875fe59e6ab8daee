// What the session tests share: a simulated reactor, a simulated target with one LUN, a session and
// a log of what the session told its observer.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "initiator/lun/logical_unit.h"
#include "initiator/scsi/cdb.h"
#include "initiator/session/session.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {

inline SocketAddress test_address(int number) {
  return SocketAddress::parse("10.0.0." + std::to_string(number), 3260).value();
}

inline SessionOptions test_session_options(int portal = 1) {
  SessionOptions options;
  options.initiator_name = "iqn.2026-01.test:initiator";
  options.target_name = "iqn.2026-01.test:target";
  options.portal = test_address(portal);
  options.isid = {0x80, 1, 2, 3, 0, static_cast<std::uint8_t>(portal)};
  return options;
}

// One command and what became of it.
struct TestCommand {
  ScsiTask task;
  std::vector<std::byte> data;
  bool done = false;

  void submit(Session& session) {
    task.data = data.empty() ? nullptr : data.data();
    task.data_length_bytes = static_cast<std::uint32_t>(data.size());
    task.owner = this;
    task.on_complete = [](ScsiTask& completed) noexcept {
      auto* self = static_cast<TestCommand*>(completed.owner);
      EXPECT_FALSE(self->done) << "completed twice";
      self->done = true;
    };
    session.submit(task);
  }

  void submit_read(Session& session, std::uint64_t block, std::uint32_t blocks) {
    data.assign(std::size_t{blocks} * 512, std::byte{0xee});
    task.cdb = read16_cdb(block, blocks);
    task.direction = DataDirection::in;
    submit(session);
  }
  void submit_write(Session& session, std::uint64_t block, std::vector<std::byte> bytes) {
    data = std::move(bytes);
    task.cdb = write16_cdb(block, static_cast<std::uint32_t>(data.size() / 512));
    task.direction = DataDirection::out;
    submit(session);
  }
  void submit_test_unit_ready(Session& session) {
    task.cdb = test_unit_ready_cdb();
    task.direction = DataDirection::none;
    submit(session);
  }
};

inline std::vector<std::byte> test_pattern(std::size_t bytes, unsigned seed) {
  std::vector<std::byte> pattern(bytes);
  SimRandom random(seed);
  for (std::byte& byte : pattern) {
    byte = static_cast<std::byte>(random.next());
  }
  return pattern;
}

// Runs a reactor until condition holds; a test that waits in vain fails instead of hanging.
template <class Condition>
[[nodiscard]] bool runs_until(SimReactor& reactor, Condition condition,
                              Duration at_most = std::chrono::minutes(10)) {
  return reactor.run_until(condition, at_most);
}

class RecordingObserver final : public SessionObserver {
 public:
  void on_session_up(Session&) noexcept override { ++ups; }
  void on_session_down(Session&, const Error& why) noexcept override {
    ++downs;
    reason = why.message;
    tasks_done_at_down = tasks_done ? tasks_done() : 0;
  }
  void on_scsi_event(Session&, std::uint64_t lun, const SenseData& sense) noexcept override {
    ++events;
    event_lun = lun;
    event_sense = sense;
  }
  [[nodiscard]] ResetConsent may_reset(std::uint64_t lun) const noexcept override {
    return lun == consent_lun ? consent : ResetConsent::not_concerned;
  }
  int ups = 0;
  int downs = 0;
  int events = 0;
  ResetConsent consent = ResetConsent::not_concerned;  // to a reset of
  std::uint64_t consent_lun = 0;
  std::uint64_t event_lun = 0;
  SenseData event_sense;
  std::string reason;
  std::function<int()> tasks_done;
  int tasks_done_at_down = 0;
};

// A session that is stopped and taken apart in order at the end of a test.
class TestSession {
 public:
  TestSession(SimReactor& reactor, SessionOptions options,
              NameResolver& resolver = system_name_resolver())
      : reactor_(reactor), session(reactor, std::move(options), resolver, chap_memory_) {
    session.add_observer(observer);
  }
  ~TestSession() {
    if (session.state() != SessionState::free) {
      stop();
    }
    session.remove_observer(observer);
  }

  [[nodiscard]] bool up() {
    return runs_until(reactor_, [this] { return session.state() == SessionState::logged_in; });
  }
  [[nodiscard]] bool start() {
    session.start();
    return up();
  }
  void stop() {
    bool stopped = false;
    session.stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
    EXPECT_FALSE(stopped) << "stopped from inside the call";
    EXPECT_TRUE(runs_until(reactor_, [&] { return stopped; }));
    EXPECT_EQ(session.state(), SessionState::free);
  }

  TestSession(SimReactor& reactor, SessionOptions options, ChapMemory& shared)
      : reactor_(reactor), session(reactor, std::move(options), system_name_resolver(), shared) {
    session.add_observer(observer);
  }

 private:
  SimReactor& reactor_;
  ChapMemory chap_memory_;

 public:
  RecordingObserver observer;
  Session session;
};

class SessionTest : public ::testing::Test {
 protected:
  SessionTest() {
    SimTargetOptions target_options;
    target_options.portals = {{test_address(1), 1}, {test_address(2), 1}, {test_address(3), 2}};
    target_options.power_on_unit_attention = false;
    target = std::make_unique<SimTarget>(reactor, target_options);
    lun = std::make_shared<SimLun>(SimLunOptions{.block_count = 16384});
    target->add_lun(0, lun);
  }
  ~SessionTest() override { EXPECT_TRUE(target->violations.empty()) << target->violations.front(); }

  SimReactor reactor{1};
  std::unique_ptr<SimTarget> target;
  std::shared_ptr<SimLun> lun;
};

}  // namespace iscsi_blkback
