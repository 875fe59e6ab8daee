// Refusals of the configuration file by name, each with file and line: how paths are used.
#include "tests/tools/config/config_text.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

INSTANTIATE_TEST_SUITE_P(
    Grouping, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"UnknownPolicy", "[defaults]\npath_grouping_policy = 'group_by_node_name'\n",
         "c.toml:2: path_grouping_policy is none of failover, multibus, group_by_prio, "
         "group_by_tpg and group_by_serial"},
        {"UnknownPrio", "[defaults]\nprio = 'random'\n",
         "c.toml:2: prio is none of const, alua, rdac, emc, weightedpath, iet and path_latency"},
        {"PrioWithArgumentsOfAnother",
         "[defaults]\nprio = 'rdac'\nprio_args = 'preferredip=192.0.2.1'\n",
         "c.toml:3: prio_args \"preferredip=192.0.2.1\" is nothing that prio rdac knows: it takes "
         "none"},
        {"PrioArgumentsWithoutPrio", "[defaults]\nprio_args = 'portal * 1'\n",
         "c.toml:2: prio_args needs a prio that they are for"},
        {"PrioArgumentsThatAreNoTexts", "[defaults]\nprio = 'alua'\nprio_args = [1]\n",
         "c.toml:3: prio_args must be a string, not a whole number"},
        {"PrioArgumentsOfWrongType", "[defaults]\nprio = 'alua'\nprio_args = 1\n",
         "c.toml:3: prio_args must be a string or an array of strings, not a whole number"},
        {"DetectPrio", "[defaults]\ndetect_prio = 'yes'\n",
         "c.toml:2: detect_prio has no meaning here: prio and path_grouping_policy are detected "
         "exactly where they are not set"},
        {"GroupByPrioOfEqualPriorities",
         "[defaults]\npath_grouping_policy = 'group_by_prio'\nprio = 'const'\n",
         "c.toml:3: path_grouping_policy group_by_prio contradicts prio const, which gives all "
         "paths the same priority: say multibus, or another prio"},
        {"ExclusiveLunsThatAreShared", "[defaults]\nexclusive_luns = 'Yes'\nshared = 'Yes'\n",
         "c.toml:3: exclusive_luns contradicts shared: a LUN that several guests use is not to be "
         "reset, which would end the commands of them all"},
        {"UnknownFailback", "[defaults]\nfailback = 'fast'\n",
         "c.toml:2: failback is neither immediate, manual, followover nor a number of seconds from "
         "0 (manual) to 3600"},
        {"FailbackBelowRange", "[defaults]\nfailback = -1\n",
         "c.toml:2: failback is neither immediate, manual, followover nor a number of seconds from "
         "0 (manual) to 3600"},
        {"FailbackOfWrongType", "[defaults]\nfailback = true\n", HasSubstr("failback must be")},
    }),
    name_of_refusal);

INSTANTIATE_TEST_SUITE_P(
    Selectors, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"UnknownSelector", "[defaults]\npath_selector = 'least-busy 0'\n",
         "c.toml:2: path_selector is none of round-robin, queue-length, service-time and "
         "historical-service-time"},
        {"UnknownRrWeight", "[defaults]\nrr_weight = 'equal'\n",
         "c.toml:2: rr_weight is neither uniform nor priorities"},
        {"PathWeightOutOfRange", "[defaults]\npath_weights = ['portal * 101']\n",
         "c.toml:2: path_weights \"portal * 101\" is not \"portal PATTERN NUMBER\", \"interface "
         "PATTERN NUMBER\" or \"target PATTERN NUMBER\" with a number from 0 to 100"},
        {"RrWeightPrioritiesOfAnotherSelector",
         "[defaults]\npath_selector = 'queue-length'\nrr_weight = 'priorities'\n",
         "c.toml:3: rr_weight priorities is for path_selector round-robin, not queue-length"},
        {"PathWeightsOfASelectorWithoutThem",
         "[defaults]\npath_weights = 'portal * 1'\npath_selector = 'queue-length'\n",
         "c.toml:3: path_weights is for path_selector service-time and round-robin, not "
         "queue-length"},
        {"PathWeightsAndRrWeightPriorities",
         "[defaults]\npath_weights = 'portal * 1'\nrr_weight = 'priorities'\n",
         "c.toml:3: either path_weights or rr_weight priorities may be set, not both"},
    }),
    name_of_refusal);

INSTANTIATE_TEST_SUITE_P(
    Errors, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"UnknownPathChecker", "[defaults]\npath_checker = 'emc_clariion'\n",
         "c.toml:2: path_checker is none of tur, directio, rdac and none"},
        {"PollingIntervalsInTheWrongOrder",
         "[defaults]\npolling_interval = 10\nmax_polling_interval = 5\n",
         "c.toml:3: max_polling_interval (5 s) must not be shorter than polling_interval (10 s)"},
        {"BadNoPathRetry", "[defaults]\nno_path_retry = 'soon'\n",
         StartsWith("c.toml:2: no_path_retry")},
        {"NegativeNoPathRetry", "[defaults]\nno_path_retry = -1\n",
         StartsWith("c.toml:2: no_path_retry")},
        {"NoPathRetryOfWrongType", "[defaults]\nno_path_retry = true\n",
         HasSubstr("not true or false")},
        {"UnknownNoSpace", "[defaults]\nno_space = 'queue'\n",
         "c.toml:2: no_space is neither \"hold\" nor \"fail\""},
        {"UnknownAutoResize", "[defaults]\nauto_resize = 'yes'\n",
         "c.toml:2: auto_resize is neither \"grow_only\" nor \"never\""},
        {"AutoResizeThatShrinks", "[defaults]\nauto_resize = 'grow_shrink'\n",
         HasSubstr("shrinks")},
        {"ReservationKeyOfWrongType", "[defaults]\nreservation_key = 23040\n",
         StartsWith("c.toml:2: ")},
        {"FenceSettleTimeThatIsNotShorterThanTheQuiesceTime",
         "[defaults]\nquiesce_time = 5\nfence_settle_time = 5\n",
         "c.toml:3: fence_settle_time (5 s) must be shorter than quiesce_time (5 s), after which "
         "no fence is needed"},
        {"FenceSettleTimeTooShort", "[defaults]\nfence_settle_time = 0.01\n",
         StartsWith("c.toml:2: ")},
    }),
    name_of_refusal);

INSTANTIATE_TEST_SUITE_P(
    Devices, ConfigRefuses,
    testing::ValuesIn(std::vector<ConfigRefusal>{
        {"DeviceWithoutVendorAndProduct", "[[device]]\nprio = 'rdac'\n",
         "c.toml:1: a device needs a vendor or a product"},
        {"DeviceWithAnOptionOfSessions", "[[device]]\nvendor = 'IET'\nlogin_timeout = 3\n",
         "c.toml:3: login_timeout is not an option of a device: it belongs into [defaults] or "
         "[luns.ALIAS]"},
        {"DeviceWithAMisspeltOption", "[[device]]\nvendor = 'IET'\nprios = 'alua'\n",
         "c.toml:3: prios is not an option of a device; did you mean prio?"},
        {"DeviceThatContradictsItself", "[[device]]\nvendor = 'IET'\nprio = 'weightedpath'\n",
         "c.toml:3: prio weightedpath needs prio_args like [\"portal 192.0.2.* 50\"]"},
        {"DeviceThatIsNoSection", "device = 3\n",
         HasSubstr("c.toml:1: device must be sections [[device]]")},
        {"DevicesThatAreNoSections", "device = [3]\n",
         HasSubstr("device must be a section [[device]]")},
        {"DeviceWithAnUnknownPathChecker", "[[device]]\nvendor = 'ACME'\npath_checker = 'hp_sw'\n",
         "c.toml:3: path_checker is none of tur, directio, rdac and none"},
        {"DeviceWithABadNoPathRetry", "[[device]]\nvendor = 'ACME'\nno_path_retry = 'soon'\n",
         StartsWith("c.toml:3: no_path_retry")},
    }),
    name_of_refusal);

TEST(ConfigRefusesEach, OptionOfTheKernelStackThatHasNoCounterpart) {
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

TEST(ConfigRefusesEach, ReservationKeyThatIsNone) {
  for (const char* key : {"", "0x", "0x0", "5a00", "0x5g", "0x-1", "file", "0x5a00:aptpl",
                          "0x1000000", "0x5a00000000000000", "0x10000000000000000"}) {
    EXPECT_EQ(refusal(std::string("[defaults]\nreservation_key = '") + key + "'\n"),
              "c.toml:2: reservation_key is no hexadecimal number like \"0x5a00\" of 1 to 6 "
              "digits, not all 0: the rest of a key tells the host's paths apart")
        << key;
  }
}

}  // namespace
}  // namespace iscsi_blkback
