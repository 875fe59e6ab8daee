// A disk over several paths for tests: MultipathDevice over the real engine over the simulated
// network and target. One SimReactor, virtual time.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "multipath/fencing/shared_fencing.h"
#include "multipath/multipath_device.h"
#include "tests/support/sim_network.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {

using std::chrono::milliseconds;
using std::chrono::seconds;

// One request of the guest with its buffer and its answer.
struct GuestRequest {
  BlockRequest block;
  std::vector<std::byte> data;
  std::optional<IoStatus> status;
  int completions = 0;
  TimePoint submitted_at{};
  TimePoint completed_at{};
  SimReactor* reactor = nullptr;

  [[nodiscard]] Duration took() const { return completed_at - submitted_at; }
};

class MultipathTest : public testing::Test, public MultipathDevice::Observer {
 protected:
  explicit MultipathTest(std::uint64_t seed = 1) : reactor_(seed) {
    set_log_level(LogLevel::error);
    options_.alias = "disk";
    options_.portal_group_fences = PortalGroupFences::yes;  // it is one target
    target_options_.command_delay = milliseconds(1);
  }

  ~MultipathTest() override {
    close();
    stop_sessions();
    if (target_) {
      reactor_.run_for(milliseconds(1));  // the last reset arrives
      EXPECT_EQ(target_->violations, std::vector<std::string>());
      EXPECT_EQ(target_->sessions(), 0U);
    }
  }

  // Before what a derived class's faults look at is gone.
  void TearDown() override {
    if (target_) {
      target_->clear_faults();
    }
  }

  static SocketAddress portal_address(std::size_t portal) {
    return SocketAddress::parse("10.0.0." + std::to_string(portal + 1), 3260).value();
  }

  // portal_groups: the tag of each portal.
  void start_target(std::vector<std::uint16_t> portal_groups = {1, 1}) {
    for (std::size_t portal = 0; portal < portal_groups.size(); ++portal) {
      target_options_.portals.push_back({portal_address(portal), portal_groups[portal]});
      reactor_.network().set_latency(portal_address(portal), std::chrono::microseconds(100));
    }
    target_ = std::make_unique<SimTarget>(reactor_, target_options_);
    lun_ = std::make_shared<SimLun>(lun_options_);
    target_->add_lun(0, lun_);
  }

  // others: portals at the other addresses of its name.
  Session& add_session(std::size_t portal, const std::vector<std::size_t>& others = {}) {
    SessionOptions options = session_options_;
    options.initiator_name = "iqn.2026-01.test:host";
    options.target_name = target_options_.name;
    options.portal = portal_address(portal);
    options.portal_name = options.portal.to_string();
    for (const std::size_t other : others) {
      options.other_addresses.push_back(portal_address(other));
      options.portal_name = "array.example:3260";
    }
    options.isid = {0x80, 0, 0, 1, 0, ++last_isid_};
    sessions_.push_back(std::make_unique<Session>(reactor_, options));
    return *sessions_.back();
  }

  // By a session like the first one, to another target's portal.
  void add_path_to_target(const std::string& target_name, const SocketAddress& portal) {
    SessionOptions options = sessions_[0]->options();
    options.target_name = target_name;
    options.portal = portal;
    options.portal_name = portal.to_string();
    sessions_.push_back(std::make_unique<Session>(reactor_, options));
    sessions_.back()->start();
    ASSERT_TRUE(device_->add_path(*sessions_.back(), 0));
  }

  // The device with a path over each portal, sessions started.
  void start_device(bool wait_until_ready = true) {
    device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
    for (std::size_t portal = 0; portal < target_options_.portals.size(); ++portal) {
      Session& session = add_session(portal);
      session.start();
      device_->add_path(session, 0);
    }
    if (wait_until_ready) {
      ASSERT_TRUE(reactor_.run_until([this] { return up() == sessions_.size(); }, seconds(10)));
    }
  }

  void start(std::vector<std::uint16_t> portal_groups = {1, 1}) {
    start_target(std::move(portal_groups));
    start_device();
  }

  void close(bool wait_for_fences = false) {
    if (!device_) {
      return;
    }
    bool closed = false;
    device_->close(
        wait_for_fences, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
    if (!reactor_.run_until([&] { return closed; }, seconds(1)) && !wait_for_fences) {
      stop_sessions();
    }
    ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(120)));
    device_.reset();
    for (const std::unique_ptr<GuestRequest>& request : requests_) {
      EXPECT_EQ(request->completions, 1);
    }
  }

  void stop_sessions() {
    if (std::exchange(sessions_stopped_, true)) {
      return;
    }
    std::size_t stopped = 0;
    for (const std::unique_ptr<Session>& session : sessions_) {
      session->stop([](void* count) noexcept { ++*static_cast<std::size_t*>(count); }, &stopped);
    }
    ASSERT_TRUE(reactor_.run_until([&] { return stopped == sessions_.size(); }, seconds(60)));
  }

  // Fills each sector of a request with its place in the request, counted from 1.
  static constexpr int kSectorNumbers = -1;
  GuestRequest& submit(BlockOperation operation, std::uint64_t sector = 0, std::uint32_t count = 0,
                       int fill = 0) {
    requests_.push_back(std::make_unique<GuestRequest>());
    GuestRequest& request = *requests_.back();
    request.reactor = &reactor_;
    request.submitted_at = reactor_.now();
    request.data.assign(std::size_t{count} * kSectorBytes, static_cast<std::byte>(fill));
    for (std::size_t i = 0; fill == kSectorNumbers && i < request.data.size(); ++i) {
      request.data[i] = static_cast<std::byte>(i / kSectorBytes + 1);
    }
    request.block.operation = operation;
    request.block.sector = sector;
    request.block.sector_count = count;
    request.block.data =
        count != 0 && operation != BlockOperation::discard ? request.data.data() : nullptr;
    request.block.owner = &request;
    request.block.on_complete = [](BlockRequest& block, IoStatus status) noexcept {
      auto& completed = *static_cast<GuestRequest*>(block.owner);
      ++completed.completions;
      completed.status = status;
      completed.completed_at = completed.reactor->now();
    };
    device_->submit(request.block);
    EXPECT_EQ(request.completions, 0) << "completed from inside submit";
    return request;
  }
  GuestRequest& write(std::uint64_t sector, std::uint32_t count, int fill) {
    return submit(BlockOperation::write, sector, count, fill);
  }
  GuestRequest& read(std::uint64_t sector, std::uint32_t count) {
    return submit(BlockOperation::read, sector, count);
  }
  GuestRequest& flush() { return submit(BlockOperation::flush); }
  GuestRequest& discard(std::uint64_t sector, std::uint32_t count) {
    return submit(BlockOperation::discard, sector, count);
  }
  // Submits by `ask` until one of them is on its way over path `at`.
  template <class Ask>
  GuestRequest& at_path(std::size_t at, Ask ask) {
    while (true) {
      const std::uint32_t before = path(at).in_flight;
      GuestRequest& request = ask();
      if (path(at).in_flight != before) {
        return request;
      }
    }
  }

  void wait(const GuestRequest& request, Duration at_most = seconds(30)) {
    ASSERT_TRUE(reactor_.run_until([&] { return request.completions != 0; }, at_most));
  }
  // The answer of a request that is answered within at_most.
  IoStatus answer(const GuestRequest& request, Duration at_most = seconds(30)) {
    wait(request, at_most);
    return request.status.value_or(IoStatus::aborted);
  }
  static bool pending(const GuestRequest& request) { return request.completions == 0; }

  // What the medium holds at a sector.
  [[nodiscard]] int medium(std::uint64_t sector) const {
    return static_cast<int>(lun_->medium()[sector * kSectorBytes]);
  }
  [[nodiscard]] PathSnapshot path(std::size_t index) const {
    return device_->snapshot().paths[index];
  }
  [[nodiscard]] std::size_t up() const { return device_->snapshot().paths_up(); }
  bool wait_for_up(std::size_t paths, Duration at_most = seconds(30)) {
    return reactor_.run_until([this, paths] { return up() == paths; }, at_most);
  }

  // Takes a portal away, as seen by both sides, and gives it back.
  void cut(std::size_t portal) { target_->close_portal(portal); }
  void restore(std::size_t portal) { target_->open_portal(portal); }
  // Nothing gets through in either direction any more; nobody is told.
  void drop_silently(std::size_t portal) {
    reactor_.network().set_dropping(portal_address(portal), true);
  }
  // New connections are refused, the old ones are reset.
  void refuse(std::size_t portal) {
    reactor_.network().set_refusing(portal_address(portal), true);
    reactor_.network().reset_connections(portal_address(portal));
  }
  void accept(std::size_t portal) {
    reactor_.network().set_refusing(portal_address(portal), false);
  }

  // Faults for commands at one portal.
  static std::function<bool(const SimCommand&)> writes_at(std::size_t portal) {
    return [portal](const SimCommand& command) {
      return command.portal == portal && is_write(command);
    };
  }
  // Writes that come to the portal stay in the target, which executes them when it releases them, even
  // if their connection is gone by then. count: so many; 0: all from now on.
  void hold_writes_at(std::size_t portal, std::uint32_t count = 0) {
    SimFault fault;
    fault.matches = writes_at(portal);
    fault.count = count;
    fault.hold = true;
    fault.execute = true;
    target_->inject(fault);
  }
  void hold_next_write_at(std::size_t portal) { hold_writes_at(portal, 1); }
  static std::function<bool(const SimCommand&)> io_at(std::size_t portal) {
    return [portal](const SimCommand& command) {
      return command.portal == portal && (is_write(command) || is_read(command));
    };
  }
  static std::function<bool(const SimCommand&)> any_io() {
    return [](const SimCommand& command) { return is_write(command) || is_read(command); };
  }
  static SimFault sense_fault(SenseKey key, std::uint16_t code, std::uint32_t count = 1) {
    SimFault fault;
    fault.matches = any_io();
    fault.count = count;
    fault.status = ScsiStatus::check_condition;
    fault.sense = make_sense(key, code);
    return fault;
  }
  static SimFault status_fault(ScsiStatus status, std::uint32_t count = 1) {
    SimFault fault;
    fault.matches = any_io();
    fault.count = count;
    fault.status = status;
    return fault;
  }

  void on_ready(MultipathDevice& /*device*/) noexcept override { ++ready_calls_; }
  void on_paths_changed(MultipathDevice& /*device*/) noexcept override { ++change_calls_; }

  SimReactor reactor_;
  SharedFencing fencing_{reactor_};  // of all devices of a test, as of a process
  SimTargetOptions target_options_;
  SimLunOptions lun_options_;
  MultipathOptions options_;
  SessionOptions session_options_;  // but for who talks to whom
  std::unique_ptr<SimTarget> target_;
  std::shared_ptr<SimLun> lun_;
  std::vector<std::unique_ptr<Session>> sessions_;  // outlive device_
  std::uint8_t last_isid_ = 0;
  bool sessions_stopped_ = false;
  std::unique_ptr<MultipathDevice> device_;
  std::vector<std::unique_ptr<GuestRequest>> requests_;
  int ready_calls_ = 0;
  int change_calls_ = 0;
};

}  // namespace iscsi_blkback
