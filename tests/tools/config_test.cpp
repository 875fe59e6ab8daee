// The configuration file: what it may say, and each refusal by name, with file and line.
#include "tools/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tools/array_table.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::StartsWith;

Configuration accepted(const std::string& text) {
  auto configuration = parse_configuration(text, "c.toml");
  EXPECT_TRUE(configuration.has_value()) << configuration.error().message;
  return configuration.value_or(Configuration{});
}

std::string refusal(const std::string& text) {
  const auto configuration = parse_configuration(text, "c.toml");
  return configuration ? "accepted" : configuration.error().message;
}

const std::string kLun =
    "[luns.root]\n"
    "target = 'iqn.2009-02.com.example:t'\n"
    "lun = 1\n";

TEST(Config, EmptyFileIsAllDefaults) {
  const Configuration configuration = accepted("");
  EXPECT_EQ(configuration.initiator_name, "");
  EXPECT_EQ(configuration.session.noop_out_interval, SessionOptions{}.noop_out_interval);
  EXPECT_EQ(configuration.multipath.no_path_retry, std::nullopt);
  EXPECT_EQ(configuration.run_directory, "/run/iscsi-blkback");
  EXPECT_TRUE(configuration.luns.empty());
}

TEST(Config, TopOptions) {
  const Configuration configuration = accepted(
      "initiator_name = 'iqn.2009-02.com.example:host'\n"
      "initiator_alias = 'a host'\n"
      "portals = ['192.0.2.1', '[2001:db8::1]:3261', { portal = 'san1:3262', interface = 'eth1' "
      "}]\n"
      "log_level = 'debug'\n"
      "run_directory = '/run/other'\n"
      "max_ring_page_order = 0\n");
  EXPECT_EQ(configuration.initiator_name, "iqn.2009-02.com.example:host");
  EXPECT_EQ(configuration.session.initiator_name, configuration.initiator_name);
  EXPECT_EQ(configuration.session.initiator_alias, "a host");
  const std::vector<Portal> portals = {
      {"192.0.2.1", 3260, {}}, {"2001:db8::1", 3261, {}}, {"san1", 3262, {.name = "eth1"}}};
  EXPECT_EQ(configuration.discovery_portals, portals);
  EXPECT_EQ(configuration.log_level, "debug");
  EXPECT_EQ(configuration.run_directory, "/run/other");
  EXPECT_EQ(configuration.max_ring_page_order, 0U);
}

TEST(Config, PortalsAsArrayOfTables) {
  const Configuration configuration =
      accepted("[[portals]]\nportal = 'a'\n[[portals]]\nportal = 'b'\ninterface = 'eth0'\n");
  ASSERT_EQ(configuration.discovery_portals.size(), 2U);
  EXPECT_EQ(configuration.discovery_portals[1].interface_binding.name, "eth0");
}

TEST(Config, CheckersAndMarginalPaths) {
  const MultipathOptions options = accepted(
                                       "[defaults]\n"
                                       "path_checker = 'readsector0'\n"
                                       "max_polling_interval = 60\n"
                                       "marginal_path_double_failed_time = 0\n"
                                       "marginal_path_err_recheck_gap_time = 300\n")
                                       .multipath;
  EXPECT_EQ(options.path_checker, PathCheckerKind::directio);
  EXPECT_EQ(options.max_polling_interval, seconds(60));
  EXPECT_EQ(options.marginal.double_failed_time, seconds(0));
  EXPECT_EQ(options.marginal.err_recheck_gap_time, seconds(300));
}

TEST(Config, GrowthAndSpace) {
  const MultipathOptions options = accepted(
                                       "[defaults]\n"
                                       "auto_resize = 'never'\n"
                                       "capacity_polling_interval = 0\n"
                                       "no_space = 'fail'\n")
                                       .multipath;
  EXPECT_FALSE(options.grows);
  EXPECT_EQ(options.capacity_polling_interval.count(), 0);
  EXPECT_EQ(options.no_space, NoSpacePolicy::fail);
  EXPECT_TRUE(MultipathOptions{}.grows);
  EXPECT_EQ(MultipathOptions{}.no_space, NoSpacePolicy::hold);
}

TEST(Config, MultipathOptionsUnderTheirNames) {
  const MultipathOptions options = accepted(
                                       "[defaults]\n"
                                       "path_grouping_policy = 'failover'\n"
                                       "path_selector = 'round-robin 0'\n"
                                       "rr_min_io = 100\n"
                                       "no_path_retry = 12\n"
                                       "polling_interval = 2\n"
                                       "checker_timeout = 1.5\n"
                                       "quiesce_time = 0\n")
                                       .multipath;
  EXPECT_EQ(options.path_grouping_policy, PathGroupingPolicy::failover);
  EXPECT_EQ(options.rr_min_io, 100U);
  EXPECT_EQ(options.no_path_retry, seconds(24));  // 12 checks, 2 s apart
  EXPECT_EQ(options.polling_interval, seconds(2));
  EXPECT_EQ(options.checker_timeout, milliseconds(1500));
  EXPECT_EQ(options.quiesce_time, seconds(0));
}

TEST(Config, PoliciesOfPathsUnderTheirNames) {
  const MultipathOptions options = accepted(
                                       "[defaults]\n"
                                       "path_grouping_policy = 'group_by_tpg'\n"
                                       "path_selector = 'service-time 0'\n"
                                       "path_weights = ['interface eth1 4', 'portal * 2']\n"
                                       "prio = 'weightedpath'\n"
                                       "prio_args = ['target *:b 7']\n"
                                       "failback = 30\n"
                                       "pg_init_retries = 50\n"
                                       "pg_init_delay = 0.5\n")
                                       .multipath;
  EXPECT_EQ(options.path_grouping_policy, PathGroupingPolicy::group_by_tpg);
  EXPECT_EQ(options.path_selector, PathSelectorKind::service_time);
  ASSERT_EQ(options.path_weights.size(), 2U);
  EXPECT_EQ(options.path_weights[0], (PathRule{PathRule::Key::interface, "eth1", 4}));
  ASSERT_TRUE(options.prio);
  EXPECT_EQ(options.prio->kind, PrioritizerKind::weighted);
  EXPECT_EQ(options.prio->rules[0], (PathRule{PathRule::Key::target, "*:b", 7}));
  EXPECT_EQ(options.failback, (Failback{Failback::Kind::after, seconds(30)}));
  EXPECT_EQ(options.pg_init_retries, 50U);
  EXPECT_EQ(options.pg_init_delay, milliseconds(500));
}

TEST(Config, WhatIsNotSetOfPoliciesIsLeftToTheLun) {
  const MultipathOptions options = accepted("").multipath;
  EXPECT_EQ(options.path_grouping_policy, std::nullopt);
  EXPECT_EQ(options.prio, std::nullopt);
  EXPECT_EQ(options.failback, std::nullopt);
  EXPECT_EQ(options.rr_weight, std::nullopt);
  ASSERT_NE(options.arrays, nullptr);
}

TEST(Config, AnotherPrioForgetsTheArgumentsOfTheOneBefore) {
  const Configuration configuration = accepted(
      "[defaults]\nprio = 'weightedpath'\nprio_args = 'portal * 5'\n" + kLun + "prio = 'alua'\n");
  EXPECT_EQ(configuration.luns.begin()->second.multipath.prio->kind, PrioritizerKind::alua);
}

TEST(Config, DeviceSectionsComeAfterTheBuiltInTable) {
  const Configuration configuration = accepted(
      "[[device]]\nvendor = 'IET'\npath_grouping_policy = 'failover'\n"
      "[[device]]\nproduct = 'MD3*'\nrevision = '07*'\nprio = 'rdac'\nrr_min_io = 3\n");
  const ArrayTable& table = *configuration.multipath.arrays;
  ASSERT_EQ(table.size(), built_in_arrays().size() + 2);
  EXPECT_EQ(table.back().product, "MD3*");
  EXPECT_EQ(table.back().revision, "07*");
  EXPECT_EQ(table.back().policies.rr_min_io, 3U);
  EXPECT_FALSE(table.back().prio_without_alua) << "the operator means it";
  LogicalUnitIdentity identity;
  identity.vendor = "IET";
  EXPECT_EQ(decide_policies({}, &table, &identity).path_grouping_policy,
            PathGroupingPolicy::failover);
}

// Values of the built-in rows where they matter most.
TEST(ArrayTable, KnowsTheArraysOfTheTable) {
  const auto policies = [](std::string vendor, std::string product, std::uint8_t tpgs = 0) {
    LogicalUnitIdentity identity;
    identity.vendor = std::move(vendor);
    identity.product = std::move(product);
    identity.tpgs = tpgs;
    return decide_policies({}, &built_in_arrays(), &identity);
  };
  for (const char* product : {"MD3000i", "MD32xxi", "MD36xxi"}) {
    const PathPolicies rdac = policies("DELL", product);
    EXPECT_EQ(rdac.prio.kind, PrioritizerKind::rdac) << product;
    EXPECT_EQ(rdac.pg_init_retries, 50U);
    EXPECT_EQ(rdac.failback.kind, Failback::Kind::immediate);
  }
  EXPECT_EQ(policies("DELL", "MD32xxi", 1).prio.kind, PrioritizerKind::alua)
      << "ALUA, where the LUN reports it";
  EXPECT_EQ(policies("IBM", "1815      FAStT").prio.kind, PrioritizerKind::rdac) << "DS4800";
  EXPECT_EQ(policies("IBM", "1726-3xx  FAStT").prio.kind, PrioritizerKind::rdac) << "DS3300";
  EXPECT_EQ(policies("EQLOGIC", "100E-00").path_grouping_policy, PathGroupingPolicy::multibus);
  EXPECT_EQ(policies("IET", "VIRTUAL-DISK").path_grouping_policy, PathGroupingPolicy::multibus);
  EXPECT_EQ(policies("NEXENTA", "COMSTAR").path_grouping_policy,
            PathGroupingPolicy::group_by_serial);
  EXPECT_EQ(policies("DGC", "VRAID").prio.kind, PrioritizerKind::emc);
  for (const auto& [vendor, product] :
       std::vector<std::pair<const char*, const char*>>{{"LIO-ORG", "disk0"},
                                                        {"SCST_BIO", "disk"},
                                                        {"SCST_FIO", "disk"},
                                                        {"NETAPP", "LUN C-Mode"},
                                                        {"Nimble", "Server"},
                                                        {"PURE", "FlashArray"},
                                                        {"COMPELNT", "Compellent Vol"},
                                                        {"DellEMC", "PowerStore"},
                                                        {"DataCore", "Virtual Disk"},
                                                        {"HPE", "MSA 2050 SAN"},
                                                        {"3PARdata", "VV"}}) {
    const PathPolicies alua = policies(vendor, product, 1);
    EXPECT_EQ(alua.path_grouping_policy, PathGroupingPolicy::group_by_prio) << vendor;
    EXPECT_EQ(alua.prio.kind, PrioritizerKind::alua) << vendor;
    EXPECT_EQ(alua.failback.kind, Failback::Kind::immediate) << vendor;
  }
}

TEST(ArrayTable, HasTheCheckersOfItsSource) {
  const ArrayTable table = built_in_arrays();
  const auto checker = [&](const char* vendor, const char* product) {
    LogicalUnitIdentity identity;
    identity.vendor = vendor;
    identity.product = product;
    return decide_policies({}, &table, &identity).path_checker;
  };
  EXPECT_EQ(checker("LIO-ORG", "disk0"), PathCheckerKind::directio);
  EXPECT_EQ(checker("IBM", "1815      FAStT"), PathCheckerKind::rdac);
  EXPECT_EQ(checker("DELL", "MD32xxi"), PathCheckerKind::rdac);
  EXPECT_EQ(checker("NETAPP", "INF-01-00"), PathCheckerKind::rdac);
  EXPECT_EQ(checker("NETAPP", "LUN C-Mode"), PathCheckerKind::tur);
  EXPECT_EQ(checker("IET", "VIRTUAL-DISK"), PathCheckerKind::tur);
}

TEST(ArrayTable, NoRowMakesAGuestsRequestsFail) {
  for (const ArrayRow& row : built_in_arrays()) {
    EXPECT_TRUE(!row.policies.no_path_retry || *row.policies.no_path_retry == std::nullopt)
        << row.vendor;
  }
}

TEST(Config, DevicesHaveAPathCheckerAndNoPathRetry) {
  const Configuration configuration = accepted(
      "[[device]]\nvendor = 'ACME'\npath_checker = 'rdac'\n"
      "no_path_retry = 12\n"
      "[[device]]\nvendor = 'ACME'\nproduct = 'Q'\n"
      "no_path_retry = 'queue'\n");
  const ArrayTable& table = *configuration.multipath.arrays;
  LogicalUnitIdentity identity;
  identity.vendor = "ACME";
  identity.product = "P";
  PathPolicies policies = decide_policies({}, &table, &identity);
  EXPECT_EQ(policies.path_checker, PathCheckerKind::rdac);
  EXPECT_EQ(policies.no_path_retry, seconds(60));
  identity.product = "Q";
  policies = decide_policies({}, &table, &identity);
  EXPECT_EQ(policies.path_checker, PathCheckerKind::rdac);
  EXPECT_EQ(policies.no_path_retry, std::nullopt);
  PathPolicySettings own;
  own.path_checker = PathCheckerKind::none;
  own.no_path_retry = NoPathRetry{seconds(0)};
  policies = decide_policies(own, &table, &identity);
  EXPECT_EQ(policies.path_checker, PathCheckerKind::none);
  EXPECT_EQ(policies.no_path_retry, seconds(0));
}

TEST(ConfigRefuses, DeviceWithAnUnknownPathChecker) {
  EXPECT_EQ(refusal("[[device]]\nvendor = 'ACME'\npath_checker = 'hp_sw'\n"),
            "c.toml:3: path_checker is none of tur, directio, rdac and none");
}

TEST(ConfigRefuses, DeviceWithABadNoPathRetry) {
  EXPECT_THAT(refusal("[[device]]\nvendor = 'ACME'\nno_path_retry = 'soon'\n"),
              StartsWith("c.toml:3: no_path_retry"));
}

TEST(Config, NoPathRetryInAllItsForms) {
  const auto value = [](const std::string& text) {
    return accepted("[defaults]\nno_path_retry = " + text).multipath.no_path_retry.value();
  };
  EXPECT_EQ(value("'queue'"), std::nullopt);
  EXPECT_EQ(value("'fail'"), seconds(0));
  EXPECT_EQ(value("'30s'"), seconds(30));
  EXPECT_EQ(value("'3'"), seconds(15));
  EXPECT_EQ(value("3"), seconds(15));
}

TEST(Config, SessionOptionsUnderTheirNames) {
  const SessionOptions options = accepted(
                                     "[defaults]\n"
                                     "login_timeout = 20\n"
                                     "noop_out_interval = 0\n"
                                     "noop_out_timeout = 0.25\n"
                                     "cmds_max = 128\n"
                                     "InitialR2T = 'Yes'\n"
                                     "ImmediateData = false\n"
                                     "FirstBurstLength = 65536\n"
                                     "MaxBurstLength = 65536\n"
                                     "MaxOutstandingR2T = 8\n")
                                     .session;
  EXPECT_EQ(options.login_timeout, seconds(20));
  EXPECT_EQ(options.noop_out_interval, seconds(0));
  EXPECT_EQ(options.noop_out_timeout, milliseconds(250));
  EXPECT_EQ(options.max_commands, 128);
  EXPECT_TRUE(options.initial_r2t);
  EXPECT_FALSE(options.immediate_data);
  EXPECT_EQ(options.first_burst_length, 65536U);
  EXPECT_EQ(options.max_outstanding_r2t, 8);
}

TEST(Config, LongNamesOfIscsidConf) {
  const SessionOptions options = accepted(
                                     "[defaults]\n"
                                     "'node.conn[0].timeo.noop_out_interval' = 7\n"
                                     "node.session.cmds_max = 64\n"
                                     "node.session.iscsi.InitialR2T = 'No'\n")
                                     .session;
  EXPECT_EQ(options.noop_out_interval, seconds(7));
  EXPECT_EQ(options.max_commands, 64);
  EXPECT_FALSE(options.initial_r2t);
}

const std::string kChap =
    "[defaults]\n"
    "node.session.auth.authmethod = 'CHAP'\n"
    "node.session.auth.username = 'host1'\n"
    "node.session.auth.password = 'initiator-secret'\n";

TEST(Config, ChapCredentials) {
  const Configuration configuration =
      accepted(kChap +
               "username_in = 'array'\n"
               "password_in = 'the-target-secret'\n"
               "chap_algs = 'SHA256,MD5'\n"
               "discovery.sendtargets.auth.username = 'finder'\n"
               "discovery.sendtargets.auth.password = 'discovery-secret'\n");
  const ChapOptions& chap = configuration.session.chap;
  EXPECT_EQ(chap.username, "host1");
  EXPECT_EQ(chap.password, "initiator-secret");
  EXPECT_EQ(chap.username_in, "array");
  EXPECT_EQ(chap.password_in, "the-target-secret");
  const std::vector<ChapAlgorithm> algorithms = {ChapAlgorithm::sha256, ChapAlgorithm::md5};
  EXPECT_EQ(chap.algorithms, algorithms);
  EXPECT_EQ(configuration.session.discovery_chap.username, "finder");
  EXPECT_EQ(configuration.session.discovery_chap.password, "discovery-secret");
}

TEST(Config, TargetsOverrideTheDefaultsAndLunsTheirTarget) {
  const Configuration configuration =
      accepted("initiator_name = 'iqn.2009-02.com.example:host'\n" + kLun +
               "password = 'secret-of-the-lun'\n"
               "[targets.'iqn.2009-02.com.example:t']\n"
               "username = 'tenant'\n"
               "password = 'secret-of-target'\n"
               "HeaderDigest = 'CRC32C,None'\n" +
               kChap);
  ASSERT_EQ(configuration.targets.count("iqn.2009-02.com.example:t"), 1U);
  const ConfiguredTarget& target = configuration.targets.at("iqn.2009-02.com.example:t");
  EXPECT_EQ(target.session.chap.username, "tenant");
  EXPECT_EQ(target.session.initiator_name, "iqn.2009-02.com.example:host");
  const SessionOptions& lun = configuration.luns.at("root").session;
  EXPECT_EQ(lun.chap.username, "tenant");
  EXPECT_EQ(lun.chap.password, "secret-of-the-lun");
  EXPECT_EQ(lun.header_digest, DigestOffer::crc32c_or_none);
  EXPECT_EQ(configuration.session.chap.username, "host1");
}

TEST(Config, AuthmethodNoneTurnsChapOffForASection) {
  const Configuration configuration = accepted(kChap + kLun + "authmethod = 'None'\n");
  EXPECT_TRUE(configuration.session.chap.enabled());
  EXPECT_FALSE(configuration.luns.at("root").session.chap.enabled());
}

TEST(Config, Digests) {
  const SessionOptions options = accepted(
                                     "[defaults]\n"
                                     "HeaderDigest = 'None,CRC32C'\n"
                                     "'node.conn[0].iscsi.DataDigest' = 'CRC32C'\n")
                                     .session;
  EXPECT_EQ(options.header_digest, DigestOffer::none_or_crc32c);
  EXPECT_EQ(options.data_digest, DigestOffer::crc32c);
}

TEST(Config, InterfacesForEveryPortal) {
  const Configuration configuration = accepted(
      "portals = [{ portal = 'a', iface.ipaddress = '192.0.2.10' }, 'b']\n"
      "[defaults]\n"
      "interfaces = ['eth1', { iface.hwaddress = '52-54-00-AB-CD-EF' }]\n"
      "nr_sessions = 2\n" +
      kLun + "iface.net_ifacename = 'eth7'\n");
  EXPECT_EQ(configuration.discovery_portals[0].interface_binding.address, "192.0.2.10");
  const std::vector<InterfaceBinding> both = {{.name = "eth1"},
                                              {.hardware_address = "52:54:00:ab:cd:ef"}};
  EXPECT_EQ(configuration.paths.interfaces, both);
  EXPECT_EQ(configuration.paths.sessions_per_portal, 2);
  const std::vector<InterfaceBinding> one = {{.name = "eth7"}};
  EXPECT_EQ(configuration.luns.at("root").paths.interfaces, one);
  EXPECT_EQ(configuration.luns.at("root").paths.sessions_per_portal, 2);
}

TEST(Config, KeysWithOneValueMayBeWrittenDown) {
  accepted(
      "[defaults]\n"
      "ErrorRecoveryLevel = 0\n"
      "MaxConnections = 1\n"
      "DataPDUInOrder = 'Yes'\n"
      "node.session.iscsi.DataSequenceInOrder = true\n"
      "InitiatorAlias = 'a host'\n");
}

TEST(Config, LunsOverrideTheDefaults) {
  const Configuration configuration = accepted(
      "initiator_name = 'iqn.2009-02.com.example:host'\n"
      "[defaults]\n"
      "rr_min_io = 10\n"
      "no_path_retry = 3\n"
      "path_timeout = 3\n" +
      kLun +
      "portals = ['192.0.2.1']\n"
      "rr_min_io = 20\n"
      "polling_interval = 1\n");
  ASSERT_EQ(configuration.luns.count("root"), 1U);
  const ConfiguredLun& lun = configuration.luns.at("root");
  EXPECT_EQ(lun.alias, "root");
  EXPECT_EQ(lun.target_name, "iqn.2009-02.com.example:t");
  EXPECT_EQ(lun.lun, 1);
  EXPECT_EQ(lun.portals.size(), 1U);
  EXPECT_EQ(lun.session.initiator_name, "iqn.2009-02.com.example:host");
  EXPECT_EQ(lun.session.path_timeout, seconds(3));
  EXPECT_EQ(lun.multipath.alias, "root");
  EXPECT_EQ(lun.multipath.rr_min_io, 20U);
  EXPECT_EQ(lun.multipath.no_path_retry, seconds(3));  // its own polling_interval counts
  EXPECT_EQ(configuration.multipath.rr_min_io, 10U);
  EXPECT_EQ(configuration.multipath.no_path_retry, seconds(15));
}

TEST(Config, DefaultsMayStandBehindTheLuns) {
  EXPECT_EQ(accepted(kLun + "[defaults]\nrr_min_io = 9\n").luns.at("root").multipath.rr_min_io, 9U);
}

// --- Refusals
// --------------------------------------------------------------------------------------

TEST(ConfigRefuses, BrokenToml) {
  EXPECT_THAT(refusal("[defaults]\nrr_min_io = \n"), StartsWith("c.toml:2: "));
}

TEST(ConfigRefuses, SectionThatIsNotClosed) {
  EXPECT_THAT(refusal("[\nlog_level = 'info'\n"), StartsWith("c.toml:"));
  EXPECT_THAT(refusal("[defaults\n"), StartsWith("c.toml:"));
  EXPECT_THAT(refusal("["), StartsWith("c.toml:"));
}

TEST(ConfigRefuses, LineTooLong) {
  std::string parts = "[defaults]\na";
  while (parts.size() < 200000) {
    parts += ".a";
  }
  EXPECT_EQ(refusal(parts + " = 1\n"), "c.toml:2: the line has more than 1024 bytes");
}

TEST(ConfigRefuses, CharactersBeyondAscii) {
  EXPECT_EQ(refusal("# gr\xc3\xbc\xc3\x9f\n\nlog_level = 'gr\xc3\xbc\xc3\x9f'\n"),
            "c.toml:3: characters beyond ASCII may only stand in lines that begin with #");
  EXPECT_THAT(refusal("\xcc\x8c = 1\n"), StartsWith("c.toml:1: characters beyond ASCII"));
}

TEST(Config, CommentsInAnyLanguage) {
  accepted("  # gr\xc3\xbc\xc3\x9f \xff\nlog_level = 'info'\n# \xe2\x82\xac");
}

TEST(ConfigRefuses, KeyTwice) {
  EXPECT_THAT(refusal("log_level='info'\nlog_level='info'\n"), StartsWith("c.toml:2: "));
}

TEST(ConfigRefuses, UnknownTopOption) {
  EXPECT_EQ(refusal("\ninitiatorname = 'x'\n"),
            "c.toml:2: initiatorname is not an option of this file; did you mean initiator_name?");
}

TEST(ConfigRefuses, UnknownSection) {
  EXPECT_EQ(refusal("[default]\nrr_min_io = 1\n"),
            "c.toml:1: default is not an option of this file; did you mean defaults?");
}

TEST(ConfigRefuses, UnknownDefault) {
  EXPECT_EQ(refusal("[defaults]\n\nno_such_thing = 5\n"),
            "c.toml:3: no_such_thing is not an option of [defaults]");
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

TEST(Config, TimersOfIscsidConfUnderBothNamesInMilliseconds) {
  const auto timers = [](const char* text) {
    return accepted(std::string("[defaults]\n") + text).session;
  };
  EXPECT_EQ(timers("abort_timeout = 1.001\n").abort_timeout, milliseconds(1001));
  EXPECT_EQ(timers("node.session.err_timeo.abort_timeout = 2.5\n").abort_timeout,
            milliseconds(2500));
  EXPECT_EQ(timers("lu_reset_timeout = 0.123\n").lu_reset_timeout, milliseconds(123));
  EXPECT_EQ(timers("node.session.err_timeo.lu_reset_timeout = 20\n").lu_reset_timeout, seconds(20));
  EXPECT_EQ(timers("tgt_reset_timeout = 0.25\n").tgt_reset_timeout, milliseconds(250));
  EXPECT_EQ(timers("node.session.err_timeo.tgt_reset_timeout = 31\n").tgt_reset_timeout,
            seconds(31));
  EXPECT_EQ(timers("'node.conn[0].timeo.login_timeout' = 3.5\n").login_timeout, milliseconds(3500));
  EXPECT_EQ(timers("'node.conn[0].timeo.logout_timeout' = 0.5\n").logout_timeout,
            milliseconds(500));
  EXPECT_EQ(timers("'node.conn[0].timeo.noop_out_timeout' = 0.75\n").noop_out_timeout,
            milliseconds(750));
  EXPECT_EQ(timers("command_timeout = 0\n").command_timeout, seconds(0));
  EXPECT_EQ(timers("command_timeout = 12.345\n").command_timeout, milliseconds(12345));
  EXPECT_FALSE(timers("").exclusive_luns);
  EXPECT_TRUE(timers("exclusive_luns = 'Yes'\n").exclusive_luns);
}

TEST(ConfigRefuses, MisspeltDefault) {
  EXPECT_EQ(refusal("[defaults]\nno-path_rety = 'queue'\n"),
            "c.toml:2: no-path_rety is not an option of [defaults]; did you mean no_path_retry?");
  EXPECT_THAT(refusal("[defaults]\ninitialr2t = 'No'\n"), HasSubstr("did you mean InitialR2T?"));
}

TEST(ConfigRefuses, UnknownLongName) {
  EXPECT_EQ(refusal("[defaults]\nnode.session.auth.user = 'me'\n"),
            "c.toml:2: node.session.auth.user is not an option of [defaults]");
}

TEST(ConfigRefuses, SecretThatIsTooShort) {
  const std::string message = refusal("[defaults]\nusername = 'a'\npassword = 'tooshort'\n");
  EXPECT_THAT(message, StartsWith("c.toml:3: node.session.auth: password must have 12"));
  EXPECT_THAT(message, testing::Not(HasSubstr("tooshort")));
}
TEST(ConfigRefuses, OneSecretForBothDirections) {
  EXPECT_THAT(refusal(kChap + "username_in = 'array'\npassword_in = 'initiator-secret'\n"),
              testing::AllOf(StartsWith("c.toml:6: "), HasSubstr("must not be the same"),
                             testing::Not(HasSubstr("initiator-secret"))));
}
TEST(ConfigRefuses, SecretThatIsNoString) {
  EXPECT_EQ(refusal("[defaults]\npassword = 123456789012\n"),
            "c.toml:2: password must be a string, not a whole number");
}
TEST(ConfigRefuses, ChapWithoutAName) {
  EXPECT_THAT(refusal("[defaults]\nauthmethod = 'CHAP'\n"),
              StartsWith("c.toml:2: node.session.auth: CHAP needs a username"));
  EXPECT_THAT(refusal("[defaults]\npassword = 'initiator-secret'\n"), HasSubstr("CHAP needs"));
}
TEST(ConfigRefuses, UnknownAuthmethod) {
  EXPECT_EQ(refusal("[defaults]\nauthmethod = 'SRP'\n"),
            "c.toml:2: authmethod must be \"None\" or \"CHAP\"");
}
TEST(ConfigRefuses, UnknownChapAlgorithm) {
  for (const char* list : {"MD4", "", "SHA256,", "MD5,MD5"}) {
    EXPECT_THAT(refusal(std::string("[defaults]\nchap_algs = '") + list + "'\n"),
                StartsWith("c.toml:2: chap_algs must be a list"));
  }
}
TEST(ConfigRefuses, DiscoveryWithoutMd5) {
  EXPECT_THAT(refusal("[defaults]\n"
                      "discovery.sendtargets.auth.username = 'finder'\n"
                      "discovery.sendtargets.auth.password = 'discovery-secret'\n"
                      "discovery.sendtargets.auth.chap_algs = 'SHA256'\n"),
              StartsWith("c.toml:4: discovery.sendtargets.auth: discovery knows MD5 only"));
}
TEST(ConfigRefuses, UnknownDigest) {
  EXPECT_THAT(refusal("[defaults]\nHeaderDigest = 'CRC32'\n"),
              StartsWith("c.toml:2: HeaderDigest must be \"None\""));
}
TEST(ConfigRefuses, OtherValuesOfKeysWithOneValue) {
  EXPECT_EQ(refusal("[defaults]\nErrorRecoveryLevel = 2\n"),
            "c.toml:2: ErrorRecoveryLevel can only be 0: a lost connection is replaced by a new "
            "session");
  EXPECT_THAT(refusal("[defaults]\nMaxConnections = 2\n"), HasSubstr("nr_sessions"));
  EXPECT_THAT(refusal("[defaults]\nDataPDUInOrder = 'No'\n"), HasSubstr("can only be Yes"));
}
TEST(ConfigRefuses, AliasWithControlCharacters) {
  EXPECT_THAT(refusal("[defaults]\nInitiatorAlias = \"a\\nb\"\n"), HasSubstr("control character"));
}
TEST(ConfigRefuses, BothWaysToNameInterfaces) {
  EXPECT_EQ(refusal("[defaults]\ninterfaces = ['eth1']\niface.ipaddress = '192.0.2.1'\n"),
            "c.toml:3: either interfaces or iface.ipaddress may be set, not both");
}
TEST(ConfigRefuses, WhatIsNoInterface) {
  EXPECT_THAT(refusal("[defaults]\niface.ipaddress = 'host'\n"), HasSubstr("numeric IPv4"));
  EXPECT_THAT(refusal("[defaults]\niface.hwaddress = '52:54'\n"), HasSubstr("hardware address"));
  EXPECT_THAT(refusal("[defaults]\niface.net_ifacename = 'a b'\n"), HasSubstr("network interface"));
  EXPECT_THAT(refusal("[defaults]\ninterfaces = []\n"), HasSubstr("names no interface"));
  EXPECT_THAT(refusal("[defaults]\ninterfaces = ['a', 'a']\n"), HasSubstr("names a twice"));
  EXPECT_THAT(refusal("[defaults]\ninterfaces = [{}]\n"), HasSubstr("needs iface."));
  EXPECT_THAT(refusal("[defaults]\ninterfaces = [{ portal = 'a' }]\n"),
              HasSubstr("not an option of an interface"));
  EXPECT_THAT(refusal("portals = [{ portal = 'a', interface = 'b', iface.net_ifacename = 'c' }]\n"),
              HasSubstr("names a second interface"));
}
TEST(ConfigRefuses, MoreSessionsThanAPortalMayHave) {
  EXPECT_THAT(refusal("[defaults]\nnr_sessions = 9\n"), HasSubstr("from 1 to 8"));
}
TEST(ConfigRefuses, TargetSectionWithoutATargetName) {
  EXPECT_THAT(refusal("[targets.array]\n"), HasSubstr("does not begin with iqn."));
}
TEST(ConfigRefuses, UnknownTargetOption) {
  EXPECT_THAT(refusal("[targets.'iqn.2009-02.com.example:t']\nlun = 1\n"),
              HasSubstr("lun is not an option of a target"));
}

TEST(ConfigSecrets, PasswordsThatOthersMayReadAreRefused) {
  std::string path = (std::filesystem::temp_directory_path() / "config-test-XXXXXX").string();
  const int descriptor = ::mkstemp(path.data());
  ASSERT_GE(descriptor, 0);
  ::close(descriptor);
  std::ofstream(path) << kChap;
  ConfigurationFiles files;
  files.configuration = path;
  EXPECT_TRUE(read_configuration(files));
  for (const mode_t mode : {mode_t{0640}, mode_t{0604}, mode_t{0620}}) {
    ::chmod(path.c_str(), mode);
    const auto refused = read_configuration(files);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("chmod 600"));
  }
  std::ofstream(path) << "[defaults]\n";
  EXPECT_TRUE(read_configuration(files)) << "without passwords it is nobody's business";
  std::filesystem::remove(path);
}

TEST(ConfigRefuses, UnknownLunOption) {
  EXPECT_EQ(refusal(kLun + "portal = '192.0.2.1'\n"),
            "c.toml:4: portal is not an option of a LUN; did you mean portals?");
}

TEST(ConfigRefuses, UnknownPortalOption) {
  EXPECT_EQ(refusal("portals = [\n { portal = 'a', iface = 'eth1' } ]\n"),
            "c.toml:2: iface is not an option of a portal");
}

TEST(ConfigRefuses, SettingAtTheTop) {
  EXPECT_EQ(refusal("no_path_retry = 'queue'\n"),
            "c.toml:1: no_path_retry belongs into [defaults] or [luns.ALIAS]");
}

TEST(ConfigRefuses, TopOptionInSection) {
  EXPECT_THAT(refusal("[defaults]\ninitiator_name = 'iqn.x'\n"),
              StartsWith("c.toml:2: initiator_name does not belong into a section"));
}

TEST(ConfigRefuses, SettingTwiceUnderBothNames) {
  EXPECT_EQ(refusal("[defaults]\ncmds_max = 1\n'node.session.cmds_max' = 2\n"),
            "c.toml:3: cmds_max is set twice, see line 2");
}

TEST(ConfigRefuses, InitiatorNameThatIsNone) {
  EXPECT_THAT(refusal("initiator_name = 'host1'\n"),
              StartsWith("c.toml:1: initiator_name does not begin with iqn., eui. or naa."));
}

TEST(ConfigRefuses, InitiatorNameWithBlank) {
  EXPECT_THAT(refusal("initiator_name = 'iqn.2009-02.com.example:a b'\n"), HasSubstr("blank"));
}

TEST(ConfigRefuses, InitiatorNameTooLong) {
  EXPECT_THAT(refusal("initiator_name = 'iqn." + std::string(300, 'x') + "'\n"),
              HasSubstr("304 bytes"));
}

TEST(ConfigRefuses, InitiatorNameOfWrongType) {
  EXPECT_EQ(refusal("initiator_name = 1\n"),
            "c.toml:1: initiator_name must be a string, not a whole number");
}

TEST(ConfigRefuses, AliasWithControlCharacter) {
  EXPECT_THAT(refusal("initiator_alias = \"a\\nb\"\n"), StartsWith("c.toml:1: initiator_alias"));
}

TEST(ConfigRefuses, UnknownLogLevel) {
  EXPECT_EQ(refusal("log_level = 'verbose'\n"),
            "c.toml:1: log_level must be error, warning, info or debug");
}

TEST(ConfigRefuses, RelativeRunDirectory) {
  EXPECT_THAT(refusal("run_directory = 'run'\n"), HasSubstr("absolute path"));
}

TEST(ConfigRefuses, RingPageOrderTooLarge) {
  EXPECT_EQ(refusal("max_ring_page_order = 5\n"),
            "c.toml:1: max_ring_page_order must be a whole number from 0 to 4, not 5");
}

TEST(ConfigRefuses, PortalsThatAreNoArray) {
  EXPECT_THAT(refusal("portals = '192.0.2.1'\n"), HasSubstr("must be an array"));
}

TEST(ConfigRefuses, NoPortals) {
  EXPECT_EQ(refusal("portals = []\n"), "c.toml:1: portals names no portal");
}

TEST(ConfigRefuses, PortalTwice) {
  EXPECT_EQ(refusal("portals = [ 'a',\n 'a:3260' ]\n"), "c.toml:2: portals names a:3260 twice");
}

TEST(ConfigRefuses, TooManyPortals) {
  std::string text = "portals = [";
  for (int number = 1; number <= 17; ++number) {
    text += "'192.0.2." + std::to_string(number) + "',";
  }
  EXPECT_THAT(refusal(text + "]\n"), HasSubstr("more than 16 portals"));
}

TEST(ConfigRefuses, PortalWithBadPort) {
  EXPECT_THAT(refusal("portals = ['a:99999']\n"),
              HasSubstr("port is not a number from 1 to 65535"));
}

TEST(ConfigRefuses, PortalOfWrongType) {
  EXPECT_THAT(refusal("portals = [3260]\n"), HasSubstr("must be a string \"HOST[:PORT]\""));
}

TEST(ConfigRefuses, PortalTableWithoutPortal) {
  EXPECT_THAT(refusal("portals = [{ interface = 'eth1' }]\n"), HasSubstr("needs portal ="));
}

TEST(ConfigRefuses, InterfaceNameTooLong) {
  EXPECT_THAT(refusal("portals = [{ portal = 'a', interface = 'abcdefghijklmnop' }]\n"),
              HasSubstr("network interface"));
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

TEST(Config, FencesOfTheLogicalUnit) {
  const MultipathOptions options =
      accepted("[defaults]\nfence_settle_time = 2.5\nreservation_key = '0x5A00'\n").multipath;
  EXPECT_EQ(options.fence_settle_time, milliseconds(2500));
  EXPECT_EQ(options.reservation_key, 0x5a00U);
  EXPECT_EQ(accepted("").multipath.reservation_key, 0U);
  EXPECT_EQ(
      accepted("[defaults]\nreservation_key = '0xffffffffffffffff'\n").multipath.reservation_key,
      ~std::uint64_t{0});
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

TEST(ConfigRefuses, SecondsOutOfRange) {
  EXPECT_EQ(refusal("[defaults]\nnoop_out_interval = 4000\n"),
            "c.toml:2: noop_out_interval must be a number of seconds from 0 to 3600, not 4000");
  EXPECT_EQ(refusal("[defaults]\nlogin_timeout = 0.05\n"),
            "c.toml:2: login_timeout must be a number of seconds from 0.1 to 3600, not 0.05");
  EXPECT_THAT(refusal("[defaults]\nlogin_timeout = -1\n"), HasSubstr("not -1"));
}

TEST(ConfigRefuses, SecondsThatAreNoNumber) {
  EXPECT_THAT(refusal("[defaults]\nlogin_timeout = nan\n"), HasSubstr("not nan"));
  EXPECT_THAT(refusal("[defaults]\nlogin_timeout = inf\n"), HasSubstr("not inf"));
  EXPECT_EQ(refusal("[defaults]\nlogin_timeout = '15'\n"),
            "c.toml:2: login_timeout must be a number of seconds, not a string");
}

TEST(ConfigRefuses, WholeNumberOutOfRange) {
  EXPECT_THAT(refusal("[defaults]\nMaxOutstandingR2T = 9\n"), HasSubstr("from 1 to 8, not 9"));
  EXPECT_THAT(refusal("[defaults]\ncmds_max = 9223372036854775807\n"), HasSubstr("from 1 to 4096"));
}

TEST(ConfigRefuses, DecimalWhereWholeNumber) {
  EXPECT_THAT(refusal("[defaults]\nrr_min_io = 1.5\n"), HasSubstr("not a decimal number"));
}

TEST(ConfigRefuses, BadYesNo) {
  EXPECT_THAT(refusal("[defaults]\nInitialR2T = 'maybe'\n"), HasSubstr("\"Yes\" or \"No\""));
  EXPECT_THAT(refusal("[defaults]\nInitialR2T = 1\n"), HasSubstr("not a whole number"));
}

TEST(ConfigRefuses, FirstBurstLongerThanMaxBurst) {
  EXPECT_EQ(refusal("[defaults]\nMaxBurstLength = 4096\nFirstBurstLength = 8192\n"),
            "c.toml:3: FirstBurstLength (8192) must not be greater than MaxBurstLength (4096) "
            "(RFC 7143 13.14)");
}

TEST(ConfigRefuses, LunThatContradictsTheDefaults) {
  EXPECT_THAT(refusal("[defaults]\nFirstBurstLength = 8192\n" + kLun + "MaxBurstLength = 4096\n"),
              StartsWith("c.toml:6: FirstBurstLength"));
}

TEST(ConfigRefuses, BackoffUpsideDown) {
  EXPECT_EQ(refusal("[defaults]\nrelogin_backoff_max = 0.05\n"),
            "c.toml:2: relogin_backoff_min (0.1 s) must not be longer than relogin_backoff_max "
            "(0.05 s)");
}

TEST(ConfigRefuses, ConnectTimeoutBeyondLoginTimeout) {
  EXPECT_THAT(refusal("[defaults]\nlogin_timeout = 1\n"), StartsWith("c.toml:2: connect_timeout"));
}

TEST(ConfigRefuses, StallProbeBeyondPathTimeout) {
  EXPECT_THAT(refusal("[defaults]\npath_timeout = 0.1\n"), StartsWith("c.toml:2: stall_probe"));
}

TEST(ConfigRefuses, DefaultsThatAreNoSection) {
  EXPECT_EQ(refusal("defaults = 1\n"),
            "c.toml:1: defaults must be a section [defaults], not a whole number");
}

TEST(ConfigRefuses, LunThatIsNoSection) {
  EXPECT_THAT(refusal("[luns]\nroot = 'iqn.x'\n"), StartsWith("c.toml:2: root must be a section"));
}

TEST(ConfigRefuses, BadAlias) {
  EXPECT_THAT(refusal("[luns.'a b']\ntarget = 'iqn.x:y'\nlun = 0\n"),
              StartsWith("c.toml:1: a LUN's alias"));
  EXPECT_THAT(refusal("[luns.'iqn.x']\ntarget = 'iqn.x:y'\nlun = 0\n"),
              StartsWith("c.toml:1: a LUN's alias"));
}

TEST(ConfigRefuses, LunWithoutTarget) {
  EXPECT_EQ(refusal("[luns.root]\nlun = 0\n"), "c.toml:1: luns.root has no target = \"iqn...\"");
}

TEST(ConfigRefuses, LunWithoutNumber) {
  EXPECT_EQ(refusal("[luns.root]\ntarget = 'iqn.x:y'\n"),
            "c.toml:1: luns.root has no lun = NUMBER");
}

TEST(ConfigRefuses, LunNumberOutOfRange) {
  EXPECT_THAT(refusal("[luns.root]\nlun = 16384\n"), HasSubstr("from 0 to 16383"));
}

TEST(ConfigRefuses, BadTargetName) {
  EXPECT_THAT(refusal("[luns.root]\ntarget = 'disk'\n"),
              StartsWith("c.toml:2: target does not begin with"));
}

TEST(ConfigRefuses, FileTooLarge) {
  EXPECT_THAT(refusal(std::string(kMaxConfigurationBytes + 1, '#')), HasSubstr("has more than"));
}

TEST(Config, FirstMistakeOfTheFileIsReported) {
  EXPECT_THAT(refusal("log_level = 'x'\nabc = 1\n"), StartsWith("c.toml:1: "));
  EXPECT_THAT(refusal("xyz = 1\nabc = 1\n"), StartsWith("c.toml:1: "));
}

// --- The initiator's name
// --------------------------------------------------------------------------

Result<std::string> name_in(const std::string& text) {
  return parse_initiator_name(text, "i.iscsi");
}

TEST(InitiatorName, OfOpenIscsi) {
  EXPECT_EQ(name_in("## a comment\n# InitiatorName=iqn.no\n InitiatorName = iqn.1993-08.org.debian:"
                    "01:ab \r\n"),
            "iqn.1993-08.org.debian:01:ab");
  EXPECT_EQ(name_in("InitiatorName=eui.02004567A425678D"), "eui.02004567A425678D");
}

TEST(InitiatorName, RefusesFileWithoutAny) {
  EXPECT_EQ(name_in("# nothing\nx\n").error().message, "i.iscsi has no line InitiatorName=");
}

TEST(InitiatorName, RefusesNameNotGeneratedYet) {
  EXPECT_THAT(name_in("# once\nGenerateName=yes\n").error().message,
              StartsWith("i.iscsi:2: GenerateName"));
}

TEST(InitiatorName, RefusesNameThatIsNone) {
  EXPECT_THAT(name_in("\nInitiatorName=host\n").error().message,
              StartsWith("i.iscsi:2: InitiatorName does not begin"));
}

// --- Files
// -----------------------------------------------------------------------------------------

class ConfigFiles : public testing::Test {
 protected:
  ConfigFiles() {
    std::string pattern = testing::TempDir() + "config-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    files_.configuration = folder_ / "iscsi-blkback.toml";
    files_.initiator_name = folder_ / "initiatorname.iscsi";
  }
  ~ConfigFiles() override { std::filesystem::remove_all(folder_); }

  static void write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }

  std::filesystem::path folder_;
  ConfigurationFiles files_;
};

TEST_F(ConfigFiles, MissingFileMeansDefaults) {
  write(files_.initiator_name, "InitiatorName=iqn.x:host\n");
  const auto configuration = load_configuration(files_);
  ASSERT_TRUE(configuration) << configuration.error().message;
  EXPECT_EQ(configuration->initiator_name, "iqn.x:host");
  EXPECT_EQ(configuration->session.initiator_name, "iqn.x:host");
}

TEST_F(ConfigFiles, MissingFileThatWasNamedIsRefused) {
  write(files_.initiator_name, "InitiatorName=iqn.x:host\n");
  files_.must_exist = true;
  const auto configuration = load_configuration(files_);
  ASSERT_FALSE(configuration);
  EXPECT_THAT(configuration.error().message, HasSubstr("iscsi-blkback.toml: No such file"));
}

TEST_F(ConfigFiles, FolderInsteadOfFileIsRefused) {
  std::filesystem::create_directory(files_.configuration);
  EXPECT_THAT(read_configuration(files_).error().message, HasSubstr("Is a directory"));
}

TEST_F(ConfigFiles, OwnNameComesFirst) {
  write(files_.configuration, "initiator_name = 'iqn.x:own'\n");
  write(files_.initiator_name, "InitiatorName=iqn.x:other\n");
  EXPECT_EQ(load_configuration(files_)->initiator_name, "iqn.x:own");
}

TEST_F(ConfigFiles, NameReachesTheLuns) {
  write(files_.configuration, kLun);
  write(files_.initiator_name, "InitiatorName=iqn.x:host\n");
  EXPECT_EQ(load_configuration(files_)->luns.at("root").session.initiator_name, "iqn.x:host");
}

TEST_F(ConfigFiles, NoInitiatorNameAnywhereIsRefused) {
  const auto configuration = load_configuration(files_);
  ASSERT_FALSE(configuration);
  EXPECT_THAT(configuration.error().message, StartsWith("there is no initiator name: "));
  EXPECT_THAT(configuration.error().message, HasSubstr("initiatorname.iscsi: No such file"));
}

// --- Documentation
// ---------------------------------------------------------------------------------

std::string source_file(const std::string& name) {
  std::ifstream file(std::string(ISCSI_BLKBACK_SOURCE_FOLDER) + "/tools/" + name);
  EXPECT_TRUE(file.good()) << name;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(ConfigDocumentation, ManPageHasEveryOption) {
  const std::string page = source_file("iscsi-blkback.toml.5");
  for (const std::string_view name : configuration_settings()) {
    EXPECT_THAT(page, HasSubstr(std::string(name)));
  }
}

TEST(ConfigDocumentation, ExampleHasEveryOption) {
  const std::string example = source_file("iscsi-blkback.toml");
  for (const std::string_view name : configuration_settings()) {
    EXPECT_THAT(example, HasSubstr("\n#" + std::string(name) + " = "));
  }
}

TEST(ConfigDocumentation, ExampleAsInstalledIsAllDefaults) {
  const Configuration configuration = accepted(source_file("iscsi-blkback.toml"));
  EXPECT_TRUE(configuration.luns.empty());
  EXPECT_TRUE(configuration.discovery_portals.empty());
}

// What stands commented out is either the default or an example, and can be used as it is.
TEST(ConfigDocumentation, ExampleWithEverythingUncommentedIsTheDefaultsToo) {
  std::istringstream lines(source_file("iscsi-blkback.toml"));
  std::string text;
  for (std::string line; std::getline(lines, line);) {
    const bool option = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    text += (option ? line.substr(1) : line) + "\n";
  }
  const Configuration configuration = accepted(text);
  ASSERT_EQ(configuration.luns.size(), 1U);
  EXPECT_EQ(configuration.discovery_portals.size(), 2U);
  EXPECT_EQ(configuration.max_ring_page_order, Configuration{}.max_ring_page_order);
  EXPECT_EQ(configuration.run_directory, Configuration{}.run_directory);
  const MultipathOptions& multipath = configuration.multipath;
  EXPECT_EQ(multipath.path_grouping_policy, PathPolicies{}.path_grouping_policy);
  EXPECT_EQ(multipath.path_selector, PathPolicies{}.path_selector);
  EXPECT_EQ(multipath.rr_min_io, PathPolicies{}.rr_min_io);
  EXPECT_EQ(multipath.no_path_retry.value(), PathPolicies{}.no_path_retry);
  EXPECT_EQ(multipath.fence_settle_time, MultipathOptions{}.fence_settle_time);
  EXPECT_EQ(multipath.polling_interval, MultipathOptions{}.polling_interval);
  EXPECT_EQ(multipath.checker_timeout, MultipathOptions{}.checker_timeout);
  EXPECT_EQ(multipath.quiesce_time, MultipathOptions{}.quiesce_time);
  const SessionOptions& session = configuration.session;
  const SessionOptions defaults;
  EXPECT_EQ(session.login_timeout, defaults.login_timeout);
  EXPECT_EQ(session.logout_timeout, defaults.logout_timeout);
  EXPECT_EQ(session.noop_out_interval, defaults.noop_out_interval);
  EXPECT_EQ(session.noop_out_timeout, defaults.noop_out_timeout);
  EXPECT_EQ(session.max_commands, defaults.max_commands);
  EXPECT_EQ(session.initial_r2t, defaults.initial_r2t);
  EXPECT_EQ(session.immediate_data, defaults.immediate_data);
  EXPECT_EQ(session.first_burst_length, defaults.first_burst_length);
  EXPECT_EQ(session.max_burst_length, defaults.max_burst_length);
  EXPECT_EQ(session.max_recv_data_segment_length, defaults.max_recv_data_segment_length);
  EXPECT_EQ(session.max_outstanding_r2t, defaults.max_outstanding_r2t);
  EXPECT_EQ(session.default_time2wait, defaults.default_time2wait);
  EXPECT_EQ(session.default_time2retain, defaults.default_time2retain);
  EXPECT_EQ(session.connect_timeout, defaults.connect_timeout);
  EXPECT_EQ(session.stall_probe, defaults.stall_probe);
  EXPECT_EQ(session.path_timeout, defaults.path_timeout);
  EXPECT_EQ(session.tcp_user_timeout, defaults.tcp_user_timeout);
  EXPECT_EQ(session.relogin_backoff_min, defaults.relogin_backoff_min);
  EXPECT_EQ(session.relogin_backoff_max, defaults.relogin_backoff_max);
}

}  // namespace
}  // namespace iscsi_blkback
