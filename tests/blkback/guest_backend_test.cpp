// The whole life of a guest's disks: the code of a guest process, control side and I/O side, on one
// simulated reactor, between an in-memory Xen with unforgiving frontends and a simulated target.
#include "blkback/guest_backend.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "blkback/guest_data_plane.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/fake_toolstack.h"
#include "tests/support/mem_xen.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr DomainId kGuest = 5;
constexpr const char* kTargetName = "iqn.2026-01.test:target";
constexpr const char* kParams = "aio:iscsi://192.0.2.1,192.0.2.2/iqn.2026-01.test:target/1";

// Answers on the reactor, some time later. Hosts are numeric or unknown.
class SimResolver final : public DiskResolver, private PortalDirectory {
 public:
  explicit SimResolver(SimReactor& reactor) : reactor_(reactor) {}

  void resolve(DiskPlan plan, Done done) override {
    ++lookups;
    reactor_.schedule(1ms, [this, plan = std::move(plan), done = std::move(done)] {
      done(resolve_disk(plan, *this));
    });
  }

  std::map<std::string, std::string> names;
  std::vector<Portal> discovered;
  int lookups = 0;

 private:
  Result<SocketAddress> resolve(const Portal& portal) override {
    const auto named = names.find(portal.host);
    auto address =
        SocketAddress::parse(named == names.end() ? portal.host : named->second, portal.port);
    if (!address) {
      return fail(ErrorCode::not_found, "host " + portal.host + " is unknown");
    }
    return address;
  }
  Result<std::vector<Portal>> discover(const Portal&, const SessionOptions&,
                                       const std::string&) override {
    return discovered;
  }

  SimReactor& reactor_;
};

SimTargetOptions target_options() {
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
    EXPECT_THAT(target_.violations, IsEmpty());
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
    domains_ = xen_.open_domain_info();
    plane_ = std::make_unique<GuestDataPlane>(reactor_, reactor_, *grants_, *channels_, own_domain,
                                              kGuest);
    backend_ = std::make_unique<GuestBackend>(
        GuestBackend::Environment{reactor_,
                                  [this, own_domain]() -> Result<std::unique_ptr<XenStore>> {
                                    return std::unique_ptr<XenStore>(
                                        xen_.store().connect(own_domain));
                                  },
                                  domains_.get(), *plane_, resolver_},
        configuration_, own_domain, kGuest, [this] { finished_ = true; });
    ASSERT_TRUE(backend_->start());
  }

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

  FakeFrontend& boot(const FakeDisk& disk, BlkifAbi abi = BlkifAbi::x86_64,
                     std::uint32_t ring_pages = 1) {
    FakeFrontend::Options options;
    options.domain = kGuest;
    options.backend = disk.backend;
    options.abi = abi;
    options.ring_pages = ring_pages;
    options.device_id = disk.device_id;
    frontends_.push_back(std::make_unique<FakeFrontend>(xen_, options));
    FakeFrontend& frontend = *frontends_.back();
    frontend.start();
    return frontend;
  }

  // The guest's kernel is no more; its pages stay as long as they are mapped.
  void halt_guests() {
    for (auto& frontend : frontends_) {
      halted_.push_back(std::move(frontend));
    }
    frontends_.clear();
  }

  // The guests' kernels run whenever something happens.
  void step_guests() {
    for (auto& frontend : frontends_) {
      frontend->step();
      if (frontend->connected()) {
        frontend->poll();
      }
    }
  }

  bool run_until(const std::function<bool()>& predicate, Duration at_most = 20s) {
    const TimePoint end = reactor_.now() + at_most;
    while (!predicate()) {
      if (reactor_.now() >= end) {
        return false;
      }
      reactor_.run_for(1ms);
      step_guests();
    }
    return true;
  }
  void run_for(Duration span) {
    (void)run_until([] { return false; }, span);
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

  void expect_answer(FakeFrontend& frontend, FakeFrontend::RequestId id, Duration at_most = 20s) {
    std::optional<FakeFrontend::Answer> answer;
    ASSERT_TRUE(run_until(
        [&] {
          answer = frontend.take_completion(id);
          return answer.has_value();
        },
        at_most));
    EXPECT_EQ(answer->status, kBlkifOkay);
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

  void end_guest(DomainLife life) {
    xen_.set_domain(kGuest, DomainStatus{life, {}});
    if (life == DomainLife::dying) {
      xen_.store().fire_special("@releaseDomain");
    }
  }

  Result<void> change(const ControlRequest& request) {
    Result<void> answer = fail(ErrorCode::timed_out, "no answer");
    bool answered = false;
    backend_->change(request, [&](Result<void> result) {
      answer = std::move(result);
      answered = true;
    });
    EXPECT_TRUE(run_until([&] { return answered; }));
    return answer;
  }
  Result<void> change_path(const char* command, const std::string& portal,
                           const std::string& target = {}) {
    ControlRequest request;
    request.command = command;
    request.device_id = 51712;
    request.portal = portal;
    request.target = target;
    return change(request);
  }
  Result<void> set(const std::string& setting, const std::string& value) {
    ControlRequest request;
    request.command = "set";
    request.device_id = 51712;
    request.setting = setting;
    request.value = value;
    return change(request);
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

  SimReactor reactor_{1};
  MemXen xen_;
  FakeToolstack toolstack_{xen_};
  SimTarget target_;
  SimResolver resolver_{reactor_};
  Configuration configuration_;
  DomainId own_domain_ = 0;
  std::unique_ptr<GrantTable> grants_;
  std::unique_ptr<EventChannels> channels_;
  std::unique_ptr<DomainInfo> domains_;
  std::unique_ptr<GuestDataPlane> plane_;
  std::unique_ptr<GuestBackend> backend_;
  std::vector<std::unique_ptr<FakeFrontend>> frontends_;
  std::vector<std::unique_ptr<FakeFrontend>> halted_;
  bool finished_ = false;
};

TEST_F(GuestBackendTest, AttachConnectAndDoInputOutput) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  EXPECT_EQ(guest.sectors(), 2048u);
  EXPECT_EQ(guest.sector_size(), 512u);
  EXPECT_EQ(guest.physical_sector_size(), 4096u);
  EXPECT_TRUE(guest.flush_supported());
  EXPECT_EQ(toolstack_.backend_value(xvda, "hotplug-status"), "connected");
  EXPECT_EQ(error_of(xvda), "");
  do_io(guest);
  EXPECT_EQ(target_.sessions(), 2u);
}

TEST_F(GuestBackendTest, BothKindsAllAbisAllRingSizes) {
  start();
  std::uint32_t device_id = 51712;
  std::vector<FakeDisk> disks;
  for (const char* kind : {"qdisk", "vbd3"}) {
    for (const BlkifAbi abi : {BlkifAbi::native, BlkifAbi::x86_32, BlkifAbi::x86_64}) {
      for (const std::uint32_t pages : {1u, 16u}) {
        disks.push_back(disk(kParams, device_id, kind));
        device_id += 16;
        toolstack_.add(disks.back());
        FakeFrontend& guest = boot(disks.back(), abi, pages);
        ASSERT_TRUE(connect(guest)) << kind;
        ASSERT_NO_FATAL_FAILURE(do_io(guest, static_cast<int>(device_id)));
      }
    }
  }
  EXPECT_EQ(target_.sessions(), 2u) << "the disks of a guest share their sessions";
}

TEST_F(GuestBackendTest, CapabilitiesAndStateTwoComeBeforeAnyLogin) {
  target_.stop();
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  run_for(10ms);
  EXPECT_EQ(toolstack_.backend_state(xvda), 2);
  EXPECT_EQ(toolstack_.backend_value(xvda, "feature-flush-cache"), "1");
  EXPECT_EQ(toolstack_.backend_value(xvda, "feature-barrier"), "0");
  EXPECT_EQ(toolstack_.backend_value(xvda, "feature-persistent"), "0");
  EXPECT_EQ(toolstack_.backend_value(xvda, "max-ring-page-order"), "4");
  EXPECT_EQ(toolstack_.backend_value(xvda, "hotplug-status"), "");
  EXPECT_EQ(target_.counters.logins, 0u);
}

TEST_F(GuestBackendTest, AForeignDiskIsLeftAlone) {
  const FakeDisk file = disk("aio:/dev/vg/lv");
  toolstack_.add(file);
  const FakeDisk ours = disk(kParams, 51728);
  toolstack_.add(ours);
  start();
  run_for(100ms);
  EXPECT_EQ(toolstack_.backend_state(file), 1);
  EXPECT_EQ(toolstack_.backend_value(file, "max-ring-page-order"), "");
  EXPECT_EQ(toolstack_.backend_state(ours), 2);
}

TEST_F(GuestBackendTest, WithoutADiskOfOursTheProcessEnds) {
  toolstack_.add(disk("aio:/dev/vg/lv"));
  start();
  EXPECT_TRUE(run_until([&] { return finished_; }));
}

TEST_F(GuestBackendTest, NothingIsWrittenIntoTheFrontendsDirectory) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  const std::string before = xen_.store().dump(xvda.frontend_path());
  start();
  run_for(1s);
  EXPECT_EQ(xen_.store().dump(xvda.frontend_path()), before);
}

TEST_F(GuestBackendTest, AFrontendThatResumesWithoutWaiting) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  FakeFrontend& guest = boot(xvda);
  guest.resume();
  start();
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  do_io(guest);
}

TEST_F(GuestBackendTest, AReadOnlyDisk) {
  FakeDisk xvda = disk();
  xvda.mode = "r";
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(guest.info() & 4, 4u);
  const auto id = guest.write(0, pattern(8, 1));
  guest.push();
  std::optional<FakeFrontend::Answer> answer;
  ASSERT_TRUE(run_until([&] {
    answer = guest.take_completion(*id);
    return answer.has_value();
  }));
  EXPECT_EQ(answer->status, kBlkifError);
  EXPECT_EQ(target_.lun(1).counters.writes, 0u);
}

TEST_F(GuestBackendTest, OnePathIsCutUnderWrites) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  for (int round = 0; round < 20; ++round) {
    if (round == 5) {
      target_.close_portal(0);
    }
    if (round == 15) {
      target_.open_portal(0);
    }
    ASSERT_NO_FATAL_FAILURE(do_io(guest, round)) << round;
  }
  ASSERT_TRUE(run_until([&] { return target_.sessions() == 2; }));
}

TEST_F(GuestBackendTest, BothPathsGoneForThirtySecondsAndBack) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  ASSERT_NO_FATAL_FAILURE(do_io(guest));
  target_.close_portal(0);
  target_.close_portal(1);
  const auto data = pattern(8, 3);
  const auto id = guest.write(8, data);
  guest.push();
  run_for(30s);
  EXPECT_FALSE(guest.take_completion(*id));
  target_.open_portal(0);
  target_.open_portal(1);
  ASSERT_NO_FATAL_FAILURE(expect_answer(guest, *id));
  expect_read(guest, 8, data);
}

TEST_F(GuestBackendTest, QueueingIsDisabledRestoredAndLimited) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  target_.close_portal(0);
  target_.close_portal(1);
  run_for(100ms);
  const auto ask = [&] {
    const auto id = guest.read(8, 8);
    guest.push();
    return id.value();
  };
  const auto fails_within = [&](FakeFrontend::RequestId id, Duration at_most) {
    std::optional<FakeFrontend::Answer> answer;
    (void)run_until([&] { return (answer = guest.take_completion(id)).has_value(); }, at_most);
    return answer && answer->status == kBlkifError;
  };
  ControlRequest request;
  request.device_id = 51712;

  FakeFrontend::RequestId waiting = ask();
  EXPECT_FALSE(fails_within(waiting, 10s));
  request.command = "disablequeueing";
  ASSERT_TRUE(change(request));
  EXPECT_TRUE(fails_within(waiting, 10ms));
  EXPECT_TRUE(fails_within(ask(), 10ms));

  request.command = "restorequeueing";
  ASSERT_TRUE(change(request));
  waiting = ask();
  EXPECT_FALSE(fails_within(waiting, 60s));

  request.command = "set";
  request.setting = "no_path_retry";
  request.value = "100s";
  ASSERT_TRUE(change(request));
  EXPECT_FALSE(fails_within(waiting, 20s));
  EXPECT_TRUE(fails_within(waiting, 20s));

  request.value = "soon";
  EXPECT_THAT(change(request).error().message, HasSubstr("no_path_retry is neither"));
  request.setting = "rr_min_io";
  EXPECT_THAT(change(request).error().message, HasSubstr("rr_min_io cannot be changed"));
  request.command = "explode";
  request.setting = "no_path_retry";
  EXPECT_THAT(change(request).error().message, HasSubstr("unknown"));
  request.device_id = 51728;
  EXPECT_THAT(change(request).error().message, HasSubstr("no disk 51728"));
}

TEST_F(GuestBackendTest, PathsAreAddedAndRemovedUnderAGuestThatRuns) {
  const FakeDisk xvda = disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1");
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  resolver_.names["storage2"] = "192.0.2.2";
  ASSERT_EQ(refusal(change_path("add_path", "storage2")), "");
  ASSERT_TRUE(run_until([&] { return map().paths_up() == 2; }));
  EXPECT_EQ(map().paths[1].portal, "storage2:3260");
  do_io(guest, 1);

  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.1:3260")), "");
  ASSERT_TRUE(run_until([&] { return target_.sessions_at(0) == 0; }, 1s));
  ASSERT_EQ(map().paths.size(), 1U);
  do_io(guest, 2);
  ASSERT_EQ(refusal(change_path("add_path", "192.0.2.1")), "");
  ASSERT_TRUE(run_until([&] { return map().paths_up() == 2; }));
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.2")), "") << "by its address, too";
  ASSERT_TRUE(run_until([&] { return target_.sessions_at(1) == 0; }, 1s));
  do_io(guest, 3);
}

TEST_F(GuestBackendTest, AnAddedPathMayLeadThroughAnotherTargetToTheSameLun) {
  SimTargetOptions options = target_options();
  options.name = "iqn.2026-01.test:other";
  options.portals = {SimPortal{SocketAddress::parse("192.0.2.9", 3260).value(), 1}};
  SimTarget other(reactor_, options);
  other.add_lun(1, std::make_shared<SimLun>(SimLunOptions{}));
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  ASSERT_EQ(refusal(change_path("add_path", "192.0.2.9", "iqn.2026-01.test:other")), "");
  ASSERT_TRUE(run_until([&] { return map().paths_up() == 3; }));
  EXPECT_EQ(map().paths[2].target_name, "iqn.2026-01.test:other");
  EXPECT_EQ(refusal(change_path("del_path", "192.0.2.9", kTargetName)),
            "the disk has no path by 192.0.2.9:3260");
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.9", "iqn.2026-01.test:other")), "");
  ASSERT_TRUE(run_until([&] { return other.sessions() == 0; }, 1s));
}

TEST_F(GuestBackendTest, AnAddedPathToAnotherLunIsQuarantined) {
  SimTargetOptions options = target_options();
  options.portals = {SimPortal{SocketAddress::parse("192.0.2.9", 3260).value(), 1}};
  SimTarget other(reactor_, options);
  other.add_lun(1, std::make_shared<SimLun>(SimLunOptions{.naa_extension = 7}));
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  ASSERT_EQ(refusal(change_path("add_path", "192.0.2.9")), "");
  ASSERT_TRUE(run_until([&] { return map().paths[2].state == PathState::quarantined; }));
  do_io(guest);
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.9")), "");
  ASSERT_TRUE(run_until([&] { return other.sessions() == 0; }, 1s));
}

// While a portal's name cannot be resolved, all of the disk's are looked up again and again.
TEST_F(GuestBackendTest, ARemovedPathStaysRemovedWhenOtherPortalsAreFoundLater) {
  const FakeDisk xvda = disk("aio:iscsi://192.0.2.1,late,192.0.2.3/iqn.2026-01.test:target/1");
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.3")), "");
  resolver_.names["late"] = "192.0.2.2";
  ASSERT_TRUE(run_until([&] { return map().paths_up() == 2; }, 120s));
  EXPECT_EQ(map().paths.size(), 2U);
}

TEST_F(GuestBackendTest, PathsThatCannotBeAddedAreRefused) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  EXPECT_EQ(refusal(change_path("add_path", "192.0.2.9")), "the guest has no disk 51712");
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(refusal(change_path("add_path", "192.0.2.2")),
            "the path by 192.0.2.2:3260 is there already");
  EXPECT_EQ(refusal(change_path("add_path", "nowhere")), "host nowhere is unknown");
  EXPECT_EQ(refusal(change_path("add_path", "")), "add_path names no portal");
  EXPECT_NE(refusal(change_path("add_path", "host:0")), "");
  EXPECT_NE(refusal(change_path("add_path", std::string(4000, 'x'))), "");
  EXPECT_THAT(refusal(change_path("add_path", "192.0.2.9", "no target")),
              HasSubstr("the target name"));
  EXPECT_EQ(map().paths.size(), 2U);
}

TEST_F(GuestBackendTest, PathsThatCannotBeRemovedAreRefused) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(refusal(change_path("del_path", "192.0.2.9")),
            "the disk has no path by 192.0.2.9:3260");
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.2")), "");
  EXPECT_EQ(refusal(change_path("del_path", "192.0.2.1")),
            "the disk has no other path than by 192.0.2.1:3260: add one first, or detach the disk");
  do_io(guest);
}

TEST_F(GuestBackendTest, APathThatIsStillLeavingIsNotAddedAgain) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  ASSERT_EQ(refusal(set("path_selector", "round-robin")), "");
  SimFault slow;
  slow.matches = [](const SimCommand& command) { return command.portal == 1 && is_read(command); };
  slow.extra_delay = 100ms;
  target_.inject(slow);
  (void)guest.read(8, 8);
  (void)guest.read(16, 8);
  guest.push();
  run_for(10ms);
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.2")), "");
  EXPECT_THAT(refusal(change_path("add_path", "192.0.2.2")), HasSubstr("is still being removed"));
  run_for(200ms);
  EXPECT_EQ(refusal(change_path("add_path", "192.0.2.2")), "");
  ASSERT_TRUE(run_until([&] { return map().paths_up() == 2; }));
}

// The device is closed and opened anew when a ring leaves requests behind that wait for a path.
TEST_F(GuestBackendTest, WhatAnOperatorHasChangedHoldsForTheDevicesNextLife) {
  const FakeDisk xvda = disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1");
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  ASSERT_EQ(refusal(change_path("add_path", "192.0.2.2")), "");
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.1")), "");
  ASSERT_EQ(refusal(set("path_selector", "queue-length")), "");
  ASSERT_EQ(refusal(set("no_path_retry", "300s")), "");
  ASSERT_TRUE(run_until([&] { return map().paths_up() == 1; }));
  target_.stop();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  run_for(1s);
  guest.restart();
  ASSERT_TRUE(run_until([&] { return guest.state() == 3; }, 30s)) << xen_.store().dump();
  target_.start();
  ASSERT_TRUE(run_until([&] { return guest.connected(); }, 120s)) << xen_.store().dump();
  ASSERT_EQ(map().paths.size(), 1U);
  EXPECT_EQ(map().paths[0].portal, "192.0.2.2:3260");
  EXPECT_EQ(map().path_selector, "queue-length 0");
  EXPECT_EQ(map().no_path_retry, "300 sec");
}

TEST_F(GuestBackendTest, SelectorAndPolicyAreChangedUnderAGuestThatRuns) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  ASSERT_EQ(refusal(set("path_selector", "queue-length 0")), "");
  ASSERT_EQ(refusal(set("path_grouping_policy", "failover")), "");
  EXPECT_EQ(map().path_selector, "queue-length 0");
  EXPECT_EQ(map().path_grouping_policy, "failover");
  EXPECT_EQ(map().groups.size(), 2U);
  do_io(guest);
  EXPECT_EQ(refusal(set("path_selector", "fastest")),
            "path_selector is none of round-robin, queue-length, service-time and "
            "historical-service-time");
  EXPECT_THAT(refusal(set("path_grouping_policy", "all")),
              HasSubstr("path_grouping_policy is none of failover"));
  EXPECT_EQ(map().path_grouping_policy, "failover");
}

TEST_F(GuestBackendTest, AGuestThatRunsIsToldThatItsDiskHasGrown) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(guest.sectors(), 2048U);
  target_.lun(1).resize(8192);
  ASSERT_TRUE(run_until([&] { return guest.sectors() == 8192U; }, 31s));
  EXPECT_TRUE(guest.connected());
  EXPECT_EQ(toolstack_.backend_value(xvda, "sectors"), "8192");
  EXPECT_EQ(toolstack_.backend_value(xvda, "state"), "4");
  const auto data = pattern(8, 9);
  ASSERT_NO_FATAL_FAILURE(write(guest, 8184, data));
  ASSERT_NO_FATAL_FAILURE(expect_read(guest, 8184, data));

  // A frontend that connects later is told the size of then.
  guest.restart();
  ASSERT_TRUE(run_until([&] { return !guest.connected(); }));
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(guest.sectors(), 8192U);
}

TEST_F(GuestBackendTest, AGuestIsToldOfANewSizeWhateverXenstoreRefusesAtFirst) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  for (std::uint64_t n = 1; n <= 8; ++n) {
    const std::uint64_t sectors = 2048 + n * 1024;
    target_.lun(1).resize(sectors);
    xen_.faults().fail_nth(n);
    EXPECT_TRUE(run_until([&] { return guest.sectors() == sectors; }, 33s)) << n;
    EXPECT_NE(xen_.faults().fired(), "") << n;
    xen_.faults().disarm();
  }
}

TEST_F(GuestBackendTest, DetachUnderARunningGuest) {
  const FakeDisk xvda = disk();
  const FakeDisk xvdb = disk("aio:iscsi://192.0.2.1,192.0.2.2/iqn.2026-01.test:target/2", 51728);
  toolstack_.add(xvda);
  toolstack_.add(xvdb);
  start();
  FakeFrontend& a = boot(xvda);
  FakeFrontend& b = boot(xvdb);
  ASSERT_TRUE(connect(a) && connect(b));
  do_io(a);
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) == 6; }, 10s));
  toolstack_.remove(xvda);
  do_io(b);
  EXPECT_FALSE(finished_);
  EXPECT_EQ(xen_.store().dump(xvda.backend_path()), "") << "no node comes back to life";
  toolstack_.request_detach(xvdb);
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvdb) == 6; }, 10s));
  ASSERT_TRUE(run_until([&] { return finished_; }));
  expect_nothing_left();
}

TEST_F(GuestBackendTest, DetachOfADiskThatIsInUseGoesOnServing) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  guest.set_busy(true);
  ASSERT_TRUE(connect(guest));
  toolstack_.request_detach(xvda);
  run_for(12s);  // libxl has given up
  EXPECT_EQ(toolstack_.backend_state(xvda), 5);
  // The guest's kernel says Closing and goes on doing I/O on the disk that it has open.
  const auto data = pattern(8, 1);
  const auto id = guest.write(0, data);
  guest.push();
  ASSERT_TRUE(run_until([&] {
    guest.poll();
    return guest.take_completion(*id).has_value();
  }));
}

TEST_F(GuestBackendTest, DetachWhileAllPathsAreDown) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  target_.close_portal(0);
  target_.close_portal(1);
  run_for(1s);
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) == 6; }, 10s));
  ASSERT_TRUE(run_until([&] { return finished_; }, 10s));
}

TEST_F(GuestBackendTest, DetachWithRequestsWaitingForAPath) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  target_.set_hung(true);
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  run_for(10ms);
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) == 6; }, 10s));
  target_.set_hung(false);
  ASSERT_TRUE(run_until([&] { return finished_; }, 90s));
}

TEST_F(GuestBackendTest, ForcedDetach) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  do_io(guest);
  halt_guests();  // a fake frontend does not bear losing its nodes
  toolstack_.force_detach(xvda);
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) == 6; }, 10s));
  ASSERT_TRUE(run_until([&] { return finished_; }, 10s));
}

TEST_F(GuestBackendTest, DetachOfADiskWhoseTargetNeverAnswered) {
  target_.stop();
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  boot(xvda);
  run_for(3s);
  EXPECT_NE(error_of(xvda), "");
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) == 6; }, 10s));
  ASSERT_TRUE(run_until([&] { return finished_; }, 10s));
}

TEST_F(GuestBackendTest, AttachAgainAfterDetach) {
  const FakeDisk xvda = disk();
  const FakeDisk xvdb = disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/2", 51728);
  toolstack_.add(xvdb);
  toolstack_.add(xvda);
  start();
  FakeFrontend& first = boot(xvda);
  ASSERT_TRUE(connect(first));
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) == 6; }, 10s));
  toolstack_.remove(xvda);
  toolstack_.add(xvda);
  FakeFrontend& second = boot(xvda);
  ASSERT_TRUE(connect(second));
  do_io(second);
}

TEST_F(GuestBackendTest, GuestShutsDown) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::poweroff});
  ASSERT_TRUE(run_until([&] { return finished_; }, 2s));
  EXPECT_EQ(toolstack_.backend_state(xvda), 6);
  expect_nothing_left();
}

// Design rule: the source of a migration stops retrying when its guest has suspended; where the
// guest goes on, the requests are issued again, and an old write of ours could land after theirs.
TEST_F(GuestBackendTest, ASuspendedGuestsWritesAreNotRetried) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  target_.stop();
  const auto data = pattern(8, 1);
  const auto id = guest.write(0, data);
  guest.push();
  run_for(1s);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(100ms);
  target_.start();
  run_for(30s);
  EXPECT_EQ(target_.lun(1).counters.writes, 0u);
  EXPECT_EQ(toolstack_.backend_state(xvda), 4);
  // The migration failed: the guest goes on here, and so does its write.
  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  ASSERT_NO_FATAL_FAILURE(expect_answer(guest, *id));
  expect_read(guest, 0, data);
}

TEST_F(GuestBackendTest, AMigratedGuestIsDestroyedWithItsWritesUnissued) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  target_.stop();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  run_for(1s);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(100ms);
  target_.start();
  run_for(1s);
  end_guest(DomainLife::dying);
  ASSERT_TRUE(run_until([&] { return finished_; }, 10s));
  EXPECT_EQ(target_.lun(1).counters.writes, 0u);
}

// The guest's last write before a migration is lost with its path and stays in the target.
class GuestBackendMigration : public GuestBackendTest {
 protected:
  FakeFrontend& write_and_suspend() {
    xvda_ = disk();
    toolstack_.add(xvda_);
    start();
    FakeFrontend& guest = boot(xvda_);
    EXPECT_TRUE(connect(guest));
    run_for(100ms);
    SimFault fault;
    fault.matches = [](const SimCommand& command) { return is_write(command); };
    fault.hold = true;
    fault.execute = true;
    fault.count = 0;
    target_.inject(fault);
    EXPECT_TRUE(guest.write(0, pattern(8, 1)));
    guest.push();
    EXPECT_TRUE(run_until([&] { return target_.held() == 1; }, 1s));
    xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
    return guest;
  }
  std::size_t portal_of_the_write() {
    const auto report = report_of_the_disk();
    return report.multipath.paths[0].in_flight != 0 ? 0 : 1;
  }
  DiskReport report_of_the_disk() {
    DiskReport report;
    backend_->query([&](const GuestStatus& status) { report = *status.disks.at(0).report; });
    run_for(10ms);
    return report;
  }
  // What the old write would do to the data of a guest that has gone on elsewhere.
  void expect_the_old_write_does_nothing() {
    const std::uint64_t writes = target_.lun(1).counters.writes;
    target_.clear_faults();
    target_.release_held();
    run_for(120s);
    EXPECT_EQ(target_.lun(1).counters.writes, writes);
    EXPECT_EQ(target_.counters.executed_after_close, 0u);
  }

  FakeDisk xvda_;
};

TEST_F(GuestBackendMigration, ALostWriteIsFencedBeforeTheDiskIsClosed) {
  write_and_suspend();
  const std::size_t portal = portal_of_the_write();
  run_for(100ms);
  target_.close_portal(portal);  // and its sibling fences
  run_for(100ms);
  end_guest(DomainLife::dying);
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda_) == 6; }, 10s));
  expect_the_old_write_does_nothing();
}

TEST_F(GuestBackendMigration, AWriteAtASilentPathIsFencedBeforeTheDiskIsClosed) {
  write_and_suspend();
  const std::size_t portal = portal_of_the_write();
  reactor_.network().set_dropping(target_.address(portal), true);
  run_for(100ms);
  end_guest(DomainLife::dying);
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda_) == 6; }, 10s));
  EXPECT_GE(target_.counters.terminated_tasks, 1u);
  reactor_.network().set_dropping(target_.address(portal), false);
  expect_the_old_write_does_nothing();
}

// With no way to fence, the toolstack is not kept waiting longer than it waits; the process stays
// until the write can do no harm any more.
TEST_F(GuestBackendMigration, WithoutAWayToFenceTheDiskIsClosedInTimeAllTheSame) {
  configuration_.multipath.quiesce_time = 30s;
  write_and_suspend();
  for (std::size_t portal = 0; portal < 2; ++portal) {
    reactor_.network().set_refusing(target_.address(portal), true);
    reactor_.network().reset_connections(target_.address(portal));
  }
  run_for(100ms);
  end_guest(DomainLife::dying);
  const TimePoint ended = reactor_.now();
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda_) == 6; }, 10s));
  EXPECT_GE(reactor_.now() - ended, GuestDisk::kCloseTimeout);
  EXPECT_LE(reactor_.now() - ended, GuestDisk::kCloseTimeout + 100ms);
  EXPECT_FALSE(run_until([&] { return finished_; }, 20s)) << "the write may still strike";
  EXPECT_TRUE(run_until([&] { return finished_; }, 10s));
}

// A guest that was not suspended has no other self, so its end is not delayed.
TEST_F(GuestBackendMigration, AGuestThatIsDestroyedDoesNotWaitForFences) {
  xvda_ = disk();
  toolstack_.add(xvda_);
  start();
  FakeFrontend& guest = boot(xvda_);
  ASSERT_TRUE(connect(guest));
  SimFault fault;
  fault.matches = [](const SimCommand& command) { return is_write(command); };
  fault.hold = true;
  target_.inject(fault);
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  ASSERT_TRUE(run_until([&] { return target_.held() == 1; }, 1s));
  for (std::size_t portal = 0; portal < 2; ++portal) {
    reactor_.network().set_refusing(target_.address(portal), true);
    reactor_.network().reset_connections(target_.address(portal));
  }
  run_for(100ms);
  end_guest(DomainLife::dying);
  EXPECT_TRUE(run_until([&] { return finished_; }, 3s));
}

TEST_F(GuestBackendTest, StopLeavesTheNodesAsTheyAre) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  halt_guests();
  backend_->stop();
  ASSERT_TRUE(run_until([&] { return finished_; }, 10s));
  EXPECT_EQ(toolstack_.backend_state(xvda), 4);
  expect_nothing_left();
}

TEST_F(GuestBackendTest, DestroyDuringInputOutput) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda, BlkifAbi::x86_64, 4);
  ASSERT_TRUE(connect(guest));
  while (guest.write(0, pattern(8, 1))) {
  }
  guest.push();
  run_for(1ms);
  end_guest(DomainLife::dying);
  ASSERT_TRUE(run_until([&] { return finished_; }, 5s));
  expect_nothing_left();
  toolstack_.remove(xvda);
  run_for(1s);
  EXPECT_EQ(xen_.store().dump(xvda.backend_path()), "");
}

TEST_F(GuestBackendTest, DestroyDuringAnOutageWithRequestsUnderWay) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  target_.set_hung(true);
  while (guest.write(0, pattern(8, 1))) {
  }
  guest.push();
  run_for(10ms);
  end_guest(DomainLife::dying);
  ASSERT_TRUE(run_until([&] { return xen_.grants().mapped_pages() == 0; }, 100ms));
  ASSERT_TRUE(run_until([&] { return finished_; }, 10s));
  target_.set_hung(false);
  run_for(1s);
}

TEST_F(GuestBackendTest, ToolstackWritesStateSixItself) {
  // libxl, for a qdisk of a paused guest: no Closing, 2 s later state 6.
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  halt_guests();
  ASSERT_TRUE(toolstack_.store().write(xvda.backend_path() + "/state", "6"));
  ASSERT_TRUE(run_until([&] { return finished_; }, 2s));
  EXPECT_EQ(toolstack_.backend_state(xvda), 6);
}

TEST_F(GuestBackendTest, TheNodeVanishes) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  toolstack_.remove(xvda);
  ASSERT_TRUE(run_until([&] { return finished_; }, 2s));
  EXPECT_EQ(xen_.store().dump(xvda.backend_path()), "");
}

TEST_F(GuestBackendTest, GuestRestartsItsFrontend) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(connect(guest)) << round;
    ASSERT_NO_FATAL_FAILURE(do_io(guest, round));
    guest.restart();
    ASSERT_TRUE(run_until([&] { return !guest.connected(); }));
  }
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(target_.counters.logins, 2u) << "sessions stay while the guest restarts";
}

TEST_F(GuestBackendTest, GuestCrashesIntoANewKernelWithoutClosing) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& first = boot(xvda);
  ASSERT_TRUE(connect(first));
  halt_guests();  // its memory is the new kernel's
  ASSERT_TRUE(toolstack_.store().write(xvda.frontend_path() + "/state", "1"));
  FakeFrontend& second = boot(xvda);
  ASSERT_TRUE(connect(second)) << xen_.store().dump();
  do_io(second);
}

TEST_F(GuestBackendTest, RestartOfAFrontendDuringAnOutage) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  target_.stop();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  run_for(1s);
  guest.restart();
  ASSERT_TRUE(run_until([&] { return guest.state() == 3; }, 30s)) << xen_.store().dump();
  target_.start();
  ASSERT_TRUE(run_until([&] { return guest.connected(); }, 120s)) << xen_.store().dump();
  do_io(guest);
}

TEST_F(GuestBackendTest, ADriverDomainRemovesItsNode) {
  own_domain_ = 3;
  // As libxl leaves it: a domain may read what is its own.
  MemXenStoreTree::Permissions readable;
  readable.listed[3] = MemXenStoreTree::Access::read;
  ASSERT_TRUE(toolstack_.store().write("/local/domain/3", ""));
  ASSERT_TRUE(toolstack_.store().set_permissions("/local/domain/3", readable));
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start(3);
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  do_io(guest);
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(run_until([&] { return finished_; }, 10s));
  EXPECT_EQ(toolstack_.backend_state(xvda), 0);
}

TEST_F(GuestBackendTest, XenstoredRestarts) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  xen_.store().break_connections();
  halt_guests();  // its connection is dead, too: it does not close in order
  FakeToolstack after(xen_);
  run_for(3s);
  EXPECT_EQ(after.backend_state(xvda), 4);
  after.force_detach(xvda);
  ASSERT_TRUE(run_until([&] { return finished_; }, 10s));
  EXPECT_EQ(after.backend_state(xvda), 6);
}

// --- Bad input: one sentence in hotplug-error, and the guest's other disk works
// --------------------

class GuestBackendBadInput : public GuestBackendTest {
 protected:
  void expect_error(const std::string& params, const std::string& sentence, Duration after = 3s) {
    const FakeDisk bad = disk(params);
    const FakeDisk good = disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/2", 51728);
    toolstack_.add(bad);
    toolstack_.add(good);
    start();
    FakeFrontend& broken = boot(bad);
    FakeFrontend& guest = boot(good);
    ASSERT_TRUE(connect(guest));
    do_io(guest);
    run_for(after);
    EXPECT_THAT(error_of(bad), HasSubstr(sentence));
    EXPECT_EQ(toolstack_.backend_value(bad, "hotplug-status"), "");
    EXPECT_FALSE(broken.connected());
    // It does not spin either: half a minute of simulated time costs few look-ups and logins.
    const int lookups = resolver_.lookups;
    run_for(30s);
    EXPECT_LT(resolver_.lookups - lookups, 10);
  }
};

TEST_F(GuestBackendBadInput, UnknownHost) {
  expect_error("aio:iscsi://nowhere/iqn.2026-01.test:target/1", "nowhere is unknown");
}

TEST_F(GuestBackendBadInput, DeadPortal) {
  expect_error("aio:iscsi://192.0.2.99/iqn.2026-01.test:target/1", "192.0.2.99");
}

TEST_F(GuestBackendBadInput, WrongTargetName) {
  expect_error("aio:iscsi://192.0.2.1/iqn.2026-01.test:other/1", "192.0.2.1");
}

TEST_F(GuestBackendBadInput, MissingLun) {
  expect_error("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/7", "192.0.2.1");
}

TEST_F(GuestBackendBadInput, SecretInTheTarget) {
  expect_error("aio:iscsi://joe%hunter2@192.0.2.1/iqn.2026-01.test:target/1", "credentials");
  std::string params;
  backend_->query([&](const GuestStatus& status) { params = status.disks.at(0).params; });
  run_for(10ms);
  EXPECT_EQ(params, "iscsi:(not shown)");
}

TEST_F(GuestBackendBadInput, MalformedTarget) {
  expect_error("aio:iscsi://192.0.2.1", "target name");
}

TEST_F(GuestBackendBadInput, UnknownAlias) {
  expect_error("aio:iscsi:nothing", "no LUN with the alias nothing");
}

TEST_F(GuestBackendBadInput, ContradictionBetweenTheDiskLineAndTheConfiguration) {
  configuration_.multipath.path_weights = {parse_path_rule("portal 192.0.2.1 5", 100).value()};
  expect_error("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1?path_selector=queue-length",
               "path_weights is for path_selector service-time and round-robin, not queue-length");
}

// Two targets at two portals, whose LUNs are not the same.
class GuestBackendTwoLuns : public GuestBackendBadInput {
 protected:
  GuestBackendTwoLuns() : other_(reactor_, other_options()) {
    SimLunOptions lun;
    lun.naa_extension = 99;
    other_lun_ = std::make_shared<SimLun>(lun);
    other_.add_lun(1, other_lun_);
  }
  static SimTargetOptions other_options() {
    SimTargetOptions options;
    options.name = kTargetName;
    options.portals = {SimPortal{SocketAddress::parse("192.0.2.77", 3260).value(), 1}};
    return options;
  }

  SimTarget other_;
  std::shared_ptr<SimLun> other_lun_;
};

TEST_F(GuestBackendTwoLuns, TwoPortalsWithDifferentLunsAreRefused) {
  const std::string params = "aio:iscsi://192.0.2.1,192.0.2.77/iqn.2026-01.test:target/1";
  expect_error(params, "leads to another LUN than portal 192.0.2.");
  const std::string error = error_of(disk(params));
  for (const char* part :
       {"192.0.2.1:3260", "192.0.2.77:3260", "36001405", "must lead to one LUN"}) {
    EXPECT_THAT(error, HasSubstr(part));
  }
  EXPECT_EQ(target_.sessions(), 1u) << "the good disk's";
  EXPECT_EQ(other_.sessions(), 0u) << "nothing of a refused disk stays";
}

TEST_F(GuestBackendTwoLuns, APortalThatTurnsUpLaterWithAnotherLunIsQuarantined) {
  other_.stop();
  const FakeDisk xvda = disk("aio:iscsi://192.0.2.1,192.0.2.77/iqn.2026-01.test:target/1");
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  other_.start();
  run_for(60s);
  do_io(guest);
  EXPECT_EQ(other_lun_->counters.writes, 0u);
  EXPECT_EQ(error_of(xvda), "");
  std::string line;
  backend_->query([&](const GuestStatus& status) {
    line = status.disks.at(0).report->multipath.paths.at(1).last_error;
    EXPECT_EQ(status.disks.at(0).report->multipath.paths.at(1).state, PathState::quarantined);
  });
  run_for(10ms);
  EXPECT_THAT(line, HasSubstr("leads to another LUN than portal 192.0.2.1:3260"));
}

TEST_F(GuestBackendTest, ARefusedDiskDoesNotKeepTheGuestsBootWaiting) {
  const FakeDisk xvda = disk("aio:iscsi:nothing");
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(run_until([&] { return guest.state() == 6; }));
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) == 6; }));
}

TEST_F(GuestBackendTest, ADeadPortalThatComesBackMakesTheDiskComeUp) {
  target_.stop();
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  run_for(60s);
  EXPECT_NE(error_of(xvda), "");
  EXPECT_FALSE(guest.connected());
  target_.start();
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(error_of(xvda), "");
  EXPECT_EQ(toolstack_.backend_value(xvda, "hotplug-status"), "connected");
}

TEST_F(GuestBackendTest, AHostThatIsKnownLaterAddsItsPath) {
  const FakeDisk xvda = disk("aio:iscsi://192.0.2.1,two/iqn.2026-01.test:target/1");
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(target_.sessions(), 1u);
  resolver_.names["two"] = "192.0.2.2";
  ASSERT_TRUE(run_until([&] { return target_.sessions() == 2; }, 60s));
}

TEST_F(GuestBackendTest, PortalsByDiscovery) {
  Portal portal;
  portal.host = "192.0.2.1";
  configuration_.discovery_portals = {portal};
  resolver_.discovered = {portal};
  resolver_.discovered.push_back(portal);
  resolver_.discovered[1].host = "192.0.2.2";
  const FakeDisk xvda = disk("aio:iscsi:iqn.2026-01.test:target/1");
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  ASSERT_TRUE(run_until([&] { return target_.sessions() == 2; }));
}

// --- A hostile guest
// -------------------------------------------------------------------------------

class GuestBackendHostileGuest : public GuestBackendTest {
 protected:
  // A frontend that writes these keys instead of good ones and claims to be initialised.
  void expect_refused(const std::vector<std::pair<std::string, std::string>>& keys,
                      const std::string& sentence) {
    const FakeDisk xvda = disk();
    const FakeDisk xvdb = disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/2", 51728);
    toolstack_.add(xvda);
    toolstack_.add(xvdb);
    auto store = xen_.store().connect(kGuest);
    for (const auto& [key, value] : keys) {
      ASSERT_TRUE(store->write(xvda.frontend_path() + "/" + key, value));
    }
    ASSERT_TRUE(store->write(xvda.frontend_path() + "/state", "3"));
    start();
    FakeFrontend& other = boot(xvdb);
    ASSERT_TRUE(connect(other));
    ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) == 5; }))
        << xen_.store().dump();
    EXPECT_THAT(error_of(xvda), HasSubstr(sentence));
    do_io(other);
  }
};

TEST_F(GuestBackendHostileGuest, NoKeys) {
  expect_refused({}, "ring-ref");
}

TEST_F(GuestBackendHostileGuest, RingReferenceThatIsNoNumber) {
  expect_refused({{"ring-ref", "x"}, {"event-channel", "1"}}, "not a number");
}

TEST_F(GuestBackendHostileGuest, RingReferenceThatIsTooLarge) {
  expect_refused({{"ring-ref", "99999999999"}, {"event-channel", "1"}}, "not a number");
}

TEST_F(GuestBackendHostileGuest, RingReferenceThatWasNeverGranted) {
  expect_refused({{"ring-ref", "4000000"}, {"event-channel", "1"}}, "");
}

TEST_F(GuestBackendHostileGuest, RingOrderAboveTheOffer) {
  expect_refused({{"ring-page-order", "5"}, {"event-channel", "1"}}, "at most 4");
}

TEST_F(GuestBackendHostileGuest, RingOrderWithoutItsReferences) {
  expect_refused({{"ring-page-order", "1"}, {"ring-ref0", "8"}, {"event-channel", "1"}},
                 "ring-ref1");
}

TEST_F(GuestBackendHostileGuest, EventChannelZero) {
  expect_refused({{"ring-ref", "8"}, {"event-channel", "0"}}, "event-channel is 0");
}

TEST_F(GuestBackendHostileGuest, EventChannelMissing) {
  expect_refused({{"ring-ref", "8"}}, "event-channel");
}

TEST_F(GuestBackendHostileGuest, UnknownProtocol) {
  expect_refused({{"ring-ref", "8"}, {"event-channel", "1"}, {"protocol", "ppc64-abi"}},
                 "protocol is unknown");
}

TEST_F(GuestBackendHostileGuest, BrokenRingCostsOnlyItsOwnDisk) {
  const FakeDisk xvda = disk();
  const FakeDisk xvdb = disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/2", 51728);
  toolstack_.add(xvda);
  toolstack_.add(xvdb);
  start();
  FakeFrontend& evil = boot(xvda);
  FakeFrontend& good = boot(xvdb);
  ASSERT_TRUE(connect(evil) && connect(good));
  evil.set_request_producer(evil.request_producer() + 1000);
  evil.ring_doorbell();
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) >= 5; }));
  EXPECT_NE(error_of(xvda), "");
  do_io(good);
}

TEST_F(GuestBackendHostileGuest, FloodOfStateChanges) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  auto store = xen_.store().connect(kGuest);
  for (int round = 0; round < 500; ++round) {
    ASSERT_TRUE(store->write(xvda.frontend_path() + "/state", std::to_string(round % 10)));
    if (round % 7 == 0) {
      reactor_.run_for(1ms);
    }
  }
  ASSERT_TRUE(store->write(xvda.frontend_path() + "/state", "1"));
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) == 2; }));
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  do_io(guest);
}

TEST_F(GuestBackendTest, ADeadPredecessorsRingIsNotTakenUp) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  auto store = xen_.store().connect(kGuest);
  ASSERT_TRUE(store->write(xvda.frontend_path() + "/state", "4"));
  ASSERT_TRUE(toolstack_.store().write(xvda.backend_path() + "/state", "4"));
  start();
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) == 5; }));
}

// --- Status
// ------------------------------------------------------------------------------------------

TEST_F(GuestBackendTest, StatusOfAConnectedDisk) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  do_io(guest);
  run_for(20ms);
  std::optional<GuestStatus> status;
  backend_->query([&](GuestStatus answer) { status = std::move(answer); });
  ASSERT_TRUE(run_until([&] { return status.has_value(); }));
  EXPECT_TRUE(status->complete);
  ASSERT_EQ(status->disks.size(), 1u);
  const DiskStatus& disk = status->disks[0];
  EXPECT_EQ(disk.virtual_device, "xvda");
  EXPECT_EQ(disk.params, kParams);
  EXPECT_EQ(disk.backend_state, XenbusState::connected);
  EXPECT_EQ(disk.frontend_state, XenbusState::connected);
  ASSERT_TRUE(disk.report && disk.report->ring);
  EXPECT_EQ(disk.report->multipath.paths.size(), 2u);
  EXPECT_EQ(disk.report->ring->write_requests, 1u);
  EXPECT_EQ(disk.report->ring->read_requests, 1u);
  EXPECT_EQ(disk.report->ring->flush_requests, 1u);
}

// --- Every place where a call to Xen can fail
// --------------------------------------------------------

// Fails the n-th call to xenstore, grant table or event channels, for n = 1, 2 ... until a run has
// not reached its n-th call: whatever fails, the guest's end leaves nothing behind.
TEST(GuestBackendFaults, EveryFailureOfACallEndsCleanly) {
  for (std::uint64_t nth = 1; nth < 400; ++nth) {
    struct Run : GuestBackendTest {
      void TestBody() override {}
      bool run(std::uint64_t n) {
        const FakeDisk xvda = disk();
        toolstack_.add(xvda);
        start();
        // Nothing but the product may meet the fault.
        FakeFrontend& guest = boot(xvda);
        reactor_.run_for(1us);
        xen_.faults().fail_nth(n);
        (void)guest;
        reactor_.run_for(5s);
        const bool fired = !xen_.faults().fired().empty();
        xen_.faults().disarm();
        EXPECT_TRUE(connect(guest) || toolstack_.backend_state(xvda) >= 5) << n;
        return fired;
      }
    };
    Run run;
    if (!run.run(nth)) {
      break;
    }
  }
}

}  // namespace
}  // namespace iscsi_blkback
