// GuestBackendTest: the code of a guest process, control side and I/O side, on one simulated
// reactor, between an in-memory Xen with unforgiving frontends and a simulated target. What a test
// leaves running ends with its guest, and nothing may be left then.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "blkback/guest/guest_backend.h"
#include "blkback/guest/guest_data_plane.h"
#include "blkback/process/control_request.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/fake_toolstack.h"
#include "tests/support/gated_xenstore.h"
#include "tests/support/mem_xen.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/sim_target.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {

using namespace std::chrono_literals;

inline constexpr DomainId kGuest = 5;
inline constexpr const char* kTargetName = "iqn.2026-01.test:target";
inline constexpr const char* kParams = "aio:iscsi://192.0.2.1,192.0.2.2/iqn.2026-01.test:target/1";

// What the look-ups of a test find; it may change while they are under way.
struct SimNames {
  std::map<std::string, std::string> names;  // others are unknown
  std::vector<Portal> discovered;
  std::map<std::string, Duration> delays;  // of a host's answers, else 1 ms; never(): none
  int lookups = 0;

  static constexpr Duration never() { return Duration::max(); }
};

// Answers on the reactor, some time later.
class SimPortalResolver final : public AsyncPortalResolver {
 public:
  SimPortalResolver(SimReactor& reactor, SimNames& names) : reactor_(reactor), names_(names) {}

  void resolve(const Portal& portal, const std::string&,
               std::function<void(Result<std::vector<SocketAddress>>)> done) override {
    answer(portal, [this, portal, done = std::move(done)] {
      const auto named = names_.names.find(portal.host);
      if (named == names_.names.end()) {
        done(fail(ErrorCode::not_found, "host " + portal.host + " is unknown"));
      } else {
        done(std::vector{SocketAddress::parse(named->second, portal.port).value()});
      }
    });
  }
  void discover(const Portal& at, const SessionOptions&, const std::string&,
                std::function<void(Result<std::vector<Portal>>)> done) override {
    answer(at, [this, done = std::move(done)] { done(names_.discovered); });
  }

 private:
  void answer(const Portal& portal, std::function<void()> task) {
    ++names_.lookups;
    const auto delay = names_.delays.find(portal.host);
    if (delay == names_.delays.end()) {
      reactor_.schedule(1ms, std::move(task));
    } else if (delay->second != SimNames::never()) {
      reactor_.schedule(delay->second, std::move(task));
    }
  }

  SimReactor& reactor_;
  SimNames& names_;
};

inline SimTargetOptions target_options() {
  SimTargetOptions options;
  options.name = kTargetName;
  options.portals = {SimPortal{SocketAddress::parse("192.0.2.1", 3260).value(), 1},
                     SimPortal{SocketAddress::parse("192.0.2.2", 3260).value(), 1}};
  return options;
}

class GuestBackendTest : public testing::Test {
 protected:
  GuestBackendTest() : target_(reactor_, target_options()) {
    target_.add_lun(1, std::make_shared<SimLun>(SimLunOptions{}));
    SimLunOptions second;
    second.serial = "SERIAL2";
    second.naa_extension = 2;
    target_.add_lun(2, std::make_shared<SimLun>(second));
    configuration_.initiator_name = "iqn.2026-01.test:host";
    configuration_.run_directory = barriers_.path();
    configuration_.multipath.portal_group_fences = PortalGroupFences::yes;  // it is one target
    xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  }

  ~GuestBackendTest() override {
    halt_guests();
    if (backend_ != nullptr && !finished_) {
      // Whatever the test was about, the end of the guest ends everything.
      end_guest(DomainLife::gone);
      EXPECT_TRUE(reactor_.run_until([&] { return finished_; }, 60s)) << "the process does not end";
    }
    expect_nothing_left();
    halted_.clear();
    backend_.reset();
    plane_.reset();
    EXPECT_THAT(target_.violations, testing::IsEmpty());
  }

  // The process has ended: start() is that of the next one.
  void forget_process() {
    backend_.reset();
    plane_.reset();
    finished_ = false;
  }

  void expect_nothing_left() {
    EXPECT_EQ(target_.sessions(), 0u);
    EXPECT_EQ(xen_.grants().mapped_pages(), 0u);
    EXPECT_EQ(xen_.events().bound_ports(), 0u);
  }

  void start(DomainId own_domain = 0) {
    own_domain_ = own_domain;
    grants_ = xen_.grants().open(own_domain);
    channels_ = xen_.events().open(own_domain);
    domains_ = open_domain_info();
    firmware_sockets_ = std::make_unique<OwnFirmwareSockets>(configuration_.run_directory, kGuest);
    plane_ = std::make_unique<GuestDataPlane>(reactor_, reactor_, *grants_, *channels_, own_domain,
                                              kGuest, barriers_.path(), std::nullopt, "", nullptr,
                                              place_);
    backend_ = std::make_unique<GuestBackend>(
        GuestBackend::Environment{
            reactor_,
            [this, own_domain]() -> Result<std::unique_ptr<XenStore>> {
              ++stores_opened_;
              if (store_is_away_) {
                return fail(ErrorCode::unavailable, "nobody is there");
              }
              return std::make_unique<GatedXenStore>(
                  xen_.store().connect(own_domain),
                  XenStoreGate(own_domain, kGuest, configuration_.run_directory));
            },
            domains_may_be_asked_ ? domains_.get() : nullptr, data_plane(), path_discovery_,
            statistics(), firmware_sockets_.get()},
        configuration_, own_domain, kGuest, [this] { finished_ = true; });
    ASSERT_TRUE(backend_->start());
  }

  // As the backend is to see them.
  virtual std::unique_ptr<DomainInfo> open_domain_info() { return xen_.open_domain_info(); }
  virtual DataPlane& data_plane() { return *plane_; }
  virtual StatisticsFolder* statistics() { return nullptr; }

  FakeDisk disk(const std::string& params = kParams, std::uint32_t device_id = 51712,
                const std::string& kind = "qdisk") {
    FakeDisk result;
    result.guest = kGuest;
    result.backend = own_domain_;
    result.device_id = device_id;
    result.virtual_device = fmt::format("xvd{}", static_cast<char>('a' + (device_id - 51712) / 16));
    result.kind = kind;
    result.params = params;
    return result;
  }

  // Another disk of the same guest, on the other LUN, over one portal.
  FakeDisk second_disk() { return disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/2", 51728); }

  FakeFrontend& boot(const FakeDisk& disk, BlkifAbi abi = BlkifAbi::x86_64,
                     std::uint32_t ring_pages = 1) {
    FakeFrontend::Options options;
    options.domain = kGuest;
    options.backend = disk.backend;
    options.abi = abi;
    options.ring_pages = ring_pages;
    options.indirect_segments = indirect_segments_;
    options.device_id = disk.device_id;
    frontends_.push_back(std::make_unique<FakeFrontend>(xen_, options));
    FakeFrontend& frontend = *frontends_.back();
    xen_.faults().set_paused(true);
    frontend.start();
    xen_.faults().set_paused(false);
    return frontend;
  }

  // One more queue of a disk whose frontend has not connected yet.
  FakeFrontend& add_queue(FakeFrontend& frontend, const FakeDisk& disk) {
    FakeFrontend::Options options;
    options.domain = kGuest;
    options.backend = disk.backend;
    queues_.push_back(std::make_unique<FakeFrontend>(xen_, options));
    frontend.add_queue(*queues_.back());
    return *queues_.back();
  }

  // The guest's only disk, served to its frontend, which has connected.
  FakeFrontend& serve(const FakeDisk& disk) {
    toolstack_.add(disk);
    start();
    FakeFrontend& guest = boot(disk);
    EXPECT_TRUE(connect(guest)) << xen_.store().dump();
    return guest;
  }
  FakeFrontend& serve() { return serve(disk()); }

  // The guest's kernel is no more; its pages stay as long as they are mapped.
  void halt_guests() {
    for (auto* running : {&frontends_, &queues_}) {
      for (auto& frontend : *running) {
        halted_.push_back(std::move(frontend));
      }
      running->clear();
    }
  }

  // The guests' kernels run whenever something happens.
  void step_guests() {
    for (auto& frontend : frontends_) {
      frontend->step();
      if (frontend->connected()) {
        frontend->poll();
      }
    }
    for (auto& queue : queues_) {
      queue->poll();
    }
  }

  // Only the product's calls fail; the guests' and the test's own do not.
  bool run_until(const std::function<bool()>& predicate, Duration at_most = 20s) {
    const TimePoint end = reactor_.now() + at_most;
    for (;;) {
      xen_.faults().set_paused(true);
      step_guests();
      const bool holds = predicate();
      xen_.faults().set_paused(false);
      if (holds || reactor_.now() >= end) {
        return holds;
      }
      reactor_.run_for(1ms);
    }
  }
  void run_for(Duration span) {
    (void)run_until([] { return false; }, span);
  }
  bool reaches_state(const FakeDisk& disk, int state, Duration at_most = 20s) {
    return run_until([&] { return toolstack_.backend_state(disk) == state; }, at_most);
  }
  bool paths_up(std::size_t paths, Duration at_most = 20s) {
    return run_until([&] { return map().paths_up() == paths; }, at_most);
  }
  // The process has nothing left to do.
  bool ends(Duration at_most = 20s) {
    return run_until([&] { return finished_; }, at_most);
  }

  bool connect(FakeFrontend& frontend) {
    return run_until([&] { return frontend.connected(); });
  }

  std::vector<std::byte> pattern(std::size_t sectors, int seed) {
    std::vector<std::byte> data(sectors * kSectorBytes);
    for (std::size_t at = 0; at < data.size(); ++at) {
      data[at] =
          static_cast<std::byte>((at * 7 + at / 512 + static_cast<std::size_t>(seed)) & 0xff);
    }
    return data;
  }

  void write(FakeFrontend& frontend, std::uint64_t sector, const std::vector<std::byte>& data,
             Duration at_most = 20s) {
    const auto id = frontend.write(sector, data);
    ASSERT_TRUE(id);
    frontend.push();
    expect_answer(frontend, *id, at_most);
  }

  void expect_answer(FakeFrontend& frontend, FakeFrontend::RequestId id, Duration at_most = 20s,
                     int status = kBlkifOkay) {
    std::optional<FakeFrontend::Answer> answer;
    ASSERT_TRUE(run_until(
        [&] {
          answer = frontend.take_completion(id);
          return answer.has_value();
        },
        at_most));
    EXPECT_EQ(answer->status, status);
  }

  void expect_read(FakeFrontend& frontend, std::uint64_t sector,
                   const std::vector<std::byte>& expected) {
    const auto id =
        frontend.read(sector, static_cast<std::uint32_t>(expected.size() / kSectorBytes));
    ASSERT_TRUE(id);
    frontend.push();
    std::optional<FakeFrontend::Answer> answer;
    ASSERT_TRUE(run_until([&] {
      answer = frontend.take_completion(*id);
      return answer.has_value();
    }));
    EXPECT_EQ(answer->status, kBlkifOkay);
    EXPECT_EQ(answer->data, expected);
  }

  void do_io(FakeFrontend& frontend, int seed = 1) {
    const auto data = pattern(16, seed);
    ASSERT_NO_FATAL_FAILURE(write(frontend, 64, data));
    ASSERT_NO_FATAL_FAILURE(expect_read(frontend, 64, data));
    const auto id = frontend.flush();
    ASSERT_TRUE(id);
    frontend.push();
    ASSERT_NO_FATAL_FAILURE(expect_answer(frontend, *id));
  }

  // The guest's next write stays in the target, and so do all others while forever is true.
  void hold_writes(bool forever = false) {
    SimFault fault;
    fault.matches = [](const SimCommand& command) { return is_write(command); };
    fault.hold = true;
    fault.execute = true;
    fault.count = forever ? 0 : 1;
    target_.inject(fault);
  }
  void lose_both_paths() {
    for (std::size_t portal = 0; portal < 2; ++portal) {
      reactor_.network().set_refusing(target_.address(portal), true);
      reactor_.network().reset_connections(target_.address(portal));
    }
  }

  void end_guest(DomainLife life) {
    xen_.set_domain(kGuest, DomainStatus{life, {}});
    if (life == DomainLife::dying) {
      xen_.store().fire_special("@releaseDomain");
    }
  }

  // By the line that an operator's tool sends.
  Result<void> command(const std::string& line) {
    const auto request = parse_guest_request(line);
    if (!request) {
      return tl::unexpected(request.error());
    }
    Result<void> answer = fail(ErrorCode::timed_out, "no answer");
    bool answered = false;
    backend_->change(std::get<DiskChange>(*request), [&](Result<void> result) {
      answer = std::move(result);
      answered = true;
    });
    EXPECT_TRUE(run_until([&] { return answered; }));
    return answer;
  }
  Result<void> change_path(const char* word, const std::string& portal,
                           const std::string& target = {}) {
    return command(fmt::format(R"({{"command":"{}","devid":51712,"portal":"{}","target":"{}"}})",
                               word, portal, target));
  }
  Result<void> set(const std::string& setting, const std::string& value) {
    return command(fmt::format(R"({{"command":"set","devid":51712,"setting":"{}","value":"{}"}})",
                               setting, value));
  }
  static std::string refusal(const Result<void>& result) {
    return result ? "" : result.error().message;
  }

  // Of the guest's only disk.
  MultipathSnapshot map() {
    std::optional<MultipathSnapshot> map;
    backend_->query([&](const GuestStatus& status) {
      map = status.disks.at(0).report ? status.disks.at(0).report->multipath : MultipathSnapshot();
    });
    EXPECT_TRUE(run_until([&] { return map.has_value(); }));
    return *map;
  }

  std::string error_of(const FakeDisk& disk) {
    return toolstack_.backend_value(disk, "hotplug-error");
  }

  TemporaryFolder barriers_;
  SimReactor reactor_{1};
  MemXen xen_;
  FakeToolstack toolstack_{xen_};
  SimTarget target_;
  SimNames resolver_;
  PathDiscovery path_discovery_{reactor_, std::make_unique<SimPortalResolver>(reactor_, resolver_)};
  Configuration configuration_;
  DomainId own_domain_ = 0;
  std::unique_ptr<GrantTable> grants_;
  std::unique_ptr<EventChannels> channels_;
  std::unique_ptr<DomainInfo> domains_;
  std::unique_ptr<OwnFirmwareSockets> firmware_sockets_;
  ReactorPlace place_;
  std::unique_ptr<GuestDataPlane> plane_;
  std::unique_ptr<GuestBackend> backend_;
  std::vector<std::unique_ptr<FakeFrontend>> queues_;  // but the first of each disk
  std::uint32_t indirect_segments_ = 0;                // of a request, that frontends take
  std::vector<std::unique_ptr<FakeFrontend>> frontends_;
  std::vector<std::unique_ptr<FakeFrontend>> halted_;
  bool finished_ = false;
  bool store_is_away_ = false;
  int stores_opened_ = 0;  // or tried to
  bool domains_may_be_asked_ = true;
};

}  // namespace iscsi_blkback
