// Refusals of what would be accepted and have no effect, and of settings that contradict each other
// across sections, with the places that they come from.
#include "multipath/attach/disk_config.h"
#include "multipath/attach/policy_contradiction.h"
#include "tests/tools/config/config_text.h"

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

// What a device sets and [defaults] overrules contradicts nothing.
TEST(ConfigAcrossSections, ADevicesPolicyThatTheDefaultsOverruleIsNoContradiction) {
  accepted(
      "[defaults]\npath_selector = 'round-robin 0'\nrr_weight = 'priorities'\n"
      "[[device]]\nvendor = 'A'\npath_selector = 'service-time 0'\n");
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

// ---- multipath.conf's words

TEST(ConfigFeatures, SayWhatOtherOptionsSay) {
  const MultipathOptions queues =
      accepted("[defaults]\nfeatures = '1 queue_if_no_path'\n").multipath;
  ASSERT_TRUE(queues.no_path_retry);
  EXPECT_EQ(*queues.no_path_retry, NoPathRetry()) << "for ever";
  EXPECT_FALSE(accepted("[defaults]\nfeatures = '0'\n").multipath.no_path_retry);
  const MultipathOptions more =
      accepted("[defaults]\nfeatures = '4 pg_init_retries 7 pg_init_delay_msecs 500'\n").multipath;
  EXPECT_EQ(more.pg_init_retries, 7U);
  EXPECT_EQ(more.pg_init_delay, std::chrono::milliseconds(500));
  EXPECT_FALSE(more.no_path_retry);
  const Configuration below =
      accepted(std::string("[defaults]\nfeatures = '1 queue_if_no_path'\n") + kBelow +
               "no_path_retry = 'fail'\n");
  EXPECT_EQ(below.luns.at("root").multipath.no_path_retry,
            NoPathRetry(std::chrono::milliseconds(0)));
  EXPECT_TRUE(accepted("[[device]]\nvendor = 'A'\nfeatures = '1 queue_if_no_path'\n")
                  .multipath.arrays->back()
                  .policies.no_path_retry);
}

INSTANTIATE_TEST_SUITE_P(
    Features, ConfigWithoutEffect,
    testing::Values(
        Refused{"[defaults]\nfeatures = 'queue_if_no_path'\n",
                "c.toml:2: features does not begin with the number of words that follow, as in "
                "\"0\" or \"1 queue_if_no_path\""},
        Refused{"[defaults]\nfeatures = '2 queue_if_no_path'\n",
                "c.toml:2: features does not begin with the number of words that follow, as in "
                "\"0\" or \"1 queue_if_no_path\""},
        Refused{"[defaults]\nfeatures = '2 queue_mode mq'\n",
                "c.toml:2: features queue_mode has no meaning here: there is no queue of the "
                "kernel's"},
        Refused{"[defaults]\nfeatures = '1 frobnicate'\n",
                "c.toml:2: features knows queue_if_no_path, pg_init_retries NUMBER and "
                "pg_init_delay_msecs NUMBER here, not frobnicate"},
        Refused{"[defaults]\nfeatures = '1 pg_init_retries'\n",
                "c.toml:2: features needs a number from 1 to 50 behind pg_init_retries"},
        Refused{"[defaults]\nfeatures = '2 pg_init_retries 51'\n",
                "c.toml:2: features needs a number from 1 to 50 behind pg_init_retries"},
        Refused{"[defaults]\nno_path_retry = 'fail'\nfeatures = '1 queue_if_no_path'\n",
                "c.toml:3: features sets no_path_retry, and so does line 2"},
        Refused{"[defaults]\nfeatures = '1 queue_if_no_path'\nno_path_retry = 'fail'\n",
                "c.toml:3: no_path_retry is set twice, see line 2"},
        Refused{"[defaults]\nfeatures = 0\n",
                "c.toml:2: features must be a string, not a whole number"}));

TEST(ConfigPlumbing, OptionsOfMultipathConfWithoutACounterpartAreRefusedWithTheReason) {
  for (const char* name : {"detect_checker",
                           "rr_min_io_rq",
                           "san_path_err_threshold",
                           "san_path_err_forget_rate",
                           "san_path_err_recovery_time",
                           "user_friendly_names",
                           "prio_callout",
                           "getuid_callout",
                           "marginal_path_err_sample_time",
                           "marginal_pathgroups",
                           "delay_watch_checks",
                           "queue_without_daemon",
                           "flush_on_last_del",
                           "max_sectors_kb",
                           "find_multipaths",
                           "bindings_file",
                           "udev_dir",
                           "selector",
                           "verbosity",
                           "skip_kpartx",
                           "ghost_delay",
                           "recheck_wwid",
                           "purge_disconnected",
                           "max_fds",
                           "strict_timing",
                           "all_tg_pt"}) {
    EXPECT_THAT(refusal(std::string("[defaults]\n") + name + " = 'yes'\n"),
                testing::StartsWith(std::string("c.toml:2: ") + name + " has no meaning here: "));
    EXPECT_THAT(refusal(std::string("[[device]]\nvendor = 'A'\n") + name + " = 'yes'\n"),
                HasSubstr("has no meaning here: "));
  }
  EXPECT_THAT(refusal("[defaults]\nfast_io_fail_tmo = 5\n"), HasSubstr("path_timeout"));
}

// ---- a disk line

std::string plan_refusal(const std::string& text, const char* params) {
  const Configuration configuration = accepted(text);
  const auto config =
      configure_disk(parse_disk_url(params).value(), configuration, "xvda", /*read_only=*/false);
  return config ? "accepted" : config.error().message;
}

TEST(PlacesOfADiskLine, BothAreNamedWhenItContradictsTheConfigurationFile) {
  EXPECT_EQ(plan_refusal("[defaults]\nrr_min_io = 10\n",
                         "iscsi://h/iqn.2009-02.com.example:t/1?path_selector=queue-length"),
            "rr_min_io is for path_selector round-robin, not queue-length (rr_min_io comes from "
            "c.toml:2, path_selector from the disk's target)");
  EXPECT_EQ(plan_refusal(std::string("[defaults]\nrr_min_io = 10\n") + kBelow +
                             "portals = ['h']\nprio = 'const'\n",
                         "iscsi:root?path_grouping_policy=group_by_prio"),
            "path_grouping_policy group_by_prio contradicts prio const, which gives all paths the "
            "same priority: say multibus, or another prio (path_grouping_policy comes from the "
            "disk's target, prio from c.toml:7)");
  EXPECT_EQ(plan_refusal("[targets.'iqn.2009-02.com.example:t']\npath_selector = 'service-time'\n",
                         "iscsi://h/iqn.2009-02.com.example:t/1?rr_min_io=5"),
            "rr_min_io is for path_selector round-robin, not service-time (rr_min_io comes from "
            "the disk's target, path_selector from c.toml:2)");
  EXPECT_EQ(plan_refusal("[defaults]\nexclusive_luns = 'Yes'\n",
                         "iscsi://h/iqn.2009-02.com.example:t/1?shared=yes"),
            "exclusive_luns contradicts shared: a LUN that several guests use is not to be reset, "
            "which would end the commands of them all (exclusive_luns comes from c.toml:2, shared "
            "from the disk's target)");
  EXPECT_EQ(plan_refusal(std::string("[defaults]\nexclusive_luns = 'Yes'\n") + kBelow +
                             "portals = ['h']\nexclusive_luns = 'No'\n",
                         "iscsi:root?shared=yes"),
            "accepted");
  EXPECT_EQ(plan_refusal("[defaults]\nshared = 'Yes'\n",
                         "iscsi://h/iqn.2009-02.com.example:t/1?shared=no"),
            "accepted");
}

}  // namespace
}  // namespace iscsi_blkback
