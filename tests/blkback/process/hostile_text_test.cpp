// Hostile text on its ways out of a guest's process: JSON and xenstore. (The log: log_test.cpp; the
// terminal: tests/tools.)
#include "tests/support/hostile_text.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/json_text.h"
#include "base/printable_text.h"
#include "blkback/control/control_protocol.h"
#include "blkback/guest/xenbus_node.h"
#include "blkback/process/status_report.h"
#include "tests/support/mem_xen.h"

namespace iscsi_blkback {
namespace {

using nlohmann::json;

class HostileTextOut : public testing::TestWithParam<HostileText> {
 protected:
  const std::string& text() const { return GetParam().text; }
  std::string in_json() const { return printable_text(text(), kMaxJsonStringBytes); }
};

TEST_P(HostileTextOut, IsPrintableInEveryStringAndKeyOfJson) {
  const json document{
      {"text", text()}, {text(), 1}, {"deep", {{"er", {{{"list", {text(), 5, nullptr}}}}}}}};
  const std::string line = json_text(document);
  EXPECT_TRUE(is_harmless(line));
  EXPECT_TRUE(std::all_of(line.begin(), line.end(), [](char c) { return c >= ' ' && c <= '~'; }));
  const json read = json::parse(line);
  EXPECT_EQ(read["text"], in_json());
  EXPECT_EQ(read[in_json()], 1);
  EXPECT_EQ(read["deep"]["er"][0]["list"], json::array({in_json(), 5, nullptr}));
  EXPECT_TRUE(is_harmless(read["text"].get<std::string>())) << "for a reader that prints it";
  EXPECT_TRUE(are_harmless_lines(json_text(document, 2) + '\n'));
}

TEST_P(HostileTextOut, DoesNotBlindTheControlSocket) {
  const json refusal = json::parse(control_refusal("the target says " + text()));
  EXPECT_EQ(refusal["ok"], false);
  EXPECT_TRUE(refusal["error"].get<std::string>().starts_with("the target says "));
  EXPECT_TRUE(is_harmless(refusal["error"].get<std::string>()));
  const json answer =
      json::parse(control_answer(tl::unexpected(Error{ErrorCode::protocol, text()})));
  EXPECT_EQ(answer["error"], in_json());
}

TEST_P(HostileTextOut, DoesNotBlindTheStatusOfAGuest) {
  GuestStatus status;
  status.guest = 5;
  status.complete = true;
  for (std::uint32_t number = 0; number < 4; ++number) {
    DiskStatus& disk = status.disks.emplace_back();
    disk.virtual_device = disk.params = disk.hotplug_error = text();
    MultipathSnapshot& map = disk.report.emplace().multipath;
    for (std::string* field : {&map.alias, &map.wwid, &map.vendor, &map.product, &map.revision,
                               &map.path_selector, &map.path_grouping_policy, &map.prio,
                               &map.hardware_handler, &map.failback, &map.no_path_retry}) {
      *field = text();
    }
    for (int path = 0; path < 64; ++path) {
      PathSnapshot& snapshot = map.paths.emplace_back();
      for (std::string* field : {&snapshot.portal, &snapshot.address, &snapshot.interface_name,
                                 &snapshot.target_name, &snapshot.last_error}) {
        *field = text();
      }
    }
  }
  const std::string line = guest_status_line(status);
  EXPECT_TRUE(is_harmless(line));
  const json reply = json::parse(line);
  const json& map = reply["disks"][3]["map"];
  EXPECT_EQ(map["vend"], in_json());
  EXPECT_EQ(map["path_groups"][0]["paths"][63]["last_error"], in_json());
}

TEST_P(HostileTextOut, IsPrintableInXenstore) {
  MemXen xen;
  const auto store = xen.store().connect(0);
  const XenbusNode node({BackendKind::qdisk, 0, 5, 51712});
  ASSERT_TRUE(store->write(node.path() + "/state", "2"));
  ASSERT_TRUE(node.write_hotplug(*store, false, "LUN 1: " + text()));
  const std::string error = store->read(node.path() + "/hotplug-error").value();
  EXPECT_TRUE(is_harmless(error));
  EXPECT_EQ(error, printable_text("LUN 1: " + text(), 900));
  ASSERT_TRUE(node.write(*store, XenbusState::init_wait, {{"info", text()}}));
  EXPECT_EQ(store->read(node.path() + "/info").value(), printable_text(text(), 900));
}

INSTANTIATE_TEST_SUITE_P(All, HostileTextOut, testing::ValuesIn(hostile_texts()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(JsonText, LeavesEverythingElseAsItIs) {
  const json document{{"number", -5},   {"big", 18446744073709551615U}, {"real", 0.5},
                      {"yes", true},    {"nothing", nullptr},           {"empty", json::object()},
                      {"list", {1, 2}}, {"text", "Gr\u00f6\u00dfe"}};
  EXPECT_EQ(json::parse(json_text(document)), document);
  EXPECT_EQ(json_text(json{{"a", 1}}), "{\"a\":1}");
  EXPECT_EQ(json_text(json{{"a", 1}}, 2), "{\n  \"a\": 1\n}");
}

}  // namespace
}  // namespace iscsi_blkback
