// A guest's process as it really is threaded: the control side on one thread, the I/O side on
// two others, look-ups on a fourth, all on the real reactor; in-memory Xen (xenstore by libxenstore and
// a FakeXenstored), and portals on loopback that nobody listens on. Made for the thread sanitizer;
// what the disks do is guest_backend_test's matter.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "base/uring_reactor.h"
#include "blkback/guest/guest_backend.h"
#include "blkback/guest/guest_data_plane.h"
#include "blkback/guest/spread_data_plane.h"
#include "blkback/process/guest_supervisor.h"
#include "multipath/fencing/barrier_thread.h"
#include "tests/support/fake_toolstack.h"
#include "tests/support/fake_xenstored.h"
#include "tests/support/loopback_directory.h"
#include "tests/support/mem_xen.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

constexpr DomainId kGuest = 5;

TEST(GuestThreads, AttachStatusAndDetachAcrossThreads) {
  MemXen xen;
  FakeToolstack toolstack(xen);
  FakeXenstored xenstored(xen.store());
  LoopbackDirectory directory;
  Configuration configuration;
  configuration.initiator_name = "iqn.2026-01.test:host";
  xen.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  std::vector<FakeDisk> disks;
  for (std::uint32_t number = 0; number < 3; ++number) {
    FakeDisk disk;
    disk.guest = kGuest;
    disk.device_id = 51712 + 16 * number;
    disk.params = fmt::format("aio:iscsi://host{0}/iqn.2026-01.test:target/{0}", number);
    toolstack.add(disk);
    disks.push_back(disk);
  }

  auto control = UringReactor::create();
  if (!control) {
    GTEST_SKIP() << "no io_uring here";
  }
  auto domains = xen.open_domain_info();
  struct Io {
    std::unique_ptr<UringReactor> reactor;
    std::unique_ptr<GrantTable> grants;
    std::unique_ptr<EventChannels> channels;
    std::optional<BarrierThread> barrier_thread;
    std::optional<GuestDataPlane> plane;
    std::thread thread;
  };
  std::array<Io, 2> ios;
  std::vector<DataPlane*> planes;
  for (Io& io : ios) {
    auto reactor = UringReactor::create();
    ASSERT_TRUE(reactor);
    io.reactor = std::move(*reactor);
    io.grants = xen.grants().open(0);
    io.channels = xen.events().open(0);
    io.barrier_thread.emplace(*io.reactor);
    io.plane.emplace(*io.reactor, **control, *io.grants, *io.channels, DomainId{0}, kGuest, "",
                     std::nullopt, "", &*io.barrier_thread,
                     ReactorPlace{static_cast<std::uint32_t>(planes.size()), ios.size()});
    planes.push_back(&*io.plane);
  }
  SpreadDataPlane plane(planes);
  auto resolver = make_path_discovery(**control, directory);
  bool finished = false;
  auto backend = std::make_unique<GuestBackend>(
      GuestBackend::Environment{**control, [&] { return xenstored.connect(); }, domains.get(),
                                plane, *resolver},
      configuration, DomainId{0}, kGuest, [&] { finished = true; });
  ASSERT_TRUE(backend->start());
  for (Io& io : ios) {
    io.thread = std::thread([&io] { io.reactor->run(); });
  }

  const auto run_until = [&](const std::function<bool()>& predicate) {
    const TimePoint end = (*control)->now() + 60s;
    while (!predicate() && (*control)->now() < end) {
      (*control)->run_once(10ms);
    }
    return predicate();
  };
  for (const FakeDisk& disk : disks) {
    EXPECT_TRUE(run_until([&] { return !toolstack.backend_value(disk, "hotplug-error").empty(); }));
    EXPECT_EQ(toolstack.backend_state(disk), 2);
  }
  EXPECT_EQ(directory.lookups, 3);
  int answers = 0;
  for (int i = 0; i < 20; ++i) {
    backend->query([&](const GuestStatus& status) {
      EXPECT_EQ(status.disks.size(), 3u);
      ++answers;
    });
  }
  EXPECT_TRUE(run_until([&] { return answers == 20; }));
  // What is asked for while xenstored is away is done when it is there again.
  xenstored.kill();
  for (const FakeDisk& disk : disks) {
    toolstack.request_detach(disk);
  }
  xenstored.start();
  EXPECT_TRUE(run_until([&] { return finished; }));
  for (Io& io : ios) {
    io.reactor->stop();
    io.thread.join();
  }
  resolver.reset();
  backend.reset();
}

class CountingLauncher final : public GuestLauncher {
 public:
  Result<pid_t> start(DomainId guest) override {
    started.push_back(guest);
    return static_cast<pid_t>(started.size());
  }
  Result<std::optional<pid_t>> adopt(DomainId) override { return std::optional<pid_t>(); }
  std::vector<DomainId> started;
};

// Its xenstored is killed and comes back.
TEST(GuestThreads, TheServiceHearsOfXenstoredsDeathAtOnceAndGoesOnWithTheNext) {
  MemXen xen;
  FakeToolstack toolstack(xen);
  FakeXenstored xenstored(xen.store());
  auto control = UringReactor::create();
  if (!control) {
    GTEST_SKIP() << "no io_uring here";
  }
  FakeDisk disk;
  disk.guest = kGuest;
  disk.params = "aio:iscsi:data";
  toolstack.add(disk);
  CountingLauncher launcher;
  int opened = 0;
  int failed = 0;
  GuestSupervisor supervisor(
      **control,
      [&]() -> Result<std::unique_ptr<XenStore>> {
        auto store = xenstored.connect();
        ++(store ? opened : failed);
        return store;
      },
      launcher, 0);
  ASSERT_TRUE(supervisor.start());
  const auto run_until = [&](const std::function<bool()>& predicate) {
    const TimePoint end = (*control)->now() + 60s;
    while (!predicate() && (*control)->now() < end) {
      (*control)->run_once(10ms);
    }
    return predicate();
  };
  ASSERT_TRUE(run_until([&] { return launcher.started.size() == 1; }));
  xenstored.kill();
  ASSERT_TRUE(run_until([&] { return failed != 0; })) << "though nothing is asked";
  disk.guest = kGuest + 1;
  toolstack.add(disk);  // and nobody tells
  xenstored.start();
  ASSERT_TRUE(run_until([&] { return launcher.started.size() == 2; }));
  EXPECT_EQ(launcher.started.back(), kGuest + 1);
  EXPECT_EQ(opened, 2);
}

}  // namespace
}  // namespace iscsi_blkback
