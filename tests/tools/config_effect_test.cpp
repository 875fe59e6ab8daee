// Refusals of what would be accepted and have no effect, and of settings that contradict each other
// across sections, with the places that they come from.
#include "multipath/policy_contradiction.h"
#include "tests/tools/config_text.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

struct Refused {
  const char* text;
  const char* sentence;
};

class ConfigWithoutEffect : public testing::TestWithParam<Refused> {};

TEST_P(ConfigWithoutEffect, IsRefused) {
  EXPECT_EQ(refusal(GetParam().text), GetParam().sentence);
}

INSTANTIATE_TEST_SUITE_P(
    RegularExpressions, ConfigWithoutEffect,
    testing::Values(
        Refused{"[[device]]\nvendor = '.*'\n",
                "c.toml:2: vendor \".*\" is a regular expression, but patterns are wanted, where * "
                "stands for any text and ? for one character: write \"*\""},
        Refused{
            "[[device]]\nvendor = 'DELL'\nproduct = '^MD3'\n",
            "c.toml:3: product \"^MD3\" is a regular expression, but patterns are wanted, where "
            "* stands for any text and ? for one character: write \"MD3*\""},
        Refused{"[[device]]\nproduct = '^DF600F?.*$'\n",
                "c.toml:2: product \"^DF600F?.*$\" is a regular expression, but patterns are "
                "wanted, where * stands for any text and ? for one character: write \"DF600F?*\""},
        Refused{"[[device]]\nvendor = '(HP|HPE)'\n",
                "c.toml:2: vendor \"(HP|HPE)\" is a regular expression, but patterns are wanted, "
                "where * stands for any text and ? for one character: write one for each of the "
                "alternatives"},
        Refused{"[[device]]\nvendor = 'A'\nrevision = '5[0-9]'\n",
                "c.toml:3: revision \"5[0-9]\" is a regular expression, but patterns are wanted, "
                "where * stands for any text and ? for one character: write one for each of the "
                "alternatives"},
        Refused{"[defaults]\npath_weights = 'interface ^eth1$ 4'\n",
                "c.toml:2: path_weights \"^eth1$\" is a regular expression, but patterns are "
                "wanted, where * stands for any text and ? for one character: write \"eth1\""},
        Refused{"[defaults]\nprio = 'weightedpath'\nprio_args = ['target .*storage 4']\n",
                "c.toml:3: prio_args \".*storage\" is a regular expression, but patterns are "
                "wanted, where * stands for any text and ? for one character: write "
                "\"*storage*\""}));

INSTANTIATE_TEST_SUITE_P(
    OfTheSelector, ConfigWithoutEffect,
    testing::Values(
        Refused{"[defaults]\nrr_min_io = 100\npath_selector = 'service-time 0'\n",
                "c.toml:3: rr_min_io is for path_selector round-robin, not service-time"},
        Refused{"[defaults]\npath_weights = 'portal * 0'\n",
                "c.toml:2: a weight of 0 in path_weights is for path_selector service-time: "
                "round-robin gives each path a turn"},
        Refused{"[[device]]\nvendor = 'A'\npath_selector = 'queue-length 0'\n"
                "[defaults]\npath_weights = 'portal * 2'\n",
                "c.toml:3: path_weights is for path_selector service-time and round-robin, not "
                "queue-length (path_weights comes from line 5, [defaults])"},
        Refused{"[defaults]\npath_selector = 'queue-length 0'\n"
                "[[device]]\nvendor = 'A'\nrr_weight = 'priorities'\n",
                "c.toml:5: rr_weight priorities is for path_selector round-robin, not queue-length "
                "(path_selector comes from line 2, [defaults])"},
        Refused{"[[device]]\nvendor = 'A'\npath_grouping_policy = 'group_by_prio'\n"
                "[defaults]\nprio = 'const'\n",
                "c.toml:3: path_grouping_policy group_by_prio contradicts prio const, which gives "
                "all paths the same priority: say multibus, or another prio (prio comes from line "
                "5, [defaults])"}));

// The LUN's section and another one: both places are named.
constexpr const char* kBelow = "[luns.root]\ntarget = 'iqn.2009-02.com.example:t'\nlun = 1\n";

TEST(ConfigAcrossSections, ALunsPolicyAgainstTheDefaults) {
  EXPECT_EQ(refusal(std::string("[defaults]\npath_selector = 'queue-length 0'\n") + kBelow +
                    "rr_min_io = 10\n"),
            "c.toml:6: rr_min_io is for path_selector round-robin, not queue-length (path_selector "
            "comes from line 2, [defaults])");
}

TEST(ConfigAcrossSections, ALunsTimerAgainstItsTarget) {
  EXPECT_EQ(refusal(std::string("[targets.'iqn.2009-02.com.example:t']\npath_timeout = 1\n") +
                    kBelow + "stall_probe = 3\n"),
            "c.toml:6: stall_probe (3 s) must not be longer than path_timeout (1 s) (path_timeout "
            "comes from line 2, [targets.\"iqn.2009-02.com.example:t\"])");
}

TEST(ConfigAcrossSections, PollingIntervalsAndFenceTimesOfDifferentSections) {
  EXPECT_EQ(refusal(std::string("[defaults]\nmax_polling_interval = 10\n") + kBelow +
                    "polling_interval = 30\n"),
            "c.toml:6: max_polling_interval (10 s) must not be shorter than polling_interval (30 "
            "s) (max_polling_interval comes from line 2, [defaults])");
  EXPECT_THAT(
      refusal(std::string("[defaults]\nfence_settle_time = 10\n") + kBelow + "quiesce_time = 5\n"),
      HasSubstr("(fence_settle_time comes from line 2, [defaults])"));
}

TEST(ConfigPatterns, WhatOnlyLooksLikeARegularExpressionIsAccepted) {
  accepted("[[device]]\nvendor = 'HP*'\nproduct = 'MSA ?0?0 *'\nrevision = 'P.0*'\n");
  accepted(
      "[defaults]\npath_weights = ['portal 10.0.1.* 4', 'portal [2001:db8::1]:3260 3',"
      " 'target iqn.* 2', 'interface eth1.* 2']\n");
}

// Where the array table would choose another selector.
TEST(ConfigPatterns, WhatNeedsRoundRobinGetsIt) {
  MultipathOptions options = accepted("[defaults]\nrr_min_io = 10\n").multipath;
  EXPECT_FALSE(options.path_selector);
  settle_selector(options);
  EXPECT_EQ(options.path_selector, PathSelectorKind::round_robin);
  options = accepted("[defaults]\nrr_min_io = 1\n").multipath;
  settle_selector(options);
  EXPECT_FALSE(options.path_selector);
  options = accepted("[defaults]\nrr_min_io = 1\npath_selector = 'queue-length 0'\n").multipath;
  settle_selector(options);
  EXPECT_EQ(options.path_selector, PathSelectorKind::queue_length);
}

TEST(ConfigPatterns, APreferredIpv6AddressMayBeWrittenInAnyWay) {
  const auto prio =
      accepted("[defaults]\nprio = 'iet'\nprio_args = 'preferredip=2001:DB8:0:0::1'\n")
          .multipath.prio;
  ASSERT_TRUE(prio);
  const PathPlace preferred{"san:3260", "[2001:db8::1]:3260", "", "iqn.a:b"};
  const PathPlace other{"san2:3260", "[2001:db8::2]:3260", "", "iqn.a:b"};
  EXPECT_EQ(path_priority(*prio, {}, preferred, {}), 20);
  EXPECT_EQ(path_priority(*prio, {}, other, {}), 10);
}

}  // namespace
}  // namespace iscsi_blkback
