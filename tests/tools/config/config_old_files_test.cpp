// What the files of open-iscsi and multipath-tools say, line by line, is taken or refused with its
// reason: nobody is to learn from "not an option" that a line has done nothing for years.
#include "tests/tools/config/config_text.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using testing::AnyOf;
using testing::HasSubstr;

struct OldLine {
  const char* name;   // as the file has it
  const char* value;  // as TOML has it
};

void PrintTo(const OldLine& line, std::ostream* out) {
  *out << line.name;
}

// Debian 12's iscsid.conf (open-iscsi 2.1.8), commented lines too, and what its node, discovery and
// interface records have besides.
constexpr OldLine kIscsidConf[] = {
    {"iscsid.startup", "'/bin/systemctl start iscsid.socket'"},
    {"iscsid.safe_logout", "'Yes'"},
    {"iscsid.ipc_auth_uid", "'Yes'"},
    {"node.startup", "'manual'"},
    {"node.leading_login", "'No'"},
    {"node.session.auth.authmethod", "'None'"},
    {"node.session.auth.chap_algs", "'SHA3-256,SHA256,SHA1,MD5'"},
    {"discovery.sendtargets.auth.authmethod", "'None'"},
    {"node.session.timeo.replacement_timeout", "120"},
    {"node.conn[0].timeo.login_timeout", "15"},
    {"node.conn[0].timeo.logout_timeout", "15"},
    {"node.conn[0].timeo.noop_out_interval", "5"},
    {"node.conn[0].timeo.noop_out_timeout", "5"},
    {"node.conn[0].timeo.auth_timeout", "45"},
    {"node.conn[0].timeo.active_timeout", "30"},
    {"node.session.err_timeo.abort_timeout", "15"},
    {"node.session.err_timeo.lu_reset_timeout", "30"},
    {"node.session.err_timeo.tgt_reset_timeout", "30"},
    {"node.session.err_timeo.host_reset_timeout", "60"},
    {"node.session.initial_login_retry_max", "8"},
    {"node.session.cmds_max", "128"},
    {"node.session.queue_depth", "32"},
    {"node.session.xmit_thread_priority", "-20"},
    {"node.session.iscsi.InitialR2T", "'No'"},
    {"node.session.iscsi.ImmediateData", "'Yes'"},
    {"node.session.iscsi.FirstBurstLength", "262144"},
    {"node.session.iscsi.MaxBurstLength", "16776192"},
    {"node.conn[0].iscsi.MaxRecvDataSegmentLength", "262144"},
    {"node.conn[0].iscsi.MaxXmitDataSegmentLength", "0"},
    {"discovery.sendtargets.iscsi.MaxRecvDataSegmentLength", "32768"},
    {"node.conn[0].iscsi.HeaderDigest", "'None'"},
    {"node.conn[0].iscsi.DataDigest", "'None'"},
    {"node.conn[0].iscsi.IFMarker", "'No'"},
    {"node.conn[0].iscsi.OFMarker", "'No'"},
    {"node.session.nr_sessions", "1"},
    {"node.session.reopen_max", "0"},
    {"node.session.iscsi.FastAbort", "'Yes'"},
    {"node.session.scan", "'auto'"},
    {"node.session.iscsi.DefaultTime2Wait", "2"},
    {"node.session.iscsi.DefaultTime2Retain", "0"},
    {"node.session.iscsi.MaxConnections", "1"},
    {"node.session.iscsi.MaxOutstandingR2T", "1"},
    {"node.session.iscsi.ERL", "0"},
    {"node.session.initial_cmdsn", "0"},
    {"node.session.boot_root", "'No'"},
    {"node.boot_lun", "'0'"},
    {"node.transport_name", "'tcp'"},
    {"node.name", "'iqn.2009-02.com.example:t'"},
    {"node.tpgt", "1"},
    {"node.discovery_address", "'192.0.2.1'"},
    {"node.discovery_port", "3260"},
    {"node.discovery_type", "'send_targets'"},
    {"node.conn[0].address", "'192.0.2.1'"},
    {"node.conn[0].port", "3260"},
    {"node.conn[0].startup", "'manual'"},
    {"node.conn[0].tcp.window_size", "524288"},
    {"node.conn[0].tcp.type_of_service", "0"},
    {"discovery.startup", "'manual'"},
    {"discovery.type", "'sendtargets'"},
    {"discovery.sendtargets.address", "'192.0.2.1'"},
    {"discovery.sendtargets.port", "3260"},
    {"discovery.sendtargets.use_discoveryd", "'No'"},
    {"discovery.sendtargets.discoveryd_poll_inval", "30"},
    {"discovery.sendtargets.reopen_max", "5"},
    {"discovery.sendtargets.timeo.login_timeout", "15"},
    {"discovery.sendtargets.timeo.auth_timeout", "45"},
    {"discovery.sendtargets.timeo.active_timeout", "30"},
    {"discovery.isns.use_discoveryd", "'No'"},
    {"discovery.isns.discoveryd_poll_inval", "30"},
    {"isns.address", "'192.0.2.1'"},
    {"isns.port", "3205"},
    {"iface.iscsi_ifacename", "'default'"},
    {"iface.transport_name", "'tcp'"},
    {"iface.initiatorname", "'iqn.2009-02.com.example:h'"},
    {"iface.mtu", "0"},
    {"iface.vlan_id", "0"},
    {"iface.port", "0"},
    {"iface.bootproto", "'dhcp'"},
    {"iface.subnet_mask", "'255.255.255.0'"},
    {"iface.gateway", "'192.0.2.254'"},
    {"iface.prefix_len", "64"},
    {"iface.vlan_state", "'disable'"},
    {"iface.def_task_mgmt_timeout", "0"},
};

// `multipath -t` of 0.9.4 and 0.11.1, and what multipath.conf(5) has besides.
constexpr OldLine kMultipathConf[] = {
    {"verbosity", "2"},
    {"polling_interval", "5"},
    {"max_polling_interval", "20"},
    {"reassign_maps", "'no'"},
    {"multipath_dir", "'/lib/multipath'"},
    {"path_selector", "'service-time 0'"},
    {"path_grouping_policy", "'failover'"},
    {"uid_attribute", "'ID_SERIAL'"},
    {"uid_attrs", "'sd:ID_SERIAL'"},
    {"prio", "'const'"},
    {"prio_args", "''"},
    {"features", "'0'"},
    {"path_checker", "'tur'"},
    {"alias_prefix", "'mpath'"},
    {"failback", "'manual'"},
    {"rr_min_io", "1000"},
    {"rr_min_io_rq", "1"},
    {"max_fds", "'max'"},
    {"rr_weight", "'uniform'"},
    {"no_path_retry", "'fail'"},
    {"queue_without_daemon", "'no'"},
    {"checker_timeout", "30"},
    {"allow_usb_devices", "'no'"},
    {"flush_on_last_del", "'no'"},
    {"user_friendly_names", "'no'"},
    {"fast_io_fail_tmo", "5"},
    {"dev_loss_tmo", "600"},
    {"eh_deadline", "10"},
    {"bindings_file", "'/etc/multipath/bindings'"},
    {"wwids_file", "'/etc/multipath/wwids'"},
    {"prkeys_file", "'/etc/multipath/prkeys'"},
    {"log_checker_err", "'always'"},
    {"all_tg_pt", "'no'"},
    {"retain_attached_hw_handler", "'yes'"},
    {"detect_prio", "'yes'"},
    {"detect_checker", "'yes'"},
    {"detect_pgpolicy", "'yes'"},
    {"detect_pgpolicy_use_tpg", "'no'"},
    {"force_sync", "'no'"},
    {"strict_timing", "'no'"},
    {"deferred_remove", "'no'"},
    {"partition_delimiter", "''"},
    {"config_dir", "'/etc/multipath/conf.d'"},
    {"delay_watch_checks", "'no'"},
    {"delay_wait_checks", "'no'"},
    {"san_path_err_threshold", "'no'"},
    {"san_path_err_forget_rate", "'no'"},
    {"san_path_err_recovery_time", "'no'"},
    {"marginal_path_err_sample_time", "'no'"},
    {"marginal_path_err_rate_threshold", "'no'"},
    {"marginal_path_err_recheck_gap_time", "'no'"},
    {"marginal_path_double_failed_time", "'no'"},
    {"marginal_pathgroups", "'off'"},
    {"find_multipaths", "'strict'"},
    {"find_multipaths_timeout", "-10"},
    {"uxsock_timeout", "4000"},
    {"retrigger_tries", "0"},
    {"retrigger_delay", "10"},
    {"missing_uev_wait_timeout", "30"},
    {"uev_wait_timeout", "30"},
    {"skip_kpartx", "'no'"},
    {"disable_changed_wwids", "'yes'"},
    {"remove_retries", "0"},
    {"max_sectors_kb", "0"},
    {"max_retries", "0"},
    {"ghost_delay", "'no'"},
    {"enable_foreign", "'NONE'"},
    {"recheck_wwid", "'no'"},
    {"unpriv_sgio", "'no'"},
    {"hw_str_match", "'no'"},
    {"auto_resize", "'never'"},
    {"purge_disconnected", "'no'"},
    {"reservation_key", "'0x5a00'"},
    {"hardware_handler", "'1 alua'"},
    {"vpd_vendor", "'hp3par'"},
    {"product_blacklist", "'Universal Xport'"},
    {"pg_timeout", "'none'"},
    {"getuid_callout", "'/lib/udev/scsi_id'"},
    {"prio_callout", "'/sbin/mpath_prio_alua'"},
    {"default_selector", "'round-robin 0'"},
    {"udev_dir", "'/dev'"},
    {"selector", "'round-robin 0'"},
    {"pg_prio_calc", "'avg'"},
    {"mode", "'0644'"},
    {"uid", "0"},
    {"gid", "0"},
    {"authmethod", "'None'"},
};

class OldLines : public testing::TestWithParam<OldLine> {};

TEST_P(OldLines, IsTakenOrRefusedWithItsReason) {
  const OldLine& line = GetParam();
  const std::string said =
      refusal(std::string("[defaults]\n'") + line.name + "' = " + line.value + "\n");
  EXPECT_THAT(said, AnyOf("accepted", HasSubstr("has no meaning here: "),
                          HasSubstr(std::string(line.name) + " is for ")));
}

std::string name_of(const testing::TestParamInfo<OldLine>& test) {
  std::string name = test.param.name;
  std::replace_if(
      name.begin(), name.end(),
      [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(IscsidConf, OldLines, testing::ValuesIn(kIscsidConf), name_of);
INSTANTIATE_TEST_SUITE_P(MultipathConf, OldLines, testing::ValuesIn(kMultipathConf), name_of);

class OldSections : public testing::TestWithParam<const char*> {};

TEST_P(OldSections, IsRefusedWithItsReason) {
  for (const char* text : {"[{}]\nvendor = 'A'\n", "[[{}]]\nvendor = 'A'\n"}) {
    std::string section = text;
    section.replace(section.find("{}"), 2, GetParam());
    EXPECT_THAT(refusal(section), HasSubstr("has no meaning here: ")) << section;
  }
}

INSTANTIATE_TEST_SUITE_P(Names, OldSections,
                         testing::Values("devices", "multipaths", "multipath", "overrides",
                                         "protocol", "blacklist", "blacklist_exceptions"));

// Pasted as they are, without a section.
TEST(OldLinesAtTheTop, AreRefusedWithThePlaceWhereTheyBelongOrTheirReason) {
  for (const char* text :
       {"node.session.cmds_max = 128\n", "'node.session.cmds_max' = 128\n",
        "discovery.sendtargets.auth.authmethod = 'None'\n", "[node.session]\ncmds_max = 128\n",
        "node.session.iscsi.InitialR2T = 'No'\n", "no_path_retry = 'queue'\n"}) {
    EXPECT_THAT(refusal(text), HasSubstr("belongs into [defaults]")) << text;
  }
  for (const char* text :
       {"node.startup = 'manual'\n", "iscsid.safe_logout = 'Yes'\n", "isns.port = 3205\n",
        "iface.transport_name = 'tcp'\n", "node.session.timeo.replacement_timeout = 120\n",
        "[node]\nstartup = 'manual'\n", "user_friendly_names = 'yes'\n"}) {
    EXPECT_THAT(refusal(text), HasSubstr("has no meaning here: ")) << text;
  }
  EXPECT_THAT(refusal("node.frobnicate = 1\n"), HasSubstr("node is not an option of this file"));
  EXPECT_EQ(refusal("node.conn[0].timeo.login_timeout = 15\n"),
            "c.toml:1:1: a name with brackets must stand in quotation marks: "
            "\"node.conn[0].timeo.login_timeout\" = ...");
  EXPECT_EQ(refusal("node.startup = manual\n"),
            "c.toml:1:16: the text behind node.startup must stand in quotation marks: node.startup "
            "= \"...\"");
  EXPECT_EQ(refusal("defaults {\n  polling_interval 5\n}\n"),
            "c.toml:1:1: a section begins with [NAME], and has no { and }");
}

// multipath.conf has it in a device's section.
TEST(OldLinesOfADevice, AreRefusedWithThePlaceWhereTheyBelong) {
  for (const char* line : {"marginal_path_err_recheck_gap_time = 12", "polling_interval = 5",
                           "checker_timeout = 30", "marginal_path_double_failed_time = 'no'"}) {
    EXPECT_THAT(refusal(std::string("[[device]]\nvendor = 'A'\n") + line + "\n"),
                HasSubstr("it belongs into [defaults]"))
        << line;
  }
}

TEST(OldValues, AsTheOldToolsTakeThem) {
  const std::string chap = kChap + "node.session.auth.chap_algs = ";
  const std::vector<ChapAlgorithm> both = {ChapAlgorithm::sha256, ChapAlgorithm::md5};
  for (const char* list : {"'SHA256,MD5'", "'SHA256, MD5'", "' SHA256 , MD5 '"}) {
    EXPECT_EQ(accepted(chap + list + "\n").session.chap.algorithms, both) << list;
  }
  EXPECT_NE(refusal(chap + "'SHA256,'\n"), "accepted");
  EXPECT_NE(refusal(chap + "'SHA 256'\n"), "accepted");
  for (const char* features :
       {"2 queue_if_no_path retain_attached_hw_handler",
        "4 retain_attached_hw_handler queue_if_no_path pg_init_retries 50"}) {
    const Configuration configuration =
        accepted(std::string("[defaults]\nfeatures = '") + features + "'\n");
    EXPECT_EQ(configuration.multipath.no_path_retry,
              std::optional<std::optional<milliseconds>>(std::optional<milliseconds>()));
  }
  EXPECT_EQ(refusal("[defaults]\nfeatures = '1 retain_attached_hw_handler'\n"), "accepted");
  EXPECT_THAT(refusal("[defaults]\nfeatures = '2 queue_mode bio'\n"),
              HasSubstr("has no meaning here: "));
}

TEST(OldValues, ZeroAndNoAreTakenAsMultipathToolsTakeThem) {
  EXPECT_EQ(accepted("[defaults]\nfailback = 0\n").multipath.failback, Failback{});
  EXPECT_EQ(accepted("[defaults]\nfailback = '0'\n").multipath.failback, Failback{});
  for (const char* fail : {"0", "'0'", "'fail'", "'0s'"}) {
    const auto wait =
        accepted(std::string("[defaults]\nno_path_retry = ") + fail + "\n").multipath.no_path_retry;
    ASSERT_TRUE(wait && *wait) << fail;
    EXPECT_EQ(**wait, milliseconds(0)) << fail;
  }
  EXPECT_EQ(accepted("[defaults]\nmarginal_path_double_failed_time = 'no'\n")
                .multipath.marginal.double_failed_time,
            milliseconds(0));
  EXPECT_EQ(**accepted("[defaults]\nno_path_retry = '2.5s'\n").multipath.no_path_retry,
            milliseconds(2500));
  EXPECT_TRUE(accepted("[defaults]\nprio = 'alua'\nprio_args = ''\n").multipath.prio);
}

TEST(OldValues, OnesThatMeanSomethingElseThereAreRefused) {
  for (const char* line :
       {"no_path_retry = -1", "no_path_retry = 1.5", "no_path_retry = 'Queue'", "failback = -1",
        "failback = 1.5", "failback = '10s'", "polling_interval = 0", "polling_interval = '5'",
        "rr_min_io = 0", "cmds_max = '64k'", "FirstBurstLength = '256k'", "InitialR2T = 'off'",
        "HeaderDigest = 'crc32c'", "authmethod = 'chap'", "path_selector = ''"}) {
    EXPECT_NE(refusal(std::string("[defaults]\n") + line + "\n"), "accepted") << line;
  }
}

}  // namespace
}  // namespace iscsi_blkback
