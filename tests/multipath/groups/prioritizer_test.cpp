#include "multipath/groups/prioritizer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

namespace iscsi_blkback {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using Words = std::vector<std::string>;

const PathPlace kPathPlace = {.portal = "array-a:3260",
                              .address = "192.0.2.17:3260",
                              .interface_name = "eth1",
                              .target_name = "iqn.2009-02.com.example:a"};

std::optional<int> priority(const Prioritizer& prioritizer, const LogicalUnitAccess& access = {},
                            const LatencyEstimate& latency = {}) {
  return path_priority(prioritizer, access, kPathPlace, latency);
}

std::optional<int> weighted(const Words& rules) {
  return priority(make_prioritizer(PrioritizerKind::weighted, rules).value());
}

std::string refusal(PrioritizerKind kind, const Words& arguments) {
  const auto made = make_prioritizer(kind, arguments);
  return made ? "accepted" : made.error().message;
}

TEST(Prioritizer, HasTheNamesOfMultipathConf) {
  for (const char* name : {"const", "alua", "rdac", "emc", "weightedpath", "iet", "path_latency"}) {
    const auto kind = prioritizer_named(name);
    ASSERT_TRUE(kind) << name;
    EXPECT_STREQ(to_string(*kind), name);
  }
  EXPECT_EQ(prioritizer_named("sysfs"), PrioritizerKind::alua);
  EXPECT_EQ(prioritizer_named("random"), std::nullopt);
}

TEST(Prioritizer, ConstIsOne) {
  EXPECT_EQ(priority(Prioritizer{}), 1);
}

TEST(Prioritizer, AluaHasTheNumbersOfMultipathTools) {
  EXPECT_EQ(alua_priority(AccessState::active_optimized, false, false), 50);
  EXPECT_EQ(alua_priority(AccessState::active_non_optimized, false, false), 10);
  EXPECT_EQ(alua_priority(AccessState::block_dependent, false, false), 5);
  EXPECT_EQ(alua_priority(AccessState::standby, false, false), 1);
  EXPECT_EQ(alua_priority(AccessState::unavailable, false, false), 0);
  EXPECT_EQ(alua_priority(AccessState::offline, false, false), 0);
  EXPECT_EQ(alua_priority(AccessState::transitioning, false, false), 0);
  EXPECT_EQ(alua_priority(static_cast<AccessState>(7), false, false), 0) << "reserved";
}

TEST(Prioritizer, AluaPreferredAddsEightyUnlessOptimizedAlready) {
  EXPECT_EQ(alua_priority(AccessState::active_non_optimized, true, false), 90);
  EXPECT_EQ(alua_priority(AccessState::standby, true, false), 81);
  EXPECT_EQ(alua_priority(AccessState::active_optimized, true, false), 50);
  EXPECT_EQ(alua_priority(AccessState::active_optimized, true, true), 130) << "exclusive_pref_bit";
}

TEST(Prioritizer, AluaFindsTheGroupOfThePort) {
  LogicalUnitAccess access;
  access.groups = {{.tag = 1, .state = AccessState::active_optimized, .ports = {1, 2}},
                   {.tag = 2, .state = AccessState::active_non_optimized, .ports = {3, 4}}};
  Prioritizer alua;
  alua.kind = PrioritizerKind::alua;
  EXPECT_EQ(priority(alua, access), std::nullopt) << "the port is not known";
  access.port.target_port_group = 2;
  EXPECT_EQ(priority(alua, access), 10);
  access.port = {.relative_port = 1, .target_port_group = std::nullopt};
  EXPECT_EQ(priority(alua, access), 50);
  access.port.relative_port = 9;
  EXPECT_EQ(priority(alua, access), std::nullopt);
}

TEST(Prioritizer, RdacAddsUpOwnershipPreferenceAndIoship) {
  EXPECT_EQ(rdac_priority({.owned = true, .preference = 1}), 6);
  EXPECT_EQ(rdac_priority({.owned = true, .preference = 2}), 3);
  EXPECT_EQ(rdac_priority({.owned = false, .preference = 1}), 4);
  EXPECT_EQ(rdac_priority({.owned = false, .preference = 2}), 1);
  EXPECT_EQ(rdac_priority({.owned = true, .shared = true, .preference = 1}), 14);
  Prioritizer rdac;
  rdac.kind = PrioritizerKind::rdac;
  EXPECT_EQ(priority(rdac), std::nullopt) << "the LUN has no such page";
}

TEST(Prioritizer, EmcAddsTwoForTheDefaultOwner) {
  EXPECT_EQ(emc_priority({.lun_state = 2, .default_owner = true}), 4);
  EXPECT_EQ(emc_priority({.lun_state = 1, .default_owner = true}), 3);
  EXPECT_EQ(emc_priority({.lun_state = 2, .default_owner = false}), 2);
}

TEST(Prioritizer, WeightedpathTakesTheFirstRuleThatFits) {
  EXPECT_EQ(weighted({"portal 192.0.2.* 50", "portal * 20"}), 50);
  EXPECT_EQ(weighted({"portal 198.51.100.* 50", "portal * 20"}), 20);
  EXPECT_EQ(weighted({"interface eth1 7"}), 7);
  EXPECT_EQ(weighted({"interface eth2 7"}), 0);
  EXPECT_EQ(weighted({"target iqn.*:a 9"}), 9);
  EXPECT_EQ(weighted({"target iqn.*:b 9", "portal array-? 3"}), 3);
  EXPECT_EQ(weighted({"portal array-a:3260 4"}), 4) << "with the port";
}

TEST(Prioritizer, ARuleOfAnIPv6PortalNeedsNoBrackets) {
  PathPlace place = kPathPlace;
  place.address = place.portal = "[2001:db8::1]:3260";
  const std::vector<PathRule> rules = {parse_path_rule("portal 2001:db8::* 5", 100).value()};
  EXPECT_EQ(value_for(place, rules, 1), 5U);
}

// However the portal is written there, and here.
TEST(PathRule, APortalHasManySpellings) {
  struct Case {
    const char* pattern;
    const char* portal;   // as configured
    const char* address;  // that it has
    bool fits = true;
  };
  const Case cases[] = {
      {"192.0.2.1", "192.0.2.1:3260", "192.0.2.1:3260"},
      {"192.0.2.1:3260", "192.0.2.1:3260", "192.0.2.1:3260"},
      {"192.0.2.1:3260", "192.0.2.1:3261", "192.0.2.1:3261", false},
      {"192.0.2.1", "192.0.2.11:3260", "192.0.2.11:3260", false},
      {"192.0.2.1:3260,1", "192.0.2.1:3260", "192.0.2.1:3260"},
      {"192.0.2.1,1", "192.0.2.1:3260", "192.0.2.1:3260"},
      {"192.0.2.1:3260,-1", "192.0.2.1:3260", "192.0.2.1:3260"},
      {"192.0.2.1:3260,4294967295", "192.0.2.1:3260", "192.0.2.1:3260"},
      {"192.0.2.*", "192.0.2.1:3260", "192.0.2.1:3260"},
      {"192.0.2.*:3260", "192.0.2.1:3260", "192.0.2.1:3260"},
      {"*:3261", "192.0.2.1:3261", "192.0.2.1:3261"},
      {"*", "san:3260", "[2001:db8::1]:3260"},
      {"san", "san:3260", "192.0.2.1:3260"},
      {"SAN", "san:3260", "192.0.2.1:3260"},
      {"San-?.example", "san-1.EXAMPLE:3260", "192.0.2.1:3260"},
      {"192.0.2.1", "san:3260", "192.0.2.1:3260"},
      {"2001:db8::1", "[2001:db8::1]:3260", "[2001:db8::1]:3260"},
      {"[2001:db8::1]", "[2001:db8::1]:3260", "[2001:db8::1]:3260"},
      {"[2001:db8::1]:3260", "[2001:db8::1]:3260", "[2001:db8::1]:3260"},
      {"[2001:db8::1]:3261", "[2001:db8::1]:3260", "[2001:db8::1]:3260", false},
      {"[2001:db8::1]:3260,1", "[2001:db8::1]:3260", "[2001:db8::1]:3260"},
      {"[2001:db8::1],2", "[2001:db8::1]:3260", "[2001:db8::1]:3260"},
      {"2001:DB8:0::1", "san:3260", "[2001:db8::1]:3260"},
      {"2001:db8:0:0:0:0:0:1", "[2001:DB8::1]:3260", "[2001:db8::1]:3260"},
      {"2001:DB8::*", "[2001:db8::1]:3260", "[2001:db8::1]:3260"},
      {"[2001:db8::*]", "[2001:db8::1]:3260", "[2001:db8::1]:3260"},
      {"[2001:db8::*]:3260", "[2001:db8::1]:3260", "[2001:db8::1]:3260"},
      {"[2001:db8::*]:3261", "[2001:db8::1]:3260", "[2001:db8::1]:3260", false},
      {"fe80::1%eth1", "[fe80::1%eth1]:3260", "[fe80::1%3]:3260"},
      {"[fe80::1%eth1]:3260", "[fe80::1%eth1]:3260", "[fe80::1%3]:3260"},
      {"fe80::1%3", "[fe80::1%eth1]:3260", "[fe80::1%3]:3260"},
      {"fe80::1%eth2", "[fe80::1%eth1]:3260", "[fe80::1%3]:3260", false},
      {"fe80::*%eth1", "[fe80::1%eth1]:3260", "[fe80::1%3]:3260"},
  };
  for (const Case& one : cases) {
    const auto rule = parse_path_rule(fmt::format("portal {} 5", one.pattern), 100);
    ASSERT_TRUE(rule) << one.pattern << ": " << rule.error().message;
    PathPlace place = kPathPlace;
    place.portal = one.portal;
    place.address = one.address;
    EXPECT_EQ(value_for(place, {&*rule, 1}, 1), one.fits ? 5U : 1U) << one.pattern;
  }
}

TEST(PathRule, APortalThatIsNoneIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"192.0.2.1:", "port is not a number"},
      {"192.0.2.1:99999", "port is not a number"},
      {"192.0.2.1,x", "group tag"},
      {"192.0.2.1,192.0.2.2", "group tag"},
      {"192.0.2.*,1", "group tag"},
      {"192.0.2.*:3260,1", "group tag"},
      {"[2001:db8::1", "no closing bracket"},
      {"[2001:db8::*", "no closing bracket"},
      {"[2001:db8::1]3260", "only :PORT"},
      {"[2001:db8::*]x", "only :PORT"},
      {"2001:db8::1:3260", "write [ADDRESS]:PORT"},
      {"[localhost]:3260", "nothing else has brackets"},
      {"3260", "host is a number"},
      {"iscsi://192.0.2.1", "port is not a number"},
      {"192.0.2.1/24", "character"},
      {"^192.0.2", "regular expression"},
      {"192.0.2.(1|2)", "regular expression"},
      {"192.0.2.[12]", "regular expression"},
      {"[12].*", "regular expression"},
  };
  for (const auto& [pattern, why] : cases) {
    const auto rule = parse_path_rule(fmt::format("portal {} 5", pattern), 100);
    ASSERT_FALSE(rule) << pattern;
    EXPECT_THAT(rule.error().message, ::testing::HasSubstr(why)) << pattern;
    EXPECT_THAT(rule.error().message, ::testing::HasSubstr(pattern));
  }
}

TEST(Prioritizer, IetPrefersThePortalOfPreferredip) {
  EXPECT_EQ(
      priority(make_prioritizer(PrioritizerKind::preferred_portal, Words{"preferredip=192.0.2.17"})
                   .value()),
      20);
  EXPECT_EQ(
      priority(make_prioritizer(PrioritizerKind::preferred_portal, Words{"preferredip=192.0.2.1"})
                   .value()),
      10);
}

TEST(Prioritizer, PathLatencyCountsLevelsBelowAHundredSeconds) {
  EXPECT_EQ(latency_priority(microseconds(100), 10), 6);
  EXPECT_EQ(latency_priority(milliseconds(2), 10), 4);
  EXPECT_EQ(latency_priority(Duration::zero(), 10), 8) << "below a microsecond";
  EXPECT_EQ(latency_priority(std::chrono::seconds(500), 10), 0);
  EXPECT_GT(latency_priority(microseconds(100), 1.5), latency_priority(microseconds(200), 1.5));
}

TEST(Prioritizer, PathLatencyNeedsSomeRequestsFirst) {
  const Prioritizer prioritizer =
      make_prioritizer(PrioritizerKind::path_latency, Words{"base_num=10"}).value();
  LatencyEstimate latency;
  for (int i = 0; i < 15; ++i) {
    latency.add(milliseconds(2));
  }
  EXPECT_EQ(priority(prioritizer, {}, latency), std::nullopt);
  latency.add(milliseconds(2));
  EXPECT_EQ(priority(prioritizer, {}, latency), 4);
}

TEST(Prioritizer, TheMeanLatencyForgetsTheOldDays) {
  LatencyEstimate latency;
  for (int i = 0; i < 10000; ++i) {
    latency.add(milliseconds(100));
  }
  for (int i = 0; i < 1500; ++i) {
    latency.add(milliseconds(1));
  }
  EXPECT_LT(*latency.mean(), milliseconds(2));
  EXPECT_GE(*latency.mean(), milliseconds(1));
}

TEST(Prioritizer, RefusesPrioArgsThatItDoesNotKnow) {
  EXPECT_EQ(refusal(PrioritizerKind::constant, {"x"}),
            "prio_args \"x\" is nothing that prio const knows: it takes none");
  EXPECT_EQ(refusal(PrioritizerKind::alua, {"prefer"}),
            "prio_args \"prefer\" is nothing that prio alua knows: it takes "
            "\"exclusive_pref_bit\"");
  EXPECT_EQ(refusal(PrioritizerKind::preferred_portal, {"preferredip=host"}),
            "prio_args \"preferredip=host\" is nothing that prio iet knows: it takes one "
            "\"preferredip=ADDRESS\" with a numeric address");
  EXPECT_EQ(refusal(PrioritizerKind::path_latency, {"base_num=20"}),
            "prio_args \"base_num=20\" is nothing that prio path_latency knows: it takes "
            "\"base_num=NUMBER\" with a number from 1.1 to 10");
  EXPECT_EQ(refusal(PrioritizerKind::weighted, {"portal 1.2.3.4"}),
            "prio_args \"portal 1.2.3.4\" is not \"portal PATTERN NUMBER\", \"interface PATTERN "
            "NUMBER\" or \"target PATTERN NUMBER\" with a number from 0 to 1000");
  for (const char* rule : {"serial x 1", "portal * 1001", "portal * -1", "portal * 1 2", ""}) {
    EXPECT_NE(refusal(PrioritizerKind::weighted, {rule}), "accepted") << rule;
  }
}

TEST(Prioritizer, RefusesToBeWithoutThePrioArgsThatItNeeds) {
  EXPECT_EQ(refusal(PrioritizerKind::weighted, {}),
            "prio weightedpath needs prio_args like [\"portal 192.0.2.* 50\"]");
  EXPECT_EQ(refusal(PrioritizerKind::preferred_portal, {}),
            "prio iet needs prio_args = \"preferredip=ADDRESS\"");
}

TEST(PathRule, PatternsMatchAsInAShell) {
  EXPECT_TRUE(matches_pattern("", ""));
  EXPECT_TRUE(matches_pattern("*", ""));
  EXPECT_TRUE(matches_pattern("a*c", "abbbc"));
  EXPECT_TRUE(matches_pattern("*b*b?", "abbbc"));
  EXPECT_FALSE(matches_pattern("a", "ab"));
  EXPECT_FALSE(matches_pattern("a?", "a"));
  EXPECT_FALSE(matches_pattern("*c", "abcd"));
  EXPECT_TRUE(matches_pattern("*a*a*a*a*a*a*a*a*b", std::string(2000, 'a') + "b"));
}

}  // namespace
}  // namespace iscsi_blkback
