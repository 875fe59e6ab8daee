#include "blkback/process/status_report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace iscsi_blkback {
namespace {

using nlohmann::json;

GuestStatus status() {
  GuestStatus result;
  result.guest = 5;
  result.complete = true;
  DiskStatus& disk = result.disks.emplace_back();
  disk.node = XenbusNodeId{BackendKind::vbd3, 0, 5, 51712};
  disk.virtual_device = "xvda";
  disk.params = "iscsi:data";
  disk.backend_state = disk.frontend_state = XenbusState::connected;
  DiskReport& report = disk.report.emplace();
  MultipathSnapshot& map = report.multipath;
  map.alias = "data";
  map.wwid = "3600140500000000";
  map.vendor = "IET";
  map.product = "VIRTUAL-DISK";
  map.geometry.sector_count = 2048;
  map.ready = true;
  map.path_selector = "round-robin 0";
  map.no_path_retry = "queue";
  for (std::uint32_t number = 0; number < 2; ++number) {
    PathSnapshot& path = map.paths.emplace_back();
    path.portal = "storage:3260";
    path.address = "192.0.2.1:3260";
    path.target_name = "iqn.a:b";
    path.lun = 1;
    path.state = number == 0 ? PathState::up : PathState::down;
    path.session_state = number == 0 ? SessionState::logged_in : SessionState::transport_wait;
    path.group = number;
    path.failures = number;
  }
  report.ring.emplace().read_requests = 7;
  return result;
}

TEST(StatusReport, HasTheDocumentedLayout) {
  const json reply = json::parse(guest_status_line(status()));
  EXPECT_EQ(reply["ok"], true);
  EXPECT_EQ(reply["type"], "guest");
  EXPECT_EQ(reply["domid"], 5);
  EXPECT_EQ(reply["complete"], true);
  const json& disk = reply["disks"].at(0);
  EXPECT_EQ(disk["vdev"], "xvda");
  EXPECT_EQ(disk["devid"], 51712);
  EXPECT_EQ(disk["kind"], "vbd3");
  EXPECT_EQ(disk["mode"], "w");
  EXPECT_EQ(disk["state"], "Connected");
  EXPECT_EQ(disk["hotplug_error"], "");
  EXPECT_EQ(disk["statistics"]["read_requests"], 7);
  const json& map = disk["map"];
  EXPECT_EQ(map["name"], "data");
  EXPECT_EQ(map["uuid"], "3600140500000000");
  EXPECT_EQ(map["sysfs"], "xvda");
  EXPECT_EQ(map["queueing"], "on");
  EXPECT_EQ(map["features"], "1 queue_if_no_path");
  EXPECT_EQ(map["paths"], 2);
  EXPECT_EQ(map["size_bytes"], 1024 * 1024);
  EXPECT_EQ(map["path_faults"], 1);
  ASSERT_EQ(map["path_groups"].size(), 2u);
  EXPECT_EQ(map["path_groups"][0]["dm_st"], "active");
  EXPECT_EQ(map["path_groups"][1]["dm_st"], "enabled");
  const json& up = map["path_groups"][0]["paths"].at(0);
  EXPECT_EQ(up["dm_st"], "active");
  EXPECT_EQ(up["chk_st"], "ready");
  EXPECT_EQ(up["dev_st"], "running");
  EXPECT_EQ(up["lun_hex"], "0x0001");
  const json& down = map["path_groups"][1]["paths"].at(0);
  EXPECT_EQ(down["dm_st"], "failed");
  EXPECT_EQ(down["chk_st"], "faulty");
  EXPECT_EQ(down["dev_st"], "offline");
}

TEST(StatusReport, ASilentPathIsSuspectAndTwiceAskedReadsAreCounted) {
  GuestStatus silent = status();
  silent.disks[0].report->multipath.paths[0].suspect = true;
  silent.disks[0].report->multipath.hedged = 12;
  silent.disks[0].report->multipath.paths[0].fenced_alone = true;
  silent.disks[0].report->multipath.portal_group_fences = "trial";
  const json reply = json::parse(guest_status_line(silent));
  const json& map = reply["disks"][0]["map"];
  EXPECT_EQ(map["hedged"], 12);
  const json& up = map["path_groups"][0]["paths"].at(0);
  EXPECT_EQ(up["suspect"], true);
  EXPECT_EQ(up["fenced_alone"], true);
  EXPECT_EQ(map["portal_group_fences"], "trial");
  EXPECT_EQ(up["chk_st"], "i/o pending");
  EXPECT_EQ(up["dm_st"], "active");
  EXPECT_EQ(map["path_groups"][1]["paths"].at(0)["suspect"], false);
}

TEST(StatusReport, WithoutTheReactorsAnswerThereIsNoMap) {
  GuestStatus incomplete = status();
  incomplete.complete = false;
  incomplete.disks[0].report.reset();
  const json reply = json::parse(guest_status_line(incomplete));
  EXPECT_EQ(reply["complete"], false);
  EXPECT_FALSE(reply["disks"][0].contains("map"));
  EXPECT_FALSE(reply["disks"][0].contains("statistics"));
}

TEST(StatusReport, ADiskThatIsNotOpenHasANullMap) {
  GuestStatus closed = status();
  closed.disks[0].report.reset();
  const json reply = json::parse(guest_status_line(closed));
  EXPECT_TRUE(reply["disks"][0]["map"].is_null());
  EXPECT_TRUE(reply["disks"][0]["statistics"].is_null());
}

TEST(StatusReport, TextsOfTargetsMayBeAnything) {
  GuestStatus odd = status();
  odd.disks[0].report->multipath.vendor = "\xff\xfe\n\"";
  const std::string line = guest_status_line(odd);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_FALSE(json::parse(line, nullptr, false).is_discarded());
}

}  // namespace
}  // namespace iscsi_blkback
