// What an operator has asked of a disk holds when its paths are looked up anew.
#include "blkback/guest/runtime_overrides.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "multipath/attach/disk_url.h"
#include "multipath/attach/path_choice.h"

namespace iscsi_blkback {
namespace {

ResolvedPortal path_at(const std::string& host, std::uint16_t session_number = 0) {
  return {.portal = {.host = host, .port = 3260, .interface_binding = {}},
          .address = SocketAddress::parse(host, 3260).value(),
          .session_number = session_number,
          .target_name = "iqn.2026-01.test:target"};
}

std::string hosts(const std::vector<ResolvedPortal>& paths) {
  std::string all;
  for (const ResolvedPortal& path : paths) {
    all += path.portal.host + " ";
  }
  return all;
}

TEST(RuntimeOverrides, ChangeThePathsThatAreLookedUp) {
  RuntimeOverrides wishes;
  wishes.path_removed(path_at("192.0.2.1"));
  wishes.path_added(path_at("192.0.2.3"));
  wishes.path_added(path_at("192.0.2.3"));
  std::vector<ResolvedPortal> paths = {path_at("192.0.2.1"), path_at("192.0.2.2"),
                                       path_at("192.0.2.1", 1)};
  wishes.apply(paths);
  EXPECT_EQ(hosts(paths), "192.0.2.2 192.0.2.1 192.0.2.3 ");

  wishes.path_added(path_at("192.0.2.1"));
  wishes.path_removed(path_at("192.0.2.3"));
  paths = {path_at("192.0.2.1"), path_at("192.0.2.2")};
  wishes.apply(paths);
  EXPECT_EQ(hosts(paths), "192.0.2.1 192.0.2.2 ");
}

TEST(RuntimeOverrides, TheOldestRemovalIsForgottenFirst) {
  RuntimeOverrides wishes;
  for (std::size_t i = 0; i <= RuntimeOverrides::kMaxRemoved; ++i) {
    wishes.path_removed(path_at(fmt::format("10.0.{}.{}", i / 250, i % 250 + 1)));
  }
  std::vector<ResolvedPortal> paths = {path_at("10.0.0.1"), path_at("10.0.0.2")};
  wishes.apply(paths);
  EXPECT_EQ(hosts(paths), "10.0.0.1 ");
}

TEST(RuntimeOverrides, ChangeTheOptions) {
  RuntimeOverrides wishes;
  PathPolicySettings changes;
  changes.path_selector = PathSelectorKind::queue_length;
  wishes.set_policies(changes);
  wishes.set_no_path_retry(std::chrono::milliseconds(0));
  MultipathOptions options;
  options.path_grouping_policy = PathGroupingPolicy::failover;
  wishes.apply(options);
  EXPECT_EQ(options.path_selector, PathSelectorKind::queue_length);
  EXPECT_EQ(options.path_grouping_policy, PathGroupingPolicy::failover);
  EXPECT_EQ(options.no_path_retry, std::chrono::milliseconds(0));
  wishes.set_no_path_retry(std::nullopt);
  options.no_path_retry = std::chrono::seconds(7);
  wishes.apply(options);
  EXPECT_EQ(options.no_path_retry, std::chrono::seconds(7));
}

TEST(PathChoice, IncludesPathsByNameAddressAndTarget) {
  ResolvedPortal path = path_at("192.0.2.1");
  path.portal.host = "storage1";
  const auto includes = [&](const char* portal, const char* target) {
    return PathChoice{parse_portal(portal).value(), target}.includes(path);
  };
  EXPECT_TRUE(includes("storage1", ""));
  EXPECT_TRUE(includes("storage1:3260", "iqn.2026-01.test:target"));
  EXPECT_TRUE(includes("Storage1", "")) << "names of hosts know no case";
  EXPECT_TRUE(includes("storage1:3260,1", ""));
  EXPECT_TRUE(includes("192.0.2.1", ""));
  EXPECT_FALSE(includes("192.0.2.1:3261", ""));
  path.other_addresses = {SocketAddress::parse("2001:db8::1", 3260).value()};
  EXPECT_TRUE(includes("2001:db8::1", ""));
  EXPECT_TRUE(includes("2001:DB8:0::1", ""));
  EXPECT_TRUE(includes("[2001:db8::1]:3260,1", ""));
  EXPECT_FALSE(includes("2001:db8::2", ""));
  EXPECT_FALSE(includes("storage2", ""));
  EXPECT_FALSE(includes("storage1", "iqn.2026-01.test:other"));
}

}  // namespace
}  // namespace iscsi_blkback
