// block-iscsi-blkback with xenstore's commands played by scripts: a node is a file, and
// xenstore-watch does what the test says between its events.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/command.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

constexpr const char* kScript = ISCSI_BLKBACK_SOURCE_FOLDER "/tools/packaging/block-iscsi-blkback";

class HotplugScript : public testing::Test {
 protected:
  HotplugScript() {
    std::filesystem::create_directories(store_);
    command("xenstore-read", "f=" + store_ + "/${1##*/}\n[ -e \"$f\" ] && cat \"$f\"");
    command("xenstore-write", "printf %s \"$2\" > " + store_ + "/${1##*/}");
    command("logger", "echo \"$@\" >> " + store_ + "/log");
    node("state", "2");
  }

  void command(const std::string& name, const std::string& body) {
    std::ofstream(folder_ / name) << "#!/bin/sh\n" << body << "\n";
    std::filesystem::permissions(folder_ / name, std::filesystem::perms::owner_all);
  }
  void node(const std::string& name, const std::string& value) {
    std::ofstream(store_ + "/" + name) << value;
  }
  // The event that a watch gives when it is set, then the script.
  void watch(const std::string& body) {
    command("xenstore-watch", "echo \"$1\"\nset_node() { printf %s \"$2\" > " + store_ +
                                  "/$1; echo \"$1\"; }\n" + body);
  }
  CommandResult run(const std::string& arguments,
                    const std::string& path = "/local/domain/0/backend/vbd3/5/51712") {
    return run_command("PATH='" + folder_.path() + "':\"$PATH\" XENBUS_PATH=" + path +
                       " timeout 60 sh '" + std::string(kScript) + "' " + arguments);
  }
  // The watch is not even set.
  void expect_at_once(const std::string& path, const std::string& sentence) {
    watch("touch " + store_ + "/watched\nexec sleep 50");
    std::filesystem::remove(store_ + "/hotplug-error");
    EXPECT_EQ(run("add", path).exit_code, 1) << path;
    EXPECT_THAT(read_whole(store_ + "/hotplug-error"), HasSubstr(sentence)) << path;
    EXPECT_FALSE(std::filesystem::exists(store_ + "/watched")) << path;
  }

  // The process whose number is in the file. Its signal is sent before the script ends; it may take
  // a moment to go.
  static bool ends(const std::string& pid_file) {
    return run_command("pid=$(cat " + pid_file +
                       ")\nfor i in $(seq 200); do\n"
                       "kill -0 $pid 2> /dev/null || exit 0; sleep 0.1; done; exit 1")
               .exit_code == 0;
  }

  TemporaryFolder folder_;
  std::string store_ = folder_ / "store";
};

TEST_F(HotplugScript, EndsAtOnceWhenTheLunIsReady) {
  node("hotplug-status", "connected");
  watch("exec sleep 50");
  EXPECT_EQ(run("add").exit_code, 0);
}

TEST_F(HotplugScript, WaitsForTheLun) {
  watch("set_node feature-flush-cache 1\nset_node hotplug-status connected\nexec sleep 50");
  EXPECT_EQ(run("add").exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(store_ + "/hotplug-error"));
}

TEST_F(HotplugScript, ForgetsTheWatch) {
  watch("echo $$ > " + store_ + "/pid\nset_node hotplug-status connected\nexec sleep 50");
  EXPECT_EQ(run("add").exit_code, 0);
  EXPECT_TRUE(ends(store_ + "/pid"));
}

// As coreutils' timeout does with a signal that comes before it has learnt its child's number.
TEST_F(HotplugScript, ForgetsTheWatchThoughTimeoutDoesNotPassTheSignalOn) {
  command("timeout", "shift\n\"$@\" &\nexec sleep 50");
  watch("echo $$ > " + store_ + "/pid\nset_node hotplug-status connected\nexec sleep 50");
  EXPECT_EQ(
      run_command("PATH='" + folder_.path() + "':\"$PATH\" XENBUS_PATH=backend/vbd3/5/51712 sh '" +
                  std::string(kScript) + "' add")
          .exit_code,
      0);
  EXPECT_TRUE(ends(store_ + "/pid"));
}

TEST_F(HotplugScript, FailsWithTheSentenceOfTheService) {
  watch("set_node hotplug-error 'the target has no LUN 7'\nexec sleep 50");
  EXPECT_EQ(run("add").exit_code, 1);
  EXPECT_THAT(read_whole(store_ + "/log"), HasSubstr("the target has no LUN 7"));
  EXPECT_EQ(read_whole(store_ + "/hotplug-error"), "the target has no LUN 7");
}

constexpr const char* kUntilLater =
    "set_node hotplug-error 'the LUN is not served until this host has run for quiesce_time (60 "
    "s): "
    "it had not ended in order, and what it had sent before may still be executed'\n";

// After a reset of the host, and at a reboot while a path is down, xl would not start it again.
TEST_F(HotplugScript, StartsAGuestWhoseDiskIsServedInAWhile) {
  watch(kUntilLater + std::string("exit 0"));  // as when the time is over
  EXPECT_EQ(run("add").exit_code, 0);
  EXPECT_THAT(read_whole(store_ + "/log"), HasSubstr("is not served until this host has run"));
}

TEST_F(HotplugScript, WaitsForADiskThatIsServedInAWhile) {
  watch(kUntilLater + std::string("set_node hotplug-status connected\nexec sleep 50"));
  EXPECT_EQ(run("add").exit_code, 0);
}

TEST_F(HotplugScript, FailsWithWhatComesAfterAWhile) {
  watch(
      kUntilLater +
      std::string("set_node hotplug-error 'the LUN is in use by xvda of guest 5'\nexec sleep 50"));
  EXPECT_EQ(run("add").exit_code, 1);
  EXPECT_THAT(read_whole(store_ + "/log"), HasSubstr("in use by xvda"));
  watch(kUntilLater + ("sleep 1\nrm " + store_ + "/hotplug-error\necho gone\nsleep 1"));
  EXPECT_EQ(run("add").exit_code, 1) << "nobody says that it will be served";
}

TEST_F(HotplugScript, FailsWhenTheDiskIsRemovedMeanwhile) {
  watch("rm " + store_ + "/state\necho gone\nexec sleep 50");
  EXPECT_EQ(run("add").exit_code, 1);
  EXPECT_THAT(read_whole(store_ + "/log"), HasSubstr("was removed"));
  EXPECT_FALSE(std::filesystem::exists(store_ + "/hotplug-error"));
}

TEST_F(HotplugScript, SaysSoWhenNothingHappensInTime) {
  watch("exit 0");  // as when the time is over
  EXPECT_EQ(run("add").exit_code, 1);
  EXPECT_THAT(read_whole(store_ + "/hotplug-error"), HasSubstr("the LUN was not ready in 35 s"));
}

TEST_F(HotplugScript, GivesUpBeforeLibxlDoes) {
  command("timeout", "echo $1 > " + store_ + "/patience");
  run_command("true");
  EXPECT_EQ(
      run_command("PATH='" + folder_.path() + "':\"$PATH\" XENBUS_PATH=backend/vbd3/5/1 sh '" +
                  std::string(kScript) + "' add")
          .exit_code,
      1);
  EXPECT_LT(std::stoi(read_whole(store_ + "/patience")), 40);
}

// Without backendtype=tap libxl makes the disk kind vbd, for which the service does not look.
TEST_F(HotplugScript, SaysAtOnceThatTheDiskLineNeedsAnotherBackendtype) {
  for (const char* path :
       {"/local/domain/0/backend/vbd/5/51712", "/local/domain/3/backend/vbd/5/51712",
        "backend/vbd/5/768", "/local/domain/0/backend/vbd/51/2048"}) {
    expect_at_once(path, "backendtype=tap");
  }
  expect_at_once("/local/domain/0/backend/qdisk/5/51712", "backendtype=tap");
  EXPECT_EQ(run("remove", "/local/domain/0/backend/vbd/5/51712").exit_code, 0);
}

TEST_F(HotplugScript, SaysAtOnceThatTheTargetIsNobodysHere) {
  for (const char* params :
       {"aio:/dev/vg/lv", "aio:iqn.2009-02.com.example:vm", "vhd:/images/a.vhd", "aio:", "scsi:a",
        "aio:iqn=iqn.a:b,portal=192.0.2.1", "aio://192.0.2.1/iqn.a:b/1",
        "aio:/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-iqn.2009-02.com.example:vm-lun-1",
        "aio:/dev/iscsi/vm:1", "phy:iscsi:a", "aio:iscsid:a", "aio:a iscsi:b", "aio:'", "aio: "}) {
    node("params", params);
    expect_at_once("/local/domain/0/backend/vbd3/5/51712", "does not begin with iscsi:");
  }
}

// Those the service refuses itself, and says more.
TEST_F(HotplugScript, LeavesToTheServiceWhatTheServiceExplains) {
  for (const char* params :
       {"aio:iscsi:a", "iscsi:a", "vhd:iscsi:a", "aio: iscsi:a", "aio:'iscsi:a'", "aio:ISCSI:a",
        "qcow2:\"iSCSI:a", "aio:iscsi :a", "aio: \"iscsi:a\"", "aio:\tiscsi://h/iqn.a:b/1"}) {
    node("params", params);
    node("hotplug-status", "");
    watch("set_node hotplug-status connected\nexec sleep 50");
    EXPECT_EQ(run("add").exit_code, 0) << params;
  }
}

TEST_F(HotplugScript, RemoveHasNothingToDo) {
  EXPECT_EQ(run("remove").exit_code, 0);
}

TEST_F(HotplugScript, RefusesOtherWords) {
  EXPECT_EQ(run("frobnicate").exit_code, 2);
  EXPECT_EQ(run("").exit_code, 2);
}

TEST_F(HotplugScript, RefusesToRunWithoutLibxl) {
  EXPECT_EQ(
      run_command("PATH='" + folder_.path() + "':\"$PATH\" sh '" + std::string(kScript) + "' add")
          .exit_code,
      1);
}

}  // namespace
}  // namespace iscsi_blkback
