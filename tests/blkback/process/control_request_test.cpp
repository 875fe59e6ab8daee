// What the lines of the control sockets ask for, and the sentence for each that is refused.
#include "blkback/process/control_request.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <variant>

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

// What a line for disk 51712 asks; words: the line's others.
template <class Change>
Change asked(const std::string& words) {
  const auto request = parse_guest_request(R"({"devid":51712,)" + words + "}");
  const auto* change = request ? std::get_if<DiskChange>(&*request) : nullptr;
  if (change == nullptr || !std::holds_alternative<Change>(change->what)) {
    ADD_FAILURE() << words << (request ? " asks for something else" : request.error().message);
    return {};
  }
  EXPECT_EQ(change->device_id, 51712U);
  return std::get<Change>(change->what);
}

std::string guest_refusal(const std::string& line) {
  const auto request = parse_guest_request(line);
  return request ? "" : request.error().message;
}

std::string service_refusal(const std::string& line) {
  const auto request = parse_service_request(line);
  return request ? "" : request.error().message;
}

TEST(ControlRequest, StatusNamesNoDisk) {
  const auto request = parse_guest_request(R"({"command":"status"})");
  ASSERT_TRUE(request);
  EXPECT_TRUE(std::holds_alternative<StatusRequest>(*request));
  EXPECT_EQ(service_refusal(R"({"command":"status"})"), "");
}

TEST(ControlRequest, TellsHowLongRequestsWaitForAPath) {
  EXPECT_EQ(asked<SetNoPathRetry>(R"("command":"disablequeueing")").wait.with(5s), 0ms);
  asked<RestoreNoPathRetry>(R"("command":"restorequeueing")");
  const auto wait = [](const std::string& value) {
    return asked<SetNoPathRetry>(R"("command":"set","setting":"no_path_retry","value":")" + value +
                                 '"')
        .wait;
  };
  EXPECT_EQ(wait("120s").with(5s), 120s);
  EXPECT_EQ(wait("queue").with(5s), std::nullopt);
  EXPECT_EQ(wait("fail").with(5s), 0ms);
  EXPECT_EQ(wait("12").with(5s), 60s);
  EXPECT_EQ(wait("12").with(10s), 120s) << "checks are as far apart as the disk has them";
}

TEST(ControlRequest, SetsOnePolicy) {
  PathPolicySettings policies =
      asked<SetPolicies>(R"("command":"set","setting":"path_selector","value":"queue-length")")
          .policies;
  EXPECT_EQ(policies.path_selector, PathSelectorKind::queue_length);
  EXPECT_EQ(policies.path_grouping_policy, std::nullopt);
  policies = asked<SetPolicies>(
                 R"("command":"set","setting":"path_grouping_policy","value":"group_by_prio")")
                 .policies;
  EXPECT_EQ(policies.path_selector, std::nullopt);
  EXPECT_EQ(policies.path_grouping_policy, PathGroupingPolicy::group_by_prio);
}

TEST(ControlRequest, AddsAndRemovesPathsByTheirPortal) {
  const PathChoice added = asked<AddPath>(R"("command":"add_path","portal":"192.0.2.3")").path;
  EXPECT_EQ(added.portal.to_string(), "192.0.2.3:3260");
  EXPECT_EQ(added.target_name, "");
  const PathChoice removed =
      asked<RemovePath>(R"("command":"del_path","portal":"[2001:db8::1]:3261","target":"iqn.x")")
          .path;
  EXPECT_EQ(removed.portal.to_string(), "[2001:db8::1]:3261");
  EXPECT_EQ(removed.target_name, "iqn.x");
}

TEST(ControlRequest, RefusesWhatNamesNoCommandOrDisk) {
  for (const char* line : {"", "status", "[]", "5", "{\"command\":", "\xff", "[[[[[[[[[[[[[["}) {
    EXPECT_EQ(guest_refusal(line), "the request is not a JSON object") << line;
    EXPECT_EQ(service_refusal(line), "the request is not a JSON object") << line;
  }
  for (const char* line : {"{}", R"({"command":1})", R"({"command":""})", R"({"devid":51712})"}) {
    EXPECT_EQ(guest_refusal(line), R"(the request has no "command")") << line;
    EXPECT_EQ(service_refusal(line), R"(the request has no "command")") << line;
  }
  for (const char* line :
       {R"({"command":"set"})", R"({"command":"set","devid":-1})",
        R"({"command":"set","devid":4294967296})", R"({"command":"set","devid":"1"})",
        R"({"command":"set","devid":1.0})", R"({"command":"explode"})"}) {
    EXPECT_EQ(guest_refusal(line), R"(the request has no "devid")") << line;
    EXPECT_EQ(service_refusal(line), R"(the request has no "devid")") << line;
  }
}

TEST(ControlRequest, RefusesCommandsThatThereAreNot) {
  EXPECT_EQ(guest_refusal(R"({"command":"explode","devid":51712})"), "the command is unknown");
  for (const char* command : {"explode", "set", "add_path"}) {
    EXPECT_EQ(service_refusal(std::string(R"({"devid":51712,"command":")") + command + "\"}"),
              "the only command of the service is status");
  }
}

TEST(ControlRequest, RefusesSettingsThatADiskInUseKeeps) {
  const auto set = [](const std::string& words) {
    return guest_refusal(R"({"command":"set","devid":51712)" + words + "}");
  };
  EXPECT_EQ(set(R"(,"setting":"rr_min_io","value":"5")"),
            "rr_min_io cannot be changed while a disk is in use; no_path_retry, path_selector and "
            "path_grouping_policy can");
  EXPECT_EQ(set(""),
            " cannot be changed while a disk is in use; no_path_retry, path_selector and "
            "path_grouping_policy can");
  EXPECT_EQ(set(R"(,"setting":"no_path_retry","value":"soon")"),
            "no_path_retry is neither queue, fail, a number of checks (0, which is fail, to "
            "86400), nor a number of seconds with an s behind it");
  EXPECT_EQ(set(R"(,"setting":"path_selector","value":"random")"),
            "path_selector is none of round-robin, queue-length, service-time and "
            "historical-service-time");
  EXPECT_EQ(set(R"(,"setting":"path_grouping_policy","value":5)"),
            "path_grouping_policy is none of failover, multibus, group_by_prio, group_by_tpg and "
            "group_by_serial");
}

TEST(ControlRequest, RefusesPathsWithoutAPortalOrATargetOfAName) {
  EXPECT_EQ(guest_refusal(R"({"command":"add_path","devid":51712})"), "add_path names no portal");
  EXPECT_EQ(guest_refusal(R"({"command":"del_path","devid":51712})"), "del_path names no portal");
  for (const std::string portal : {"host:0", "[::1", "a b"}) {
    EXPECT_EQ(guest_refusal(R"({"command":"add_path","devid":51712,"portal":")" + portal + "\"}"),
              parse_portal(portal).error().message);
  }
  EXPECT_EQ(
      guest_refusal(
          R"({"command":"del_path","devid":51712,"portal":"192.0.2.1","target":"no target"})"),
      "the target name does not begin with iqn., eui. or naa. (RFC 7143 4.2.7)");
}

}  // namespace
}  // namespace iscsi_blkback
