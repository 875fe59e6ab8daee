// multipathd's words for a path that is down, and priorities by target portal group.
#include "multipath/multipath_text.h"
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class CheckerState : public MultipathTest {
 protected:
  SimFault at_first_portal(std::uint8_t operation) {
    SimFault fault;
    fault.count = 0;
    fault.matches = [=](const SimCommand& command) {
      return command.portal == 0 && (operation == 0xff || command.cdb[0] == operation);
    };
    return fault;
  }
  bool shows(const std::string& word) {
    return render_topology(device_->snapshot()).text().find(" failed " + word + " running") !=
           std::string::npos;
  }
};

TEST_F(CheckerState, ACheckWithoutAnAnswerIsATimeout) {
  start();
  SimFault silent = at_first_portal(scsi_operation::kTestUnitReady);
  silent.answer = false;
  target_->inject(silent);
  ASSERT_TRUE(wait_for_up(1, seconds(11)));
  EXPECT_EQ(path(0).finding, CheckerFinding::timeout);
  EXPECT_TRUE(shows("i/o timeout")) << render_topology(device_->snapshot()).text();
  target_->clear_faults();
  ASSERT_TRUE(wait_for_up(2, seconds(60)));
  EXPECT_EQ(path(0).finding, CheckerFinding::other);
}

TEST_F(CheckerState, ALunThatIsNotThereIsDisconnected) {
  start();
  SimFault gone = at_first_portal(0xff);
  gone.status = ScsiStatus::check_condition;
  gone.sense = make_sense(SenseKey::illegal_request, 0x2500);
  target_->inject(gone);
  ASSERT_TRUE(wait_for_up(1, seconds(11)));
  EXPECT_TRUE(reactor_.run_until([this] { return shows("disconnected"); }, seconds(5)))
      << render_topology(device_->snapshot()).text();
  target_->clear_faults();
  ASSERT_TRUE(wait_for_up(2, seconds(60)));
}

TEST_F(CheckerState, WhatTheConnectionHasLostIsFaulty) {
  start();
  cut(0);
  ASSERT_TRUE(wait_for_up(1, seconds(11)));
  EXPECT_EQ(path(0).finding, CheckerFinding::other);
  EXPECT_NE(render_topology(device_->snapshot()).text().find(" failed faulty offline"),
            std::string::npos);
}

TEST_F(CheckerState, WeightsByTargetPortalGroup) {
  const std::vector<std::string> rules = {"tpgt 2 50", "tpgt 1 10"};
  options_.prio = make_prioritizer(PrioritizerKind::weighted, rules).value();
  start({1, 2, 12});
  EXPECT_EQ(path(0).priority, 10);
  EXPECT_EQ(path(1).priority, 50);
  EXPECT_EQ(path(2).priority, 0) << "12 is another group than 2";
}

TEST(PathRuleOfAGroup, NeedsATag) {
  for (const char* text : {"tpgt * 5", "tpgt 65536 5", "tpgt one 5", "tpgt"}) {
    const auto rule = parse_path_rule(text, 1000);
    ASSERT_FALSE(rule) << text;
    EXPECT_NE(rule.error().message.find("is not \"tpgt TAG NUMBER\""), std::string::npos)
        << rule.error().message;
  }
  EXPECT_FALSE(parse_path_rule("tpgt 5 1001", 1000));
  EXPECT_TRUE(parse_path_rule("tpgt 5 1000", 1000));
}

}  // namespace
}  // namespace iscsi_blkback
