// A guest that runs, while its paths come and go, an operator changes them, and its LUN grows.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

TEST_F(GuestBackendTest, OnePathIsCutUnderWrites) {
  FakeFrontend& guest = serve();
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
  FakeFrontend& guest = serve();
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
  FakeFrontend& guest = serve();
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
  FakeFrontend::RequestId waiting = ask();
  EXPECT_FALSE(fails_within(waiting, 10s));
  ASSERT_TRUE(command(R"({"command":"disablequeueing","devid":51712})"));
  EXPECT_TRUE(fails_within(waiting, 10ms));
  EXPECT_TRUE(fails_within(ask(), 10ms));

  ASSERT_TRUE(command(R"({"command":"restorequeueing","devid":51712})"));
  waiting = ask();
  EXPECT_FALSE(fails_within(waiting, 60s));

  ASSERT_TRUE(set("no_path_retry", "100s"));
  EXPECT_FALSE(fails_within(waiting, 20s));
  EXPECT_TRUE(fails_within(waiting, 20s));

  EXPECT_THAT(refusal(set("no_path_retry", "soon")), HasSubstr("no_path_retry is neither"));
  EXPECT_THAT(refusal(set("rr_min_io", "soon")), HasSubstr("rr_min_io cannot be changed"));
  EXPECT_THAT(refusal(command(R"({"command":"explode","devid":51712})")), HasSubstr("unknown"));
  EXPECT_THAT(refusal(command(R"({"command":"restorequeueing","devid":51728})")),
              HasSubstr("no disk 51728"));
}

TEST_F(GuestBackendTest, PathsAreAddedAndRemovedUnderAGuestThatRuns) {
  FakeFrontend& guest = serve(disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1"));
  resolver_.names["storage2"] = "192.0.2.2";
  ASSERT_EQ(refusal(change_path("add_path", "storage2")), "");
  ASSERT_TRUE(paths_up(2));
  EXPECT_EQ(map().paths[1].portal, "storage2:3260");
  do_io(guest, 1);

  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.1:3260")), "");
  ASSERT_TRUE(run_until([&] { return target_.sessions_at(0) == 0; }, 1s));
  ASSERT_EQ(map().paths.size(), 1U);
  do_io(guest, 2);
  ASSERT_EQ(refusal(change_path("add_path", "192.0.2.1")), "");
  ASSERT_TRUE(paths_up(2));
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
  serve();
  ASSERT_EQ(refusal(change_path("add_path", "192.0.2.9", "iqn.2026-01.test:other")), "");
  ASSERT_TRUE(paths_up(3));
  EXPECT_EQ(map().paths[2].target_name, "iqn.2026-01.test:other");
  EXPECT_EQ(refusal(change_path("del_path", "192.0.2.9", kTargetName)),
            "the disk has no path by 192.0.2.9:3260");
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.9", "iqn.2026-01.test:other")), "");
  ASSERT_TRUE(run_until([&] { return other.sessions() == 0; }, 1s));
}

// One LUN of an array that has a target name for each of its controllers, each at two portals.
class GuestBackendTwoNames : public GuestBackendTest {
 protected:
  static SimTargetOptions controller(const char* name, const char* one, const char* two) {
    SimTargetOptions options = target_options();
    options.name = name;
    options.portals = {SimPortal{SocketAddress::parse(one, 3260).value(), 1},
                       SimPortal{SocketAddress::parse(two, 3260).value(), 1}};
    return options;
  }
  GuestBackendTwoNames() {
    for (SimTarget* one : {&a_, &b_}) {
      one->add_lun(1, lun_);
    }
  }
  ~GuestBackendTwoNames() override { EXPECT_TRUE(a_.violations.empty() && b_.violations.empty()); }
  SimTarget& target_of(std::size_t path) { return path < 2 ? a_ : b_; }
  const char* portal_of(std::size_t path) { return kPortals[path]; }
  void cut(std::size_t path, bool off) {
    const SocketAddress& address = target_of(path).address(path % 2);
    reactor_.network().set_refusing(address, off);
    if (off) {
      reactor_.network().reset_connections(address);
    }
  }

  static constexpr const char* kA = "iqn.2026-01.test:a";
  static constexpr const char* kB = "iqn.2026-01.test:b";
  static constexpr const char* kPortals[] = {"192.0.2.11", "192.0.2.12", "192.0.2.21",
                                             "192.0.2.22"};
  static constexpr const char* kLine =
      "aio:iscsi://192.0.2.11,192.0.2.12/iqn.2026-01.test:a;192.0.2.21,192.0.2.22/"
      "iqn.2026-01.test:b/1";
  std::shared_ptr<SimLun> lun_ = std::make_shared<SimLun>(SimLunOptions{});
  SimTarget a_{reactor_, controller(kA, kPortals[0], kPortals[1])};
  SimTarget b_{reactor_, controller(kB, kPortals[2], kPortals[3])};
};

TEST_F(GuestBackendTwoNames, AnyPathMayFailAndComeBack) {
  FakeFrontend& guest = serve(disk(kLine));
  ASSERT_TRUE(paths_up(4));
  int seed = 0;
  for (std::size_t path = 0; path < 4; ++path) {
    cut(path, true);
    do_io(guest, ++seed);
    ASSERT_TRUE(paths_up(3)) << path;
    cut(path, false);
    ASSERT_TRUE(paths_up(4)) << path;

    // Within the controller, and to the other one, which knows nobody of this name.
    for (const std::size_t to : {path ^ 1U, path ^ 2U}) {
      target_of(path).redirect_logins(path % 2, std::string(portal_of(to)) + ":3260,1");
      reactor_.network().reset_connections(target_of(path).address(path % 2));
      do_io(guest, ++seed);
      const bool same_controller = to == (path ^ 1U);
      ASSERT_TRUE(paths_up(same_controller ? 4 : 3)) << path << " to " << to;
      target_of(path).redirect_logins(path % 2, "");
      reactor_.network().reset_connections(target_of(path).address(path % 2));
      reactor_.network().reset_connections(target_of(to).address(to % 2));
      ASSERT_TRUE(paths_up(4)) << path << " from " << to;
      do_io(guest, ++seed);
    }
  }
  for (const std::size_t first : {0U, 2U}) {
    cut(first, true);
    cut(first + 1, true);
    do_io(guest, ++seed);
    ASSERT_TRUE(paths_up(2)) << first;
    cut(first, false);
    cut(first + 1, false);
    ASSERT_TRUE(paths_up(4)) << first;
  }
}

TEST_F(GuestBackendTwoNames, AnyPathIsRemovedAndAddedByItsName) {
  FakeFrontend& guest = serve(disk(kLine));
  ASSERT_TRUE(paths_up(4));
  int seed = 0;
  for (std::size_t path = 0; path < 4; ++path) {
    const char* const name = path < 2 ? kA : kB;
    const char* const other = path < 2 ? kB : kA;
    const std::string capitals = path < 2 ? "IQN.2026-01.test:A" : "iqn.2026-01.TEST:B";
    EXPECT_NE(refusal(change_path("del_path", portal_of(path), other)), "") << path;
    EXPECT_EQ(refusal(change_path("add_path", portal_of(path), name)),
              std::string("the path by ") + portal_of(path) + ":3260 is there already");
    EXPECT_EQ(refusal(change_path("add_path", portal_of(path), capitals)),
              std::string("the path by ") + portal_of(path) + ":3260 is there already");
    ASSERT_EQ(refusal(change_path("del_path", portal_of(path), path % 2 == 0 ? name : capitals)),
              "");
    ASSERT_TRUE(run_until([&] { return map().paths.size() == 3; })) << path;
    do_io(guest, ++seed);
    ASSERT_EQ(refusal(change_path("add_path", portal_of(path), name)), "") << path;
    ASSERT_TRUE(paths_up(4)) << path;
    EXPECT_EQ(map().paths.back().target_name, name);
    do_io(guest, ++seed);
  }
}

// From the beginning, where the disk line says which LUN is meant, and all of a sudden.
TEST_F(GuestBackendTwoNames, AnotherLunBehindOneNameIsNotUsed) {
  SimLunOptions options;
  options.naa_extension = 7;
  options.serial = "SERIAL7";
  const auto other = std::make_shared<SimLun>(options);
  const auto lead_to = [&](const std::shared_ptr<SimLun>& lun) {
    b_.remove_lun(1);
    b_.add_lun(1, lun);
    b_.add_unit_attention(0x3f0e);
  };
  lead_to(other);
  FakeFrontend& guest = serve(disk(std::string(kLine) + "?wwid=360014050000000000000000000000001"));
  for (int seed = 1; seed < 4; ++seed) {
    ASSERT_TRUE(run_until(
        [&] {
          const auto now = map();
          return now.paths_up() == 2 && now.paths[2].state == PathState::quarantined &&
                 now.paths[3].state == PathState::quarantined;
        },
        120s));
    do_io(guest, seed);
    EXPECT_EQ(other->counters.reads + other->counters.writes, 0U);
    lead_to(lun_);
    ASSERT_TRUE(paths_up(4, 120s));
    do_io(guest, 10 + seed);
    lead_to(other);
  }
}

TEST_F(GuestBackendTest, AnAddedPathToAnotherLunIsQuarantined) {
  SimTargetOptions options = target_options();
  options.portals = {SimPortal{SocketAddress::parse("192.0.2.9", 3260).value(), 1}};
  SimTarget other(reactor_, options);
  other.add_lun(1, std::make_shared<SimLun>(SimLunOptions{.naa_extension = 7}));
  FakeFrontend& guest = serve();
  ASSERT_EQ(refusal(change_path("add_path", "192.0.2.9")), "");
  ASSERT_TRUE(run_until([&] { return map().paths[2].state == PathState::quarantined; }));
  do_io(guest);
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.9")), "");
  ASSERT_TRUE(run_until([&] { return other.sessions() == 0; }, 1s));
}

// While a portal's name cannot be resolved, all of the disk's are looked up again and again.
TEST_F(GuestBackendTest, ARemovedPathStaysRemovedWhenOtherPortalsAreFoundLater) {
  serve(disk("aio:iscsi://192.0.2.1,late,192.0.2.3/iqn.2026-01.test:target/1"));
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.3")), "");
  resolver_.names["late"] = "192.0.2.2";
  ASSERT_TRUE(paths_up(2, 120s));
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
  FakeFrontend& guest = serve();
  EXPECT_EQ(refusal(change_path("del_path", "192.0.2.9")),
            "the disk has no path by 192.0.2.9:3260");
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.2")), "");
  EXPECT_EQ(refusal(change_path("del_path", "192.0.2.1")),
            "the disk has no other path than by 192.0.2.1:3260: add one first, or detach the disk");
  do_io(guest);
}

TEST_F(GuestBackendTest, APathThatIsStillLeavingIsNotAddedAgain) {
  FakeFrontend& guest = serve();
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
  ASSERT_TRUE(paths_up(2));
}

// The device is closed and opened anew when a ring leaves requests behind that wait for a path.
TEST_F(GuestBackendTest, WhatAnOperatorHasChangedHoldsForTheDevicesNextLife) {
  FakeFrontend& guest = serve(disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1"));
  ASSERT_EQ(refusal(change_path("add_path", "192.0.2.2")), "");
  ASSERT_EQ(refusal(change_path("del_path", "192.0.2.1")), "");
  ASSERT_EQ(refusal(set("path_selector", "queue-length")), "");
  ASSERT_EQ(refusal(set("no_path_retry", "300s")), "");
  ASSERT_TRUE(paths_up(1));
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
  FakeFrontend& guest = serve();
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
  FakeFrontend& guest = serve(xvda);
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
  FakeFrontend& guest = serve();
  for (std::uint64_t n = 1; n <= 8; ++n) {
    const std::uint64_t sectors = 2048 + n * 1024;
    target_.lun(1).resize(sectors);
    xen_.faults().fail_nth(n);
    EXPECT_TRUE(run_until([&] { return guest.sectors() == sectors; }, 33s)) << n;
    EXPECT_NE(xen_.faults().fired(), "") << n;
    xen_.faults().disarm();
  }
}

// --- a disk with settings of its own

class GuestBackendOwnSettings : public GuestBackendTest {
 protected:
  // The guest's second disk has a timer of its own for its sessions, and comes first or second.
  void expect_isids(bool comes_first) {
    std::map<std::uint16_t, std::set<Isid>> isids;  // by LUN
    target_.inject({.matches =
                        [&isids](const SimCommand& command) {
                          isids[command.lun].insert(command.isid);
                          return false;
                        },
                    .count = 0});
    const FakeDisk ordinary = disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1");
    const FakeDisk own =
        disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/2?login_timeout=7", 51728);
    const FakeDisk& first = comes_first ? own : ordinary;
    const FakeDisk& second = comes_first ? ordinary : own;
    toolstack_.add(first);
    start();
    ASSERT_TRUE(connect(boot(first)));
    toolstack_.add(second);
    ASSERT_TRUE(connect(boot(second)));
    EXPECT_EQ(target_.sessions(), 2u);
    target_.clear_faults();
    SessionOptions session;
    session.target_name = kTargetName;
    session.portal = SocketAddress::parse("192.0.2.1", 3260).value();
    SessionOptions hasty = session;
    hasty.login_timeout = 7s;
    EXPECT_EQ(isids[1], std::set{make_isid(0, kGuest, session, 0, 0)});
    EXPECT_EQ(isids[2], std::set{make_isid(0, kGuest, hasty, session_variant(hasty, session), 0)});
  }
};

TEST_F(GuestBackendOwnSettings, MakeSessionsOfItsOwn) {
  expect_isids(false);
}

TEST_F(GuestBackendOwnSettings, MakeSessionsOfItsOwnWithTheSameIsidsWhenItComesFirst) {
  expect_isids(true);
}

}  // namespace
}  // namespace iscsi_blkback
