// Refusals of the configuration file by name, each with file and line: how paths are used.
#include "tests/tools/config_text.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(ConfigRefuses, DeviceWithAnUnknownPathChecker) {
  EXPECT_EQ(refusal("[[device]]\nvendor = 'ACME'\npath_checker = 'hp_sw'\n"),
            "c.toml:3: path_checker is none of tur, directio, rdac and none");
}

TEST(ConfigRefuses, DeviceWithABadNoPathRetry) {
  EXPECT_THAT(refusal("[[device]]\nvendor = 'ACME'\nno_path_retry = 'soon'\n"),
              StartsWith("c.toml:3: no_path_retry"));
}

TEST(ConfigRefuses, OptionsOfTheKernelStackThatHaveNoCounterpart) {
  for (const char* name :
       {"replacement_timeout", "node.session.timeo.replacement_timeout", "fast_io_fail_tmo",
        "dev_loss_tmo", "host_reset_timeout", "node.session.err_timeo.host_reset_timeout",
        "'node.conn[0].timeo.auth_timeout'", "node.session.initial_login_retry_max",
        "node.session.reopen_max", "node.session.queue_depth"}) {
    EXPECT_THAT(refusal(std::string("[defaults]\n") + name + " = 5\n"),
                HasSubstr("has no meaning here: "))
        << name;
  }
  EXPECT_THAT(refusal("[defaults]\nreplacement_timeout = 5\n"), HasSubstr("no_path_retry"));
}

TEST(ConfigRefuses, UnknownPolicy) {
  EXPECT_EQ(refusal("[defaults]\npath_grouping_policy = 'group_by_node_name'\n"),
            "c.toml:2: path_grouping_policy is none of failover, multibus, group_by_prio, "
            "group_by_tpg and group_by_serial");
}

TEST(ConfigRefuses, UnknownPrio) {
  EXPECT_EQ(refusal("[defaults]\nprio = 'random'\n"),
            "c.toml:2: prio is none of const, alua, rdac, emc, weightedpath, iet and path_latency");
}

TEST(ConfigRefuses, PrioWithArgumentsOfAnother) {
  EXPECT_EQ(refusal("[defaults]\nprio = 'rdac'\nprio_args = 'preferredip=192.0.2.1'\n"),
            "c.toml:3: prio_args \"preferredip=192.0.2.1\" is nothing that prio rdac knows: it "
            "takes none");
}

TEST(ConfigRefuses, PrioArgumentsWithoutPrio) {
  EXPECT_EQ(refusal("[defaults]\nprio_args = 'portal * 1'\n"),
            "c.toml:2: prio_args needs a prio that they are for");
}

TEST(ConfigRefuses, PrioArgumentsThatAreNoTexts) {
  EXPECT_EQ(refusal("[defaults]\nprio = 'alua'\nprio_args = [1]\n"),
            "c.toml:3: prio_args must be a string, not a whole number");
  EXPECT_EQ(refusal("[defaults]\nprio = 'alua'\nprio_args = 1\n"),
            "c.toml:3: prio_args must be a string or an array of strings, not a whole number");
}

TEST(ConfigRefuses, UnknownFailback) {
  const std::string sentence =
      "c.toml:2: failback is neither immediate, manual, followover nor a number of seconds from 1 "
      "to "
      "3600";
  EXPECT_EQ(refusal("[defaults]\nfailback = 'fast'\n"), sentence);
  EXPECT_EQ(refusal("[defaults]\nfailback = 0\n"), sentence);
  EXPECT_THAT(refusal("[defaults]\nfailback = true\n"), HasSubstr("failback must be"));
}

TEST(ConfigRefuses, UnknownRrWeight) {
  EXPECT_EQ(refusal("[defaults]\nrr_weight = 'equal'\n"),
            "c.toml:2: rr_weight is neither uniform nor priorities");
}

TEST(ConfigRefuses, PathWeightOutOfRange) {
  EXPECT_EQ(refusal("[defaults]\npath_weights = ['portal * 101']\n"),
            "c.toml:2: path_weights \"portal * 101\" is not \"portal PATTERN NUMBER\", \"interface "
            "PATTERN NUMBER\" or \"target PATTERN NUMBER\" with a number from 0 to 100");
}

TEST(ConfigRefuses, GroupByPrioOfEqualPriorities) {
  EXPECT_EQ(refusal("[defaults]\npath_grouping_policy = 'group_by_prio'\nprio = 'const'\n"),
            "c.toml:3: path_grouping_policy group_by_prio contradicts prio const, which gives all "
            "paths the same priority: say multibus, or another prio");
}

TEST(ConfigRefuses, RrWeightPrioritiesOfAnotherSelector) {
  EXPECT_EQ(refusal("[defaults]\npath_selector = 'queue-length'\nrr_weight = 'priorities'\n"),
            "c.toml:3: rr_weight priorities is for path_selector round-robin, not queue-length");
}

TEST(ConfigRefuses, PathWeightsOfASelectorWithoutThem) {
  EXPECT_EQ(refusal("[defaults]\npath_weights = 'portal * 1'\npath_selector = 'queue-length'\n"),
            "c.toml:3: path_weights is for path_selector service-time and round-robin, not "
            "queue-length");
}

TEST(ConfigRefuses, PathWeightsAndRrWeightPriorities) {
  EXPECT_EQ(refusal("[defaults]\npath_weights = 'portal * 1'\nrr_weight = 'priorities'\n"),
            "c.toml:3: either path_weights or rr_weight priorities may be set, not both");
}

TEST(ConfigRefuses, DetectPrio) {
  EXPECT_EQ(refusal("[defaults]\ndetect_prio = 'yes'\n"),
            "c.toml:2: detect_prio has no meaning here: prio and path_grouping_policy are detected "
            "exactly where they are not set");
}

TEST(ConfigRefuses, DeviceWithoutVendorAndProduct) {
  EXPECT_EQ(refusal("[[device]]\nprio = 'rdac'\n"),
            "c.toml:1: a device needs a vendor or a product");
}

TEST(ConfigRefuses, DeviceWithAnOptionOfSessions) {
  EXPECT_EQ(refusal("[[device]]\nvendor = 'IET'\nlogin_timeout = 3\n"),
            "c.toml:3: login_timeout is not an option of a device");
  EXPECT_EQ(refusal("[[device]]\nvendor = 'IET'\nprios = 'alua'\n"),
            "c.toml:3: prios is not an option of a device; did you mean prio?");
}

TEST(ConfigRefuses, DeviceThatContradictsItself) {
  EXPECT_EQ(refusal("[[device]]\nvendor = 'IET'\nprio = 'weightedpath'\n"),
            "c.toml:3: prio weightedpath needs prio_args like [\"portal 192.0.2.* 50\"]");
}

TEST(ConfigRefuses, DeviceThatIsNoSection) {
  EXPECT_THAT(refusal("device = 3\n"), HasSubstr("c.toml:1: device must be sections [[device]]"));
  EXPECT_THAT(refusal("device = [3]\n"), HasSubstr("device must be a section [[device]]"));
}

TEST(ConfigRefuses, UnknownAutoResize) {
  EXPECT_EQ(refusal("[defaults]\nauto_resize = 'yes'\n"),
            "c.toml:2: auto_resize is neither \"grow_only\" nor \"never\"");
  EXPECT_THAT(refusal("[defaults]\nauto_resize = 'grow_shrink'\n"), HasSubstr("shrinks"));
}

TEST(ConfigRefuses, UnknownPathChecker) {
  EXPECT_EQ(refusal("[defaults]\npath_checker = 'emc_clariion'\n"),
            "c.toml:2: path_checker is none of tur, directio, rdac and none");
}

TEST(ConfigRefuses, PollingIntervalsInTheWrongOrder) {
  EXPECT_EQ(
      refusal("[defaults]\npolling_interval = 10\nmax_polling_interval = 5\n"),
      "c.toml:3: max_polling_interval (5 s) must not be shorter than polling_interval (10 s)");
}

TEST(ConfigRefuses, ReservationKeyThatIsNone) {
  for (const char* key :
       {"", "0x", "0x0", "5a00", "0x5g", "0x-1", "file", "0x5a00:aptpl", "0x10000000000000000"}) {
    EXPECT_EQ(refusal(std::string("[defaults]\nreservation_key = '") + key + "'\n"),
              "c.toml:2: reservation_key is no hexadecimal number like \"0x5a00\" of 1 to 16 "
              "digits, not all 0")
        << key;
  }
  EXPECT_THAT(refusal("[defaults]\nreservation_key = 23040\n"), StartsWith("c.toml:2: "));
}

TEST(ConfigRefuses, FenceSettleTimeThatIsNotShorterThanTheQuiesceTime) {
  EXPECT_EQ(
      refusal("[defaults]\nquiesce_time = 5\nfence_settle_time = 5\n"),
      "c.toml:3: fence_settle_time (5 s) must be shorter than quiesce_time (5 s), after which "
      "no fence is needed");
  EXPECT_THAT(refusal("[defaults]\nfence_settle_time = 0.01\n"), StartsWith("c.toml:2: "));
  accepted("[defaults]\nquiesce_time = 5\n");
}

TEST(ConfigRefuses, UnknownNoSpace) {
  EXPECT_EQ(refusal("[defaults]\nno_space = 'queue'\n"),
            "c.toml:2: no_space is neither \"hold\" nor \"fail\"");
}

TEST(ConfigRefuses, UnknownSelector) {
  EXPECT_EQ(refusal("[defaults]\npath_selector = 'least-busy 0'\n"),
            "c.toml:2: path_selector is none of round-robin, queue-length, service-time and "
            "historical-service-time");
}

TEST(ConfigRefuses, BadNoPathRetry) {
  EXPECT_THAT(refusal("[defaults]\nno_path_retry = 'soon'\n"),
              StartsWith("c.toml:2: no_path_retry"));
  EXPECT_THAT(refusal("[defaults]\nno_path_retry = -1\n"), StartsWith("c.toml:2: no_path_retry"));
  EXPECT_THAT(refusal("[defaults]\nno_path_retry = true\n"), HasSubstr("not true or false"));
}

}  // namespace
}  // namespace iscsi_blkback
