// What a guest's process may ask xenstored for, path by path and message by message.
#include "blkback/process/xenstore_gate.h"

#include <gtest/gtest.h>

#include <string>

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace iscsi_blkback {
namespace {

const XenStoreGate kDom0(0, 5, "/run/x");
const XenStoreGate kDriverDomain(3, 5, "/run/x");
const std::string kGatedNode = "/local/domain/0/backend/qdisk/5/51712";

TEST(XenStoreGate, TheGuestsBackendNodesAndFrontendsAreRead) {
  for (const char* path :
       {"/local/domain/0/backend/qdisk/5", "/local/domain/0/backend/vbd3/5",
        "/local/domain/0/backend/qdisk/5/51712/params", "/local/domain/5/device/vbd/51712/state",
        "/local/domain/5/device/vbd/51712/queue-1/ring-ref", "/local/domain/5",
        "/local/domain/5/vm", "/libxl/5/type", "domid"}) {
    EXPECT_TRUE(kDom0.may_read(path)) << path;
  }
}

TEST(XenStoreGate, NothingElseIsRead) {
  for (const char* path :
       {"/", "/local/domain", "/local/domain/0", "/local/domain/0/backend/qdisk",
        "/local/domain/0/backend/qdisk/55", "/local/domain/0/backend/qdisk/6/51712/params",
        "/local/domain/0/backend/vif/5/0/script", "/local/domain/5/console",
        "/local/domain/5/device", "/local/domain/5/device/vbds", "/local/domain/55",
        "/local/domain/6/device/vbd/51712/state", "/libxl/5", "/libxl/5/device/vbd/51712/script",
        "/vm", "", "device/vbd"}) {
    EXPECT_FALSE(kDom0.may_read(path)) << path;
  }
}

TEST(XenStoreGate, OnlyWhatABackendPublishesIsWritten) {
  for (const char* key :
       {"state", "hotplug-status", "hotplug-error", "sectors", "feature-discard"}) {
    EXPECT_TRUE(kDom0.may_write(kGatedNode + "/" + key, "1")) << key;
  }
  // What xl takes it for root's word.
  for (const char* key : {"script", "params", "frontend", "frontend-id", "online", "mode", "type",
                          "physical-device-path", "", "state/below", "State"}) {
    EXPECT_FALSE(kDom0.may_write(kGatedNode + "/" + key, "1")) << key;
  }
  for (const char* path :
       {"/local/domain/0/backend/qdisk/5/51712", "/local/domain/0/backend/qdisk/5/state",
        "/local/domain/0/backend/qdisk/5/x/state", "/local/domain/0/backend/qdisk/6/51712/state",
        "/local/domain/0/backend/vbd/5/51712/state", "/local/domain/5/device/vbd/51712/state"}) {
    EXPECT_FALSE(kDom0.may_write(path, "1")) << path;
  }
}

// The device model is root's, and opens it.
TEST(XenStoreGate, TheDeviceModelIsLedToTheDisksOwnSocketOnly) {
  const std::string node = "/local/domain/0/backend/vbd3/5/51712/physical-device-path";
  const std::string socket = "/run/x/nbd-5-51712-00ab12cd.sock,file.reconnect-delay=120";
  EXPECT_TRUE(kDom0.may_write(node, socket));
  EXPECT_FALSE(kDom0.may_write(kGatedNode + "/physical-device-path", socket)) << "of kind qdisk";
  for (const char* other :
       {"", "/etc/shadow", "/run/x/nbd-5-51712-00ab12cd.sock,file.reconnect-delay=1200",
        "/run/x/nbd-5-51712-00ab12cd.sock,file.reconnect-delay=120,file.filename=/etc/shadow",
        "/run/x/nbd-5-51728-00ab12cd.sock,file.reconnect-delay=120",
        "/run/x/nbd-6-51712-00ab12cd.sock,file.reconnect-delay=120",
        "/run/x/nbd-5-51712-00ab12cd.sock",
        "/run/x/nbd-5-51712-00AB12CD.sock,file.reconnect-delay=120",
        "/run/x/nbd-5-51712-../../etc.sock,file.reconnect-delay=120",
        "/run/x/nbd-5-51712-0xab12cd.sock,file.reconnect-delay=120",
        "/run/x/nbd-5-51712-ab12cd.sock,file.reconnect-delay=120"}) {
    EXPECT_FALSE(kDom0.may_write(node, other)) << other;
  }
}

// In dom0 the toolstack removes the node.
TEST(XenStoreGate, ANodeIsRemovedByADriverDomainOnly) {
  EXPECT_TRUE(kDom0.may_remove(kGatedNode + "/hotplug-error"));
  EXPECT_FALSE(kDom0.may_remove(kGatedNode + "/params"));
  EXPECT_FALSE(kDom0.may_remove(kGatedNode));
  EXPECT_TRUE(kDriverDomain.may_remove("/local/domain/3/backend/qdisk/5/51712"));
  EXPECT_FALSE(kDriverDomain.may_remove("/local/domain/3/backend/qdisk/5"));
  EXPECT_FALSE(kDriverDomain.may_remove("/local/domain/3/backend/qdisk/5/"));
  EXPECT_FALSE(kDriverDomain.may_remove("/local/domain/3/backend/qdisk/6/51712"));
}

TEST(XenStoreGate, WatchesAreOfTheGuestAndOfTheEndOfDomains) {
  EXPECT_TRUE(kDom0.may_watch("/local/domain/0/backend/qdisk/5"));
  EXPECT_TRUE(kDom0.may_watch("/local/domain/5/device/vbd/51712/state"));
  EXPECT_TRUE(kDom0.may_watch("@releaseDomain"));
  EXPECT_FALSE(kDom0.may_watch("@introduceDomain"));
  EXPECT_FALSE(kDom0.may_watch("/local/domain"));
  EXPECT_FALSE(kDom0.may_watch("/local/domain/5"));
}

TEST(XenStoreGate, AMessagesPathEndsWhereXenstoredSeesItEnd) {
  const std::string state = kGatedNode + "/state";
  const auto with_null = [](std::string path, const std::string& rest) {
    return std::move(path) + '\0' + rest;
  };
  EXPECT_TRUE(kDom0.lets_pass(XS_WRITE, with_null(state, "4")));
  EXPECT_FALSE(kDom0.lets_pass(XS_WRITE, with_null(kGatedNode + "/script", state)));
  EXPECT_TRUE(kDom0.lets_pass(XS_WRITE, with_null(kGatedNode + "/kthread-pid", "17")));
  EXPECT_FALSE(kDom0.lets_pass(XS_WRITE, with_null(kGatedNode + "/kthread-pid", "../17")));
  EXPECT_FALSE(kDom0.lets_pass(XS_WRITE, kGatedNode + "/kthread-pid"));
  EXPECT_TRUE(kDom0.lets_pass(XS_READ, with_null(state, "")));
  EXPECT_TRUE(kDom0.lets_pass(XS_DIRECTORY, with_null(kGatedNode, "")));
  EXPECT_TRUE(kDom0.lets_pass(XS_WATCH, with_null("@releaseDomain", with_null("token", ""))));
  EXPECT_TRUE(kDom0.lets_pass(XS_RM, with_null(kGatedNode + "/hotplug-error", "")));
  EXPECT_TRUE(kDom0.lets_pass(XS_TRANSACTION_START, with_null("", "")));
  EXPECT_TRUE(kDom0.lets_pass(XS_TRANSACTION_END, with_null("T", "")));
}

TEST(XenStoreGate, OtherMessagesDoNotPass) {
  const std::string path = kGatedNode + "/state" + '\0';
  for (const auto type :
       {XS_CONTROL, XS_GET_PERMS, XS_INTRODUCE, XS_RELEASE, XS_GET_DOMAIN_PATH, XS_MKDIR,
        XS_SET_PERMS, XS_WATCH_EVENT, XS_ERROR, XS_SET_TARGET, XS_RESET_WATCHES}) {
    EXPECT_FALSE(kDom0.lets_pass(type, path)) << type;
  }
  EXPECT_FALSE(kDom0.lets_pass(12345, path));
}

}  // namespace
}  // namespace iscsi_blkback
