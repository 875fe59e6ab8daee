// The configuration file: what it may say.
#include <vector>

#include "base/printable_text.h"
#include "multipath/path/pr_registration.h"
#include "tests/tools/config/config_text.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::StartsWith;

TEST(Config, EmptyFileIsAllDefaults) {
  const Configuration configuration = accepted("");
  EXPECT_EQ(configuration.initiator_name, "");
  EXPECT_EQ(configuration.session.noop_out_interval, SessionOptions{}.noop_out_interval);
  EXPECT_EQ(configuration.multipath.no_path_retry, std::nullopt);
  EXPECT_EQ(configuration.run_directory, "/run/iscsi-blkback");
  EXPECT_EQ(configuration.state_directory, "/var/lib/iscsi-blkback");
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
      "state_directory = '/var/other'\n"
      "max_ring_page_order = 0\n"
      "max_queues = 1\n"
      "reactors = 3\n"
      "poll_max_us = 50\n"
      "poll_cpu_share = 20\n"
      "max_indirect_segments = 0\n"
      "max_buffers_mb = 16\n"
      "sandbox = false\n"
      "first_guest_user = 700000\n");
  EXPECT_EQ(configuration.initiator_name, "iqn.2009-02.com.example:host");
  EXPECT_EQ(configuration.session.initiator_name, configuration.initiator_name);
  EXPECT_EQ(configuration.session.initiator_alias, "a host");
  const std::vector<Portal> portals = {
      {"192.0.2.1", 3260, {}}, {"2001:db8::1", 3261, {}}, {"san1", 3262, {.name = "eth1"}}};
  EXPECT_EQ(configuration.discovery_portals, portals);
  EXPECT_EQ(configuration.log_level, "debug");
  EXPECT_EQ(configuration.run_directory, "/run/other");
  EXPECT_EQ(configuration.state_directory, "/var/other");
  EXPECT_EQ(configuration.max_ring_page_order, 0U);
  EXPECT_EQ(configuration.max_queues, 1U);
  EXPECT_EQ(configuration.reactors, 3U);
  EXPECT_EQ(configuration.poll_max_us, 50U);
  EXPECT_EQ(configuration.poll_cpu_share, 20U);
  EXPECT_EQ(configuration.max_indirect_segments, 0U);
  EXPECT_EQ(configuration.max_buffers_mb, 16U);
  EXPECT_TRUE(Configuration{}.sandbox);
  EXPECT_FALSE(configuration.sandbox);
  EXPECT_EQ(configuration.first_guest_user, 700000U);
}

TEST(Config, PortalsAsIscsiadmPrintsThem) {
  const Configuration configuration = accepted(
      "portals = ['192.0.2.1:3260,1', '[fe80::1%eth1]:3260,2', '2001:db8::1', "
      "{ portal = 'fe80::2%eth1', interface = 'eth1' }]\n"
      "[luns.data]\ntarget = 'iqn.a:b'\nlun = 1\nportals = ['[2001:db8::2],4294967295']\n");
  const std::vector<Portal> portals = {{"192.0.2.1", 3260, {}},
                                       {"fe80::1%eth1", 3260, {}},
                                       {"2001:db8::1", 3260, {}},
                                       {"fe80::2%eth1", 3260, {.name = "eth1"}}};
  EXPECT_EQ(configuration.discovery_portals, portals);
  const std::vector<Portal> of_lun = {{"2001:db8::2", 3260, {}}};
  EXPECT_EQ(configuration.luns.at("data").portals, of_lun);
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
                                     "MaxBurstLength = 131072\n"
                                     "MaxOutstandingR2T = 8\n")
                                     .session;
  EXPECT_EQ(options.login_timeout, seconds(20));
  EXPECT_EQ(options.noop_out_interval, seconds(0));
  EXPECT_EQ(options.noop_out_timeout, milliseconds(250));
  EXPECT_EQ(options.max_commands, 128);
  EXPECT_TRUE(options.initial_r2t);
  EXPECT_FALSE(options.immediate_data);
  EXPECT_EQ(options.first_burst_length, 65536U);
  EXPECT_EQ(options.max_burst_length, 131072U);
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

// The zone's interface may come after the service.
TEST(Config, AnAddressOfAnInterfaceThatIsNotThereYet) {
  const Configuration configuration =
      accepted("[defaults]\niface.ipaddress = 'fe80::1%not-there'\n");
  const std::vector<InterfaceBinding> one = {{.address = "fe80::1%not-there"}};
  EXPECT_EQ(configuration.paths.interfaces, one);
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

TEST(Config, WwidOfALun) {
  EXPECT_EQ(accepted(kLun + "wwid = '36001405ABCDEF'\n").luns.at("root").multipath.wwid,
            "36001405abcdef");
  EXPECT_EQ(accepted(kLun).luns.at("root").multipath.wwid, std::nullopt);
  // As it is shown, whatever bytes it has, up to the longest.
  for (const std::string& bytes :
       {std::string("A\x1b\xff\\\"#"), std::string("\\x1b"), std::string(255, '\x80')}) {
    const std::string shown = "1" + printable_identity(bytes);
    EXPECT_EQ(accepted(kLun + "wwid = '" + shown + "'\n").luns.at("root").multipath.wwid, shown);
  }
  EXPECT_EQ(accepted(kLun + "wwid = \"1A\\u001b\"\n").luns.at("root").multipath.wwid, "1A\\x1b");
}

TEST(Config, DefaultsMayStandBehindTheLuns) {
  EXPECT_EQ(accepted(kLun + "[defaults]\nrr_min_io = 9\n").luns.at("root").multipath.rr_min_io, 9U);
}

TEST(Config, CommentsInAnyLanguage) {
  accepted("  # gr\xc3\xbc\xc3\x9f \xff\nlog_level = 'info'\n# \xe2\x82\xac");
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
}

TEST(Config, FencesOfTheLogicalUnit) {
  const MultipathOptions options =
      accepted("[defaults]\nfence_settle_time = 2.5\nreservation_key = '0x5A00'\n").multipath;
  EXPECT_EQ(options.fence_settle_time, milliseconds(2500));
  EXPECT_EQ(options.reservation_key, 0x5a00U);
  EXPECT_FALSE(options.exclusive_luns);
  EXPECT_FALSE(options.redirected_login_fences);
  EXPECT_TRUE(accepted("[defaults]\nexclusive_luns = 'Yes'\n").multipath.exclusive_luns);
  EXPECT_TRUE(
      accepted("[defaults]\nredirected_login_fences = 'Yes'\n").multipath.redirected_login_fences);
  EXPECT_EQ(accepted("").multipath.reservation_key, 0U);
  EXPECT_EQ(accepted("[defaults]\nreservation_key = '0xffffff'\n").multipath.reservation_key,
            PrRegistration::kMaxHostKey);
  EXPECT_EQ(accepted("").multipath.portal_group_fences, std::nullopt);
  for (const auto& [word, fences] :
       {std::pair("'Yes'", PortalGroupFences::yes), std::pair("true", PortalGroupFences::yes),
        std::pair("'No'", PortalGroupFences::no), std::pair("'Trial'", PortalGroupFences::trial)}) {
    EXPECT_EQ(accepted(std::string("[defaults]\nportal_group_fences = ") + word + "\n")
                  .multipath.portal_group_fences,
              fences)
        << word;
  }
  // The default fence_settle_time is longer.
  accepted("[defaults]\nquiesce_time = 5\n");
}

TEST(Config, FirstMistakeOfTheFileIsReported) {
  EXPECT_THAT(refusal("log_level = 'x'\nabc = 1\n"), StartsWith("c.toml:1: "));
  EXPECT_THAT(refusal("xyz = 1\nabc = 1\n"), StartsWith("c.toml:1: "));
}

// Arrays that have a target name for each controller.
TEST(Config, ALunOfSeveralTargetNames) {
  const Configuration configuration = accepted(
      "[luns.data]\ntarget = ['iqn.a:a', 'iqn.a:b']\nlun = 1\n"
      "portals = ['one', { portal = 'two', target = 'iqn.a:b' }]\n"
      "[luns.discovered]\ntarget = ['iqn.a:a', 'iqn.a:b', 'iqn.a:c']\nlun = 2\n"
      "[targets.'iqn.a:a']\nlogin_timeout = 7\n");
  const ConfiguredLun& data = configuration.luns.at("data");
  EXPECT_EQ(data.target_name, "iqn.a:a");
  ASSERT_EQ(data.portals.size(), 2U);
  EXPECT_EQ(data.portals[0].target_name, "");
  EXPECT_EQ(data.portals[1].target_name, "iqn.a:b");
  EXPECT_EQ(data.session.login_timeout, std::chrono::seconds(7)) << "of its first target";
  EXPECT_EQ(configuration.luns.at("discovered").other_target_names,
            (std::vector<std::string>{"iqn.a:b", "iqn.a:c"}));
}

TEST(Config, ATargetNameInOtherLettersIsTheSameName) {
  const std::string of_target = "[targets.'iqn.a:One']\nlogin_timeout = 7\n";
  for (const char* name :
       {"'iqn.a:One'", "'iqn.a:one'", "'IQN.A:ONE'", "['IQN.a:one', 'iqn.a:b']"}) {
    const Configuration configuration =
        accepted(of_target + "[luns.data]\nlun = 1\ntarget = " + name + "\n");
    EXPECT_EQ(configuration.luns.at("data").session.login_timeout, std::chrono::seconds(7)) << name;
  }
  const Configuration exact = accepted(
      of_target +
      "[targets.'iqn.a:one']\nlogin_timeout = 8\n"
      "[luns.data]\nlun = 1\ntarget = 'iqn.a:one'\n[luns.same]\nlun = 2\ntarget = 'iqn.a:One'\n");
  EXPECT_EQ(exact.luns.at("data").session.login_timeout, std::chrono::seconds(8));
  EXPECT_EQ(exact.luns.at("same").session.login_timeout, std::chrono::seconds(7));
  EXPECT_THAT(refusal("[luns.data]\nlun = 1\ntarget = ['iqn.a:one', 'iqn.A:ONE']\n"),
              HasSubstr("iqn.A:ONE twice"));
  accepted(
      "[luns.data]\nlun = 1\ntarget = ['iqn.a:a', 'iqn.a:B']\n"
      "portals = ['one', { portal = 'two', target = 'iqn.A:b' }]\n");
}

}  // namespace
}  // namespace iscsi_blkback
