#include "multipath/multipath_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

PathSnapshot path_at(std::string portal, PathState state, std::uint32_t group) {
  PathSnapshot path;
  path.portal = std::move(portal);
  path.lun = 1;
  path.state = state;
  path.session_state =
      state == PathState::down ? SessionState::transport_wait : SessionState::logged_in;
  path.group = group;
  return path;
}

MultipathSnapshot disk() {
  MultipathSnapshot snapshot;
  snapshot.alias = "mpio";
  snapshot.wwid = "360a98000deadbeef";
  snapshot.vendor = "IET";
  snapshot.product = "VIRTUAL-DISK";
  snapshot.geometry.sector_count = 2 * 1024 * 1024;
  snapshot.ready = true;
  snapshot.path_selector = "round-robin 0";
  snapshot.no_path_retry = "queue";
  snapshot.groups = {{.priority = 1}};
  return snapshot;
}

TEST(RenderTopology, OneGroupWithAPathThatIsDown) {
  MultipathSnapshot snapshot = disk();
  snapshot.paths.push_back(path_at("192.0.2.1:3260", PathState::up, 0));
  snapshot.paths.back().interface_name = "eth1";
  snapshot.paths.push_back(path_at("192.0.2.2:3260", PathState::down, 0));
  snapshot.paths.back().last_error = "connection refused";
  EXPECT_EQ(render_topology(snapshot).text(),
            "mpio (360a98000deadbeef) IET,VIRTUAL-DISK\n"
            "size=1.0G features='1 queue_if_no_path' hwhandler='0' wp=rw\n"
            "`-+- policy='round-robin 0' prio=1 status=active\n"
            "  |- 192.0.2.1:3260,eth1 lun 1 active ready  running\n"
            "  `- 192.0.2.2:3260      lun 1 failed faulty offline [connection refused]\n");
}

TEST(RenderTopology, ASilentPathAndHowManyReadsWereAskedForTwice) {
  MultipathSnapshot snapshot = disk();
  snapshot.hedged = 12;
  snapshot.paths.push_back(path_at("192.0.2.1:3260", PathState::up, 0));
  snapshot.paths.push_back(path_at("192.0.2.2:3260", PathState::up, 0));
  snapshot.paths.back().suspect = true;
  EXPECT_EQ(render_topology(snapshot).text(),
            "mpio (360a98000deadbeef) IET,VIRTUAL-DISK\n"
            "size=1.0G features='1 queue_if_no_path' hwhandler='0' wp=rw [reads asked for twice: "
            "12]\n"
            "`-+- policy='round-robin 0' prio=1 status=active\n"
            "  |- 192.0.2.1:3260 lun 1 active ready       running\n"
            "  `- 192.0.2.2:3260 lun 1 active i/o pending running [silent: used only while no "
            "other path is left]\n");
}

TEST(RenderTopology, APathForWhichNoOtherPortalFences) {
  MultipathSnapshot snapshot = disk();
  snapshot.paths.push_back(path_at("192.0.2.1:3260", PathState::up, 0));
  snapshot.paths.back().fenced_alone = true;
  EXPECT_THAT(render_topology(snapshot).text(),
              testing::HasSubstr("ready running [no other portal fences for it]\n"));
}

TEST(RenderTopology, AGroupEachForFailover) {
  MultipathSnapshot snapshot = disk();
  snapshot.no_path_retry = "fail";
  snapshot.geometry.read_only = true;
  snapshot.active_group = 1;
  snapshot.groups = {{.priority = 0}, {.priority = 10}};
  snapshot.paths.push_back(path_at("a:3260", PathState::pending, 0));
  snapshot.paths.push_back(path_at("b:3260", PathState::up, 1));
  EXPECT_EQ(render_topology(snapshot).text(),
            "mpio (360a98000deadbeef) IET,VIRTUAL-DISK\n"
            "size=1.0G features='0' hwhandler='0' wp=ro\n"
            "|-+- policy='round-robin 0' prio=0 status=enabled\n"
            "| `- a:3260 lun 1 undef  i/o pending running\n"
            "`-+- policy='round-robin 0' prio=10 status=active\n"
            "  `- b:3260 lun 1 active ready       running\n");
}

TEST(RenderTopology, ADiskThatNobodyHasSeenYet) {
  MultipathSnapshot snapshot;
  snapshot.alias = "db";
  snapshot.path_selector = "round-robin 0";
  snapshot.no_path_retry = "queue";
  snapshot.paths.push_back(path_at("a:3260", PathState::quarantined, 0));
  snapshot.paths.back().last_error = "leads to another LUN";
  EXPECT_EQ(render_topology(snapshot).text(),
            "db ##,##\n"
            "size=0.0K features='1 queue_if_no_path' hwhandler='0' wp=rw\n"
            "`-+- policy='round-robin 0' prio=0 status=enabled\n"
            "  `- a:3260 lun 1 failed quarantined running [leads to another LUN]\n");
}

TEST(RenderTopology, AGhostPathWaitsBehindTheActiveGroup) {
  MultipathSnapshot snapshot = disk();
  snapshot.groups = {{.priority = 50}, {.priority = 1}};
  snapshot.paths.push_back(path_at("a:3260", PathState::up, 0));
  snapshot.paths.push_back(path_at("b:3260", PathState::ghost, 1));
  EXPECT_EQ(render_topology(snapshot).text(),
            "mpio (360a98000deadbeef) IET,VIRTUAL-DISK\n"
            "size=1.0G features='1 queue_if_no_path' hwhandler='0' wp=rw\n"
            "|-+- policy='round-robin 0' prio=50 status=active\n"
            "| `- a:3260 lun 1 active ready running\n"
            "`-+- policy='round-robin 0' prio=1 status=enabled\n"
            "  `- b:3260 lun 1 active ghost running\n");
}

TEST(RenderTopology, NoPathLeftOfALimitedQueue) {
  MultipathSnapshot snapshot = disk();
  snapshot.alias.clear();
  snapshot.no_path_retry = "30 sec";
  snapshot.queueing = false;
  snapshot.groups.clear();
  EXPECT_EQ(render_topology(snapshot).text(),
            "360a98000deadbeef IET,VIRTUAL-DISK\n"
            "size=1.0G features='0' hwhandler='0' wp=rw\n");
  snapshot.queueing = true;
  EXPECT_NE(render_topology(snapshot).text().find("1 queue_if_no_path"), std::string::npos);
}

TEST(RenderSize, AsMultipathPrintsIt) {
  EXPECT_EQ(render_size(0), "0.0K");
  EXPECT_EQ(render_size(3), "1.5K");
  EXPECT_EQ(render_size(20), "10K");
  EXPECT_EQ(render_size(2048), "1.0M");
  EXPECT_EQ(render_size(std::uint64_t{20} << 21), "20G");
  EXPECT_EQ(render_size(std::uint64_t{5} << 31), "5.0T");
}

}  // namespace
}  // namespace iscsi_blkback
