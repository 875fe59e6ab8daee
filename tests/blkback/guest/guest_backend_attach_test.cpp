// Attaching a disk while some of its portals, or those that tell of them, are dead.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kDiscovered = "aio:iscsi:iqn.2026-01.test:target/1";

Portal portal_at(const std::string& host) {
  Portal portal;
  portal.host = host;
  return portal;
}

TEST_F(GuestBackendTest, ADiscoveryPortalThatNeverAnswersDelaysNoAttach) {
  configuration_.discovery_portals = {portal_at("dead"), portal_at("192.0.2.1")};
  resolver_.delays["dead"] = SimNames::never();
  resolver_.discovered = {portal_at("192.0.2.1"), portal_at("192.0.2.2")};
  const FakeDisk xvda = disk(kDiscovered);
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  EXPECT_TRUE(run_until([&] { return guest.connected(); }, 1s));
  EXPECT_TRUE(paths_up(2, 1s));
  do_io(guest);
}

TEST_F(GuestBackendTest, ADiscoveryPortalThatAnswersLateAddsItsPaths) {
  configuration_.discovery_portals = {portal_at("late"), portal_at("192.0.2.1")};
  configuration_.session.target_name = kTargetName;
  resolver_.delays["late"] = 10s;
  resolver_.discovered = {portal_at("192.0.2.1")};
  FakeFrontend& guest = serve(disk(kDiscovered));
  EXPECT_TRUE(paths_up(1, 1s));
  resolver_.discovered.push_back(portal_at("192.0.2.2"));
  run_for(5s);
  EXPECT_EQ(map().paths.size(), 1U);
  EXPECT_TRUE(paths_up(2, 10s));
  do_io(guest);
}

TEST_F(GuestBackendTest, ANameThatIsNeverResolvedDelaysNoAttach) {
  resolver_.delays["dead"] = SimNames::never();
  const FakeDisk xvda = disk("aio:iscsi://dead,192.0.2.1,two/iqn.2026-01.test:target/1");
  resolver_.names["two"] = "192.0.2.2";
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  EXPECT_TRUE(run_until([&] { return guest.connected(); }, 1s));
  EXPECT_TRUE(paths_up(2, 1s));
  do_io(guest);
}

TEST_F(GuestBackendTest, ANameThatIsResolvedLateAddsItsPath) {
  resolver_.delays["late"] = 7s;
  resolver_.names["late"] = "192.0.2.2";
  serve(disk("aio:iscsi://late,192.0.2.1/iqn.2026-01.test:target/1"));
  EXPECT_EQ(map().paths.size(), 1U);
  EXPECT_TRUE(paths_up(2, 8s));
}

TEST_F(GuestBackendTest, PathsWhoseNamesAreResolvedTogetherHaveTheOrderOfTheDiskLine) {
  resolver_.names = {{"one", "192.0.2.1"}, {"two", "192.0.2.2"}};
  resolver_.delays = {{"two", 50ms}};
  serve(disk("aio:iscsi://two,one/iqn.2026-01.test:target/1"));
  const MultipathSnapshot paths = map();
  ASSERT_EQ(paths.paths.size(), 2U);
  EXPECT_EQ(paths.paths[0].portal, "two:3260");
  EXPECT_EQ(paths.paths[1].portal, "one:3260");
}

TEST_F(GuestBackendTest, NoDiskWaitsForAnothersLookUps) {
  configuration_.discovery_portals = {portal_at("dead"), portal_at("192.0.2.1")};
  resolver_.delays["dead"] = 15s;
  resolver_.discovered = {portal_at("192.0.2.1")};
  const FakeDisk lost = disk("aio:iscsi://dead/iqn.2026-01.test:target/1", 51744);
  const FakeDisk xvda = disk(kDiscovered);
  const FakeDisk xvdb = disk("aio:iscsi:iqn.2026-01.test:target/2", 51728);
  for (const FakeDisk& one : {lost, xvda, xvdb}) {
    toolstack_.add(one);
  }
  start();
  boot(lost);
  FakeFrontend& first = boot(xvda);
  FakeFrontend& second = boot(xvdb);
  EXPECT_TRUE(run_until([&] { return first.connected() && second.connected(); }, 1s));
}

TEST_F(GuestBackendTest, AnAnswerThatComesAfterTheDiskHasGoneIsNobodys) {
  configuration_.discovery_portals = {portal_at("late"), portal_at("192.0.2.1")};
  resolver_.delays["late"] = 10s;
  resolver_.discovered = {portal_at("192.0.2.1")};
  const FakeDisk xvda = disk(kDiscovered);
  FakeFrontend& other = [&]() -> FakeFrontend& {
    toolstack_.add(second_disk());
    return serve(xvda), boot(second_disk());
  }();
  ASSERT_TRUE(connect(other));
  resolver_.discovered.push_back(portal_at("192.0.2.2"));
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(reaches_state(xvda, 6));
  run_for(20s);
  EXPECT_EQ(target_.sessions_at(1), 0U);
  do_io(other);
}

TEST_F(GuestBackendTest, ADiskOf32PortalsIsAttachedAndUsesThemAll) {
  SimTargetOptions options = target_options();
  options.name = "iqn.2026-01.test:wide";
  options.portals.clear();
  std::string url;
  for (int number = 1; number <= 32; ++number) {
    const std::string address = fmt::format("198.51.100.{}", number);
    options.portals.push_back({SocketAddress::parse(address, 3260).value(), 1});
    url += (url.empty() ? "aio:iscsi://" : ",") + address;
  }
  SimTarget wide(reactor_, options);
  wide.add_lun(1, std::make_shared<SimLun>(SimLunOptions{}));
  FakeFrontend& guest = serve(disk(url + "/iqn.2026-01.test:wide/1?path_selector=round-robin"));
  ASSERT_TRUE(paths_up(32));
  for (int round = 0; round < 16; ++round) {
    ASSERT_NO_FATAL_FAILURE(do_io(guest, round));
  }
  const MultipathSnapshot paths = map();
  ASSERT_EQ(paths.paths.size(), 32U);
  for (const PathSnapshot& path : paths.paths) {
    EXPECT_GT(path.requests, 0U) << path.portal;
  }
  // All but the last one go.
  for (std::size_t number = 0; number < 31; ++number) {
    wide.close_portal(number);
  }
  do_io(guest, 99);
  EXPECT_EQ(map().paths_up(), 1U);
  end_guest(DomainLife::gone);
  ASSERT_TRUE(ends());
  EXPECT_EQ(wide.sessions(), 0U);
  EXPECT_THAT(wide.violations, testing::IsEmpty());
}

}  // namespace
}  // namespace iscsi_blkback
