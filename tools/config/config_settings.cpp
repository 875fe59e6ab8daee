#include "tools/config/config_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <utility>
#include <vector>

#include "base/log.h"
#include "multipath/attach/disk_target.h"
#include "multipath/path/path_key.h"

namespace iscsi_blkback {
namespace {

using Milliseconds = std::chrono::milliseconds;

constexpr std::uint32_t kMaxSegment = 0xffffff;  // RFC 7143 13.12 to 13.14: 512 to 2**24-1
constexpr Milliseconds kHour{3600 * 1000};

Result<void> read_auto_resize(std::string_view word, MultipathOptions& options) {
  if (word == "grow_shrink") {
    return fail(
        ErrorCode::invalid_argument,
        "auto_resize may be \"grow_only\" or \"never\": a disk that shrinks under a running "
        "guest loses what the guest has behind the new end");
  }
  if (word != "grow_only" && word != "never") {
    return fail(ErrorCode::invalid_argument, "auto_resize is neither \"grow_only\" nor \"never\"");
  }
  options.grows = word == "grow_only";
  return {};
}

// One of the words that kParse knows.
template <auto kParse, auto kMember>
Result<void> read_word(std::string_view word, MultipathOptions& options) {
  const auto value = kParse(word);
  if (!value) {
    return tl::unexpected(value.error());
  }
  options.*kMember = *value;
  return {};
}

Result<void> read_path_checker(std::string_view word, MultipathOptions& options) {
  const auto kind = path_checker_named(word);
  if (!kind) {
    return fail(ErrorCode::invalid_argument,
                "path_checker is none of tur, directio, rdac and none");
  }
  if (word != to_string(*kind)) {
    log_warning("config", "path_checker \"{}\" is the old name of \"{}\"", word, to_string(*kind));
  }
  options.path_checker = *kind;
  return {};
}

// multipath.conf also has "file", and flags behind the number.
Result<void> read_reservation_key(std::string_view word, MultipathOptions& options) {
  const bool has_prefix = word.starts_with("0x") || word.starts_with("0X");
  const std::string_view digits = has_prefix ? word.substr(2) : std::string_view();
  std::uint64_t key = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), key, 16);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size() || key == 0 ||
      key > PathKey::kMaxHostKey) {
    return fail(ErrorCode::invalid_argument,
                "reservation_key is no hexadecimal number like \"0x5a00\" of 1 to 6 digits, not "
                "all 0: the rest of a key tells the host's paths apart");
  }
  options.reservation_key = key;
  return {};
}

Result<void> read_no_space(std::string_view word, MultipathOptions& options) {
  if (word != "hold" && word != "fail") {
    return fail(ErrorCode::invalid_argument, "no_space is neither \"hold\" nor \"fail\"");
  }
  options.no_space = word == "hold" ? NoSpacePolicy::hold : NoSpacePolicy::fail;
  return {};
}

constexpr std::array kSettings = {
    // multipath.conf
    Setting{"path_grouping_policy", "",
            WordSetting{
                &read_word<&parse_path_grouping_policy, &MultipathOptions::path_grouping_policy>},
            true},
    Setting{"path_selector", "",
            WordSetting{&read_word<&parse_path_selector, &MultipathOptions::path_selector>}, true},
    Setting{"rr_min_io", "", WholeSetting{&PathPolicySettings::rr_min_io, 1, 100000}, true},
    Setting{"rr_weight", "", RrWeightSetting{}, true},
    Setting{"prio", "", PrioritizerSetting{}, true},
    Setting{"prio_args", "", PrioArgumentsSetting{}, true},
    Setting{"failback", "", FailbackSetting{}, true},
    Setting{"pg_init_retries", "", WholeSetting{&PathPolicySettings::pg_init_retries, 1, 50}, true},
    Setting{"pg_init_delay", "", PgInitDelaySetting{}, true},
    Setting{"path_weights", "", PathWeightsSetting{}},
    Setting{"no_path_retry", "", NoPathRetrySetting{}, true},
    Setting{"features", "", FeaturesSetting{}, true},
    Setting{"polling_interval", "",
            SecondsSetting{&MultipathOptions::polling_interval, Milliseconds(100), kHour}},
    Setting{"path_checker", "", WordSetting{&read_path_checker}, true},
    Setting{"max_polling_interval", "",
            SecondsSetting{&MultipathOptions::max_polling_interval, Milliseconds(100), kHour}},
    Setting{"marginal_path_double_failed_time", "",
            MarginalSetting{&MarginalPathOptions::double_failed_time, Milliseconds(0)}},
    Setting{"marginal_path_err_recheck_gap_time", "",
            MarginalSetting{&MarginalPathOptions::err_recheck_gap_time, Milliseconds(1000)}},
    Setting{"checker_timeout", "",
            SecondsSetting{&MultipathOptions::checker_timeout, Milliseconds(100), kHour}},
    Setting{"auto_resize", "", WordSetting{&read_auto_resize}},
    Setting{"reservation_key", "", WordSetting{&read_reservation_key}},
    // iscsid.conf
    Setting{"login_timeout", "node.conn[0].timeo.login_timeout",
            SecondsSetting{&SessionOptions::login_timeout, Milliseconds(100), kHour}},
    Setting{"logout_timeout", "node.conn[0].timeo.logout_timeout",
            SecondsSetting{&SessionOptions::logout_timeout, Milliseconds(100), kHour}},
    Setting{"noop_out_interval", "node.conn[0].timeo.noop_out_interval",
            SecondsSetting{&SessionOptions::noop_out_interval, Milliseconds(0), kHour}},
    Setting{"noop_out_timeout", "node.conn[0].timeo.noop_out_timeout",
            SecondsSetting{&SessionOptions::noop_out_timeout, Milliseconds(100), kHour}},
    Setting{"abort_timeout", "node.session.err_timeo.abort_timeout",
            SecondsSetting{&SessionOptions::abort_timeout, Milliseconds(100), kHour}},
    Setting{"lu_reset_timeout", "node.session.err_timeo.lu_reset_timeout",
            SecondsSetting{&SessionOptions::lu_reset_timeout, Milliseconds(100), kHour}},
    Setting{"tgt_reset_timeout", "node.session.err_timeo.tgt_reset_timeout",
            SecondsSetting{&SessionOptions::tgt_reset_timeout, Milliseconds(100), kHour}},
    Setting{"cmds_max", "node.session.cmds_max",
            WholeSetting{&SessionOptions::max_commands, 1, 4096}},
    Setting{"nr_sessions", "node.session.nr_sessions",
            WholeSetting{&PortalOptions::sessions_per_portal, 1, kMaxSessionsPerPortal}},
    Setting{"authmethod", "node.session.auth.authmethod", AuthMethodSetting{&SessionOptions::chap}},
    Setting{"chap_algs", "node.session.auth.chap_algs",
            ChapAlgorithmsSetting{&SessionOptions::chap}},
    Setting{"username", "node.session.auth.username",
            CredentialSetting{&SessionOptions::chap, &ChapOptions::username}},
    Setting{"password", "node.session.auth.password",
            CredentialSetting{&SessionOptions::chap, &ChapOptions::password}},
    Setting{"username_in", "node.session.auth.username_in",
            CredentialSetting{&SessionOptions::chap, &ChapOptions::username_in}},
    Setting{"password_in", "node.session.auth.password_in",
            CredentialSetting{&SessionOptions::chap, &ChapOptions::password_in}},
    Setting{"discovery.sendtargets.auth.authmethod", "",
            AuthMethodSetting{&SessionOptions::discovery_chap}},
    Setting{"discovery.sendtargets.auth.chap_algs", "",
            ChapAlgorithmsSetting{&SessionOptions::discovery_chap}},
    Setting{"discovery.sendtargets.auth.username", "",
            CredentialSetting{&SessionOptions::discovery_chap, &ChapOptions::username}},
    Setting{"discovery.sendtargets.auth.password", "",
            CredentialSetting{&SessionOptions::discovery_chap, &ChapOptions::password}},
    Setting{"discovery.sendtargets.auth.username_in", "",
            CredentialSetting{&SessionOptions::discovery_chap, &ChapOptions::username_in}},
    Setting{"discovery.sendtargets.auth.password_in", "",
            CredentialSetting{&SessionOptions::discovery_chap, &ChapOptions::password_in}},
    // iscsiadm's interfaces
    Setting{"interfaces", "", InterfacesSetting{}},
    Setting{"iface.net_ifacename", "", InterfaceSetting{&InterfaceBinding::name}},
    Setting{"iface.ipaddress", "", InterfaceSetting{&InterfaceBinding::address}},
    Setting{"iface.hwaddress", "", InterfaceSetting{&InterfaceBinding::hardware_address}},
    // RFC 7143, section 13
    Setting{"HeaderDigest", "node.conn[0].iscsi.HeaderDigest",
            DigestSetting{&SessionOptions::header_digest}},
    Setting{"DataDigest", "node.conn[0].iscsi.DataDigest",
            DigestSetting{&SessionOptions::data_digest}},
    Setting{"InitiatorAlias", "", AliasSetting{}},
    Setting{"ErrorRecoveryLevel", "node.session.iscsi.ERL",
            FixedSetting{0, false, "a lost connection is replaced by a new session"}},
    Setting{"MaxConnections", "node.session.iscsi.MaxConnections",
            FixedSetting{1, false, "more sessions do the same, see nr_sessions"}},
    Setting{"DataPDUInOrder", "node.session.iscsi.DataPDUInOrder",
            FixedSetting{1, true, "data that comes out of order proves nothing"}},
    Setting{"DataSequenceInOrder", "node.session.iscsi.DataSequenceInOrder",
            FixedSetting{1, true, "data that comes out of order proves nothing"}},
    Setting{"InitialR2T", "node.session.iscsi.InitialR2T",
            YesNoSetting{&SessionOptions::initial_r2t}},
    Setting{"ImmediateData", "node.session.iscsi.ImmediateData",
            YesNoSetting{&SessionOptions::immediate_data}},
    Setting{"FirstBurstLength", "node.session.iscsi.FirstBurstLength",
            WholeSetting{&SessionOptions::first_burst_length, 512, kMaxSegment}},
    Setting{"MaxBurstLength", "node.session.iscsi.MaxBurstLength",
            WholeSetting{&SessionOptions::max_burst_length, 512, kMaxSegment}},
    Setting{"MaxRecvDataSegmentLength", "node.conn[0].iscsi.MaxRecvDataSegmentLength",
            WholeSetting{&SessionOptions::max_recv_data_segment_length, 512, kMaxSegment}},
    Setting{"MaxOutstandingR2T", "node.session.iscsi.MaxOutstandingR2T",
            WholeSetting{&SessionOptions::max_outstanding_r2t, 1, 8}},
    Setting{"DefaultTime2Wait", "node.session.iscsi.DefaultTime2Wait",
            WholeSetting{&SessionOptions::default_time2wait, 0, 3600}},
    Setting{"DefaultTime2Retain", "node.session.iscsi.DefaultTime2Retain",
            WholeSetting{&SessionOptions::default_time2retain, 0, 3600}},
    // our own
    Setting{"connect_timeout", "",
            SecondsSetting{&SessionOptions::connect_timeout, Milliseconds(10), kHour}},
    Setting{"stall_probe", "",
            SecondsSetting{&SessionOptions::stall_probe, Milliseconds(10), kHour}},
    Setting{"path_timeout", "",
            SecondsSetting{&SessionOptions::path_timeout, Milliseconds(20), kHour}},
    Setting{"command_timeout", "",
            SecondsSetting{&SessionOptions::command_timeout, Milliseconds(0), kHour}},
    Setting{"exclusive_luns", "", YesNoSetting{&MultipathOptions::exclusive_luns}},
    Setting{"shared", "", YesNoSetting{&MultipathOptions::shared}},
    Setting{"portal_group_fences", "", PortalGroupFencesSetting{}, true},
    Setting{"redirected_login_fences", "",
            YesNoSetting{&MultipathOptions::redirected_login_fences}},
    Setting{"tcp_user_timeout", "",
            SecondsSetting{&SessionOptions::tcp_user_timeout, Milliseconds(100), kHour}},
    Setting{"relogin_backoff_min", "",
            SecondsSetting{&SessionOptions::relogin_backoff_min, Milliseconds(10), kHour}},
    Setting{"relogin_backoff_max", "",
            SecondsSetting{&SessionOptions::relogin_backoff_max, Milliseconds(10), kHour}},
    Setting{"capacity_polling_interval", "",
            SecondsSetting{&MultipathOptions::capacity_polling_interval, Milliseconds(0), kHour}},
    Setting{"no_space", "", WordSetting{&read_no_space}},
    Setting{"quiesce_time", "",
            SecondsSetting{&MultipathOptions::quiesce_time, Milliseconds(0), kHour}},
    Setting{"fence_settle_time", "",
            SecondsSetting{&MultipathOptions::fence_settle_time, Milliseconds(100), kHour}},
};

struct MeaninglessSetting {
  std::string_view name;
  std::string_view iscsid_name;
  std::string_view why;
};

constexpr std::string_view kFailsOverAtOnce =
    "the commands of a lost connection go to another path at once, and without any path "
    "no_path_retry says how long they wait";
constexpr std::string_view kFailsFast =
    "the commands of a lost connection go to another path at once; how long a connection may be "
    "silent before it counts as lost, path_timeout says";
constexpr std::string_view kNoKernelDevices =
    "paths are connections of this program, not block devices of the kernel";
constexpr std::string_view kNamedByDiskLine =
    "a disk is named by its disk line or by a section [luns.ALIAS]";
constexpr std::string_view kRequestsAreWhole =
    "requests are counted as the guest sends them: rr_min_io does that";
constexpr std::string_view kMarginalInstead =
    "a path that fails again and again is a last resort by itself: see "
    "marginal_path_double_failed_time and marginal_path_err_recheck_gap_time";
constexpr std::string_view kNoCallouts =
    "no program is called: prio and prio_args say where priorities come from, and the identity of "
    "a "
    "LUN is that of its VPD page 0x83";
constexpr std::string_view kOnlyNamedDisks =
    "only LUNs that a disk line or a section [luns.ALIAS] names are used at all";
constexpr std::string_view kNoDaemonApart =
    "requests wait in the process that serves the guest, and no_path_retry says for how long";
constexpr std::string_view kChecksByThemselves =
    "each path is checked by itself and waits for no other";
constexpr std::string_view kLogsChanges = "changes are logged once each; log_level says which";
constexpr std::string_view kDetected =
    "prio and path_grouping_policy are detected exactly where they are not set";
constexpr std::string_view kTriesForEver = "logging in is tried for ever";
constexpr std::string_view kNoDaemon =
    "iscsid is not used: a session lives as long as the disks that need it";
constexpr std::string_view kPortalsInstead =
    "where a target listens, or is asked for, portals says, or the disk line";
constexpr std::string_view kAsksByItself =
    "discovery is asked for again as long as a disk needs it";
constexpr std::string_view kNoIsns = "iSNS is not used: portals says where to ask (SendTargets)";
constexpr std::string_view kLunSections =
    "its sections are [luns.ALIAS] here, with target, lun and wwid";
constexpr std::string_view kNoMarkers = "RFC 7143 has no markers any more";
constexpr std::string_view kSoftwareInitiator =
    "the host's own network is used, not that of an iSCSI adapter";

constexpr std::array kMeaningless = {
    MeaninglessSetting{"replacement_timeout", "node.session.timeo.replacement_timeout",
                       kFailsOverAtOnce},
    MeaninglessSetting{"fast_io_fail_tmo", "", kFailsFast},
    MeaninglessSetting{"dev_loss_tmo", "", kFailsOverAtOnce},
    MeaninglessSetting{"host_reset_timeout", "node.session.err_timeo.host_reset_timeout",
                       "there is no host adapter to reset; the last resort is to drop the "
                       "connection"},
    MeaninglessSetting{"auth_timeout", "node.conn[0].timeo.auth_timeout",
                       "authentication is part of the login, which login_timeout bounds"},
    MeaninglessSetting{"initial_login_retry_max", "node.session.initial_login_retry_max",
                       kTriesForEver},
    MeaninglessSetting{"reopen_max", "node.session.reopen_max", kTriesForEver},
    MeaninglessSetting{"detect_prio", "", kDetected},
    MeaninglessSetting{"detect_pgpolicy", "", kDetected},
    MeaninglessSetting{"detect_pgpolicy_use_tpg", "",
                       "path_grouping_policy = \"group_by_tpg\" says that"},
    MeaninglessSetting{"detect_checker", "",
                       "where path_checker is not set, the table of arrays decides"},
    MeaninglessSetting{"rr_min_io_rq", "", kRequestsAreWhole},
    MeaninglessSetting{"selector", "", "it is called path_selector now"},
    MeaninglessSetting{"default_selector", "", "it is called path_selector now"},
    MeaninglessSetting{"default_path_grouping_policy", "", "it is called path_grouping_policy now"},
    MeaninglessSetting{"default_prio_callout", "", kNoCallouts},
    MeaninglessSetting{"default_getuid_callout", "", kNoCallouts},
    MeaninglessSetting{"prio_callout", "", kNoCallouts},
    MeaninglessSetting{"getuid_callout", "", kNoCallouts},
    MeaninglessSetting{"uid_attribute", "", kNoCallouts},
    MeaninglessSetting{"uid_attrs", "", kNoCallouts},
    MeaninglessSetting{"udev_dir", "", kNoKernelDevices},
    MeaninglessSetting{"reassign_maps", "", kNoKernelDevices},
    MeaninglessSetting{"deferred_remove", "", kNoKernelDevices},
    MeaninglessSetting{"remove_retries", "", kNoKernelDevices},
    MeaninglessSetting{"skip_kpartx", "", kNoKernelDevices},
    MeaninglessSetting{"partition_delimiter", "", kNoKernelDevices},
    MeaninglessSetting{"missing_uev_wait_timeout", "", kNoKernelDevices},
    MeaninglessSetting{"retrigger_tries", "", kNoKernelDevices},
    MeaninglessSetting{"retrigger_delay", "", kNoKernelDevices},
    MeaninglessSetting{"uev_wait_timeout", "", kNoKernelDevices},
    MeaninglessSetting{"max_sectors_kb", "",
                       "requests are as large as the LUN takes (VPD page 0xB0) and go in pieces "
                       "otherwise"},
    MeaninglessSetting{"max_retries", "", "what is tried again, and how often, the error decides"},
    MeaninglessSetting{
        "eh_deadline", "",
        "abort_timeout, lu_reset_timeout and tgt_reset_timeout bound the recovery of "
        "a command"},
    MeaninglessSetting{"user_friendly_names", "", kNamedByDiskLine},
    MeaninglessSetting{"alias", "", kNamedByDiskLine},
    MeaninglessSetting{"alias_prefix", "", kNamedByDiskLine},
    MeaninglessSetting{"bindings_file", "", kNamedByDiskLine},
    MeaninglessSetting{"wwids_file", "", kOnlyNamedDisks},
    MeaninglessSetting{"prkeys_file", "", "keys are those of reservation_key"},
    MeaninglessSetting{"find_multipaths", "", kOnlyNamedDisks},
    MeaninglessSetting{"find_multipaths_timeout", "", kOnlyNamedDisks},
    MeaninglessSetting{"allow_usb_devices", "", kOnlyNamedDisks},
    MeaninglessSetting{"blacklist", "", kOnlyNamedDisks},
    MeaninglessSetting{"blacklist_exceptions", "", kOnlyNamedDisks},
    MeaninglessSetting{"recheck_wwid", "", "a LUN's identity is looked at with every login"},
    MeaninglessSetting{"queue_without_daemon", "", kNoDaemonApart},
    MeaninglessSetting{"flush_on_last_del", "", kNoDaemonApart},
    MeaninglessSetting{"san_path_err_threshold", "", kMarginalInstead},
    MeaninglessSetting{"san_path_err_forget_rate", "", kMarginalInstead},
    MeaninglessSetting{"san_path_err_recovery_time", "", kMarginalInstead},
    MeaninglessSetting{"delay_watch_checks", "", kMarginalInstead},
    MeaninglessSetting{"delay_wait_checks", "", kMarginalInstead},
    MeaninglessSetting{"marginal_path_err_sample_time", "", kMarginalInstead},
    MeaninglessSetting{"marginal_path_err_rate_threshold", "", kMarginalInstead},
    MeaninglessSetting{"marginal_pathgroups", "", kMarginalInstead},
    MeaninglessSetting{
        "ghost_delay", "",
        "when a disk is attached, standby paths are activated after five seconds without another"},
    MeaninglessSetting{"purge_disconnected", "",
                       "a path without the LUN is not used, and looked at again and again"},
    MeaninglessSetting{"strict_timing", "", kChecksByThemselves},
    MeaninglessSetting{"force_sync", "", kChecksByThemselves},
    MeaninglessSetting{"max_fds", "", "a path needs one descriptor, and there are enough"},
    MeaninglessSetting{"uxsock_timeout", "", "how long iscsi-blkctl waits for an answer is fixed"},
    MeaninglessSetting{"verbosity", "", kLogsChanges},
    MeaninglessSetting{"log_checker_err", "", kLogsChanges},
    MeaninglessSetting{"all_tg_pt", "", "each path registers a key of its own"},
    MeaninglessSetting{"config_dir", "", "there is one file"},
    MeaninglessSetting{"multipath_dir", "", "nothing is loaded"},
    MeaninglessSetting{"hardware_handler", "",
                       "whether a path is activated by ALUA or RDAC, the LUN says"},
    MeaninglessSetting{"retain_attached_hw_handler", "",
                       "whether a path is activated by ALUA or RDAC, the LUN says"},
    MeaninglessSetting{"queue_depth", "node.session.queue_depth",
                       "each path finds its own from the target's TASK SET FULL; cmds_max bounds a "
                       "session"},
    // The rest of iscsid.conf and of open-iscsi's records
    MeaninglessSetting{"iscsid.startup", "", kNoDaemon},
    MeaninglessSetting{"iscsid.safe_logout", "", kNoDaemon},
    MeaninglessSetting{"iscsid.ipc_auth_uid", "", kNoDaemon},
    MeaninglessSetting{"node.startup", "", kOnlyNamedDisks},
    MeaninglessSetting{"node.conn[0].startup", "", kOnlyNamedDisks},
    MeaninglessSetting{"node.leading_login", "", kOnlyNamedDisks},
    MeaninglessSetting{"node.session.scan", "", kOnlyNamedDisks},
    MeaninglessSetting{"node.session.boot_root", "", kOnlyNamedDisks},
    MeaninglessSetting{"node.boot_lun", "", kOnlyNamedDisks},
    MeaninglessSetting{"node.transport_name", "", kSoftwareInitiator},
    MeaninglessSetting{"node.discovery_type", "", kOnlyNamedDisks},
    MeaninglessSetting{"node.discovery_address", "", kPortalsInstead},
    MeaninglessSetting{"node.discovery_port", "", kPortalsInstead},
    MeaninglessSetting{"node.conn[0].address", "", kPortalsInstead},
    MeaninglessSetting{"node.conn[0].port", "", kPortalsInstead},
    MeaninglessSetting{"node.tpgt", "", kPortalsInstead},
    MeaninglessSetting{
        "node.name", "",
        "the target is named by the disk line, or as target in a section [luns.ALIAS]"},
    MeaninglessSetting{"discovery.type", "", kPortalsInstead},
    MeaninglessSetting{"discovery.startup", "", kPortalsInstead},
    MeaninglessSetting{"discovery.sendtargets.address", "", kPortalsInstead},
    MeaninglessSetting{"discovery.sendtargets.port", "", kPortalsInstead},
    MeaninglessSetting{"discovery.sendtargets.use_discoveryd", "", kAsksByItself},
    MeaninglessSetting{"discovery.sendtargets.discoveryd_poll_inval", "", kAsksByItself},
    MeaninglessSetting{"discovery.sendtargets.reopen_max", "", kAsksByItself},
    MeaninglessSetting{"discovery.sendtargets.timeo.login_timeout", "",
                       "login_timeout bounds discovery, too"},
    MeaninglessSetting{"discovery.sendtargets.timeo.auth_timeout", "",
                       "login_timeout bounds discovery, too"},
    MeaninglessSetting{"discovery.sendtargets.timeo.active_timeout", "",
                       "open-iscsi itself does nothing with it"},
    MeaninglessSetting{"discovery.sendtargets.iscsi.MaxRecvDataSegmentLength", "",
                       "answers of discovery may have any length that is of use"},
    MeaninglessSetting{"discovery.isns.use_discoveryd", "", kNoIsns},
    MeaninglessSetting{"discovery.isns.discoveryd_poll_inval", "", kNoIsns},
    MeaninglessSetting{"isns.address", "", kNoIsns},
    MeaninglessSetting{"isns.port", "", kNoIsns},
    MeaninglessSetting{"node.conn[0].timeo.active_timeout", "",
                       "open-iscsi itself does nothing with it"},
    MeaninglessSetting{"node.session.xmit_thread_priority", "",
                       "there is no thread of the kernel's"},
    MeaninglessSetting{"node.session.initial_cmdsn", "",
                       "the first command of a session has CmdSN 1"},
    MeaninglessSetting{"node.conn[0].iscsi.MaxXmitDataSegmentLength", "",
                       "what is sent is as long as the target's MaxRecvDataSegmentLength allows"},
    MeaninglessSetting{"node.session.iscsi.FastAbort", "",
                       "data is sent as long as the target asks for it"},
    MeaninglessSetting{"node.conn[0].iscsi.IFMarker", "", kNoMarkers},
    MeaninglessSetting{"node.conn[0].iscsi.OFMarker", "", kNoMarkers},
    MeaninglessSetting{"node.conn[0].tcp.window_size", "", "the kernel finds the window by itself"},
    MeaninglessSetting{"node.conn[0].tcp.type_of_service", "",
                       "routing and traffic control may mark connections to a portal"},
    MeaninglessSetting{
        "iface.iscsi_ifacename", "",
        "an interface is named by iface.net_ifacename, iface.ipaddress or iface.hwaddress"},
    MeaninglessSetting{"iface.initiatorname", "",
                       "the name of the host is initiator_name, for all of its sessions"},
    // and of multipath.conf
    MeaninglessSetting{"disable_changed_wwids", "",
                       "a LUN's identity is looked at with every login"},
    MeaninglessSetting{"enable_foreign", "", kNoKernelDevices},
    MeaninglessSetting{"unpriv_sgio", "", kNoKernelDevices},
    MeaninglessSetting{"hw_str_match", "", "[[device]] sections count in their order"},
    MeaninglessSetting{"vpd_vendor", "", "which pages tell of access a LUN says itself"},
    MeaninglessSetting{"product_blacklist", "", kOnlyNamedDisks},
    MeaninglessSetting{
        "pg_timeout", "",
        "checker_timeout bounds an activation, and pg_init_retries how often it is tried"},
    MeaninglessSetting{"pg_prio_calc", "", "a group has the mean of the priorities of its paths"},
    MeaninglessSetting{"mode", "", kNoKernelDevices},
    MeaninglessSetting{"uid", "", kNoKernelDevices},
    MeaninglessSetting{"gid", "", kNoKernelDevices},
    MeaninglessSetting{"devices", "",
                       "its sections are [[device]] here, each with vendor and product"},
    MeaninglessSetting{"multipaths", "", kLunSections},
    MeaninglessSetting{"multipath", "", kLunSections},
    MeaninglessSetting{
        "overrides", "",
        "what holds for all disks stands in [defaults], which counts more than [[device]] does"},
    MeaninglessSetting{"protocol", "", kFailsFast},
};

char folded(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Levenshtein's distance, case and the sort of dash aside.
std::size_t distance(std::string_view left, std::string_view right) {
  const auto plain = [](char c) { return c == '-' ? '_' : folded(c); };
  std::vector<std::size_t> row(right.size() + 1);
  for (std::size_t at = 0; at < row.size(); ++at) {
    row[at] = at;
  }
  for (std::size_t i = 1; i <= left.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const std::size_t changed = diagonal + (plain(left[i - 1]) == plain(right[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::span<const Setting> all_settings() {
  return kSettings;
}

const Setting* find_setting(std::string_view name) {
  const auto found = std::find_if(kSettings.begin(), kSettings.end(), [&](const Setting& setting) {
    return name == setting.name || (!name.empty() && name == setting.iscsid_name);
  });
  return found == kSettings.end() ? nullptr : found;
}

std::string_view why_meaningless(std::string_view name) {
  const auto found = std::find_if(
      kMeaningless.begin(), kMeaningless.end(), [&](const MeaninglessSetting& setting) {
        return name == setting.name || (!name.empty() && name == setting.iscsid_name);
      });
  if (found != kMeaningless.end()) {
    return found->why;
  }
  // The rest of a record of iscsiadm -m iface: what an adapter may be told.
  return name.starts_with("iface.") ? kSoftwareInitiator : std::string_view{};
}

std::string suggestion(std::string_view name, std::span<const std::string_view> known) {
  constexpr std::size_t kLongest = 64;  // bounds the work that a key out of nowhere can cause
  if (name.size() > kLongest) {
    return {};
  }
  std::string_view best;
  std::size_t least = 3;  // further away than two letters is another word
  for (const std::string_view candidate : known) {
    if (const std::size_t far = distance(name, candidate); far < least) {
      best = candidate;
      least = far;
    }
  }
  return best.empty() ? std::string{} : fmt::format("; did you mean {}?", best);
}

}  // namespace iscsi_blkback
