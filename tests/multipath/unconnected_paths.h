// Paths over sessions that are never started, for tests of what keeps account of paths: what such a
// test says of them, it tells the part that it tests. What is sent there comes back as not sent, in
// the next turn of the reactor.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "multipath/path/path_set.h"
#include "multipath/path/registration_table.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class UnconnectedPaths final : private Path::Owner {
 public:
  UnconnectedPaths(SimReactor& reactor, DiskLog& log) : reactor_(reactor), log_(log) {}

  // Portal i is 10.0.0.(i+1):3260.
  Session& add_session(const std::string& target_name = "iqn.2026-01.test:target") {
    SessionOptions options;
    options.initiator_name = "iqn.2026-01.test:host";
    options.target_name = target_name;
    const auto number = static_cast<std::uint8_t>(sessions_.size() + 1);
    options.portal = SocketAddress::parse("10.0.0." + std::to_string(number), 3260).value();
    options.portal_name = options.portal.to_string();
    options.isid = {0x80, 0, 0, 1, 0, number};
    return sessions_.emplace_back(reactor_, options);
  }
  Path& add(Session& session, std::uint16_t lun = 0) {
    const std::string& portal_name = session.options().portal_name;
    const std::uint32_t index = set.number_for(session, lun, portal_name, "disk").value();
    return set.add(std::make_unique<Path>(reactor_, session, lun, portal_name, index,
                                          set.load_of(index), options_, log_,
                                          static_cast<Path::Owner&>(*this)));
  }
  Path& add() { return add(add_session()); }

 private:
  void on_path_session_up(Path& /*path*/) noexcept override {}
  Result<void> check_identity(Path& /*path*/, const LogicalUnitIdentity& /*told*/) override {
    return {};
  }
  void on_path_changed(Path& /*path*/) noexcept override {}
  void on_path_identity(Path& /*path*/) noexcept override {}
  void on_path_access(Path& /*path*/) noexcept override {}
  void on_loss_told(Path& /*path*/) noexcept override {}
  void on_path_idle(Path& /*path*/) noexcept override {}
  void on_suspect(Path& /*path*/) noexcept override {}
  void on_suspicion_over(Path& /*path*/) noexcept override {}
  void on_stall_persists(Path& /*path*/) noexcept override {}
  void on_activation_done(Path& /*path*/, PathActivation::Outcome /*how*/) noexcept override {}
  void on_latency_measured(Path& /*path*/, const LatencyEstimate& /*took*/) noexcept override {}

  SimReactor& reactor_;
  DiskLog& log_;
  RegistrationTable registrations_;
  const Path::Options options_{.checker = {}, .marginal = {}, .registrations = &registrations_};
  std::deque<Session> sessions_;

 public:
  PathSet set;
};

}  // namespace iscsi_blkback
