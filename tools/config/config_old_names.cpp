// The options of iscsid.conf, of open-iscsi's records and of multipath.conf that have no
// counterpart, each with the reason that a refusal gives.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <numeric>
#include <vector>

#include "base/ascii_case.h"
#include "base/split.h"
#include "tools/config/config_options.h"

namespace iscsi_blkback {
namespace {

struct OldNames {
  std::string_view why;
  std::string_view names;  // with blanks between them
};

constexpr std::array kOldNames = std::to_array<OldNames>({
    {"the commands of a lost connection go to another path at once, and without any path "
     "no_path_retry says how long they wait",
     "replacement_timeout node.session.timeo.replacement_timeout dev_loss_tmo"},
    {"the commands of a lost connection go to another path at once; how long a connection may be "
     "silent before it counts as lost, path_timeout says",
     "fast_io_fail_tmo protocol"},
    {"there is no host adapter to reset; the last resort is to drop the connection",
     "host_reset_timeout node.session.err_timeo.host_reset_timeout"},
    {"authentication is part of the login, which login_timeout bounds",
     "auth_timeout node.conn[0].timeo.auth_timeout"},
    {"logging in is tried for ever",
     "initial_login_retry_max node.session.initial_login_retry_max reopen_max "
     "node.session.reopen_max"},
    {"prio and path_grouping_policy are detected exactly where they are not set",
     "detect_prio detect_pgpolicy"},
    {"path_grouping_policy = \"group_by_tpg\" says that", "detect_pgpolicy_use_tpg"},
    {"where path_checker is not set, the table of arrays decides", "detect_checker"},
    {"requests are counted as the guest sends them: rr_min_io does that", "rr_min_io_rq"},
    {"it is called path_selector now", "selector default_selector"},
    {"it is called path_grouping_policy now", "default_path_grouping_policy"},
    {"no program is called: prio and prio_args say where priorities come from, and the identity of "
     "a LUN is that of its VPD page 0x83",
     "default_prio_callout default_getuid_callout prio_callout getuid_callout uid_attribute "
     "uid_attrs"},
    {"paths are connections of this program, not block devices of the kernel",
     "udev_dir reassign_maps deferred_remove remove_retries skip_kpartx partition_delimiter "
     "missing_uev_wait_timeout retrigger_tries retrigger_delay uev_wait_timeout enable_foreign "
     "unpriv_sgio mode uid gid"},
    {"requests are as large as the LUN takes (VPD page 0xB0) and go in pieces otherwise",
     "max_sectors_kb"},
    {"what is tried again, and how often, the error decides", "max_retries"},
    {"abort_timeout, lu_reset_timeout and tgt_reset_timeout bound the recovery of a command",
     "eh_deadline"},
    {"a disk is named by its disk line or by a section [luns.ALIAS]",
     "user_friendly_names alias alias_prefix bindings_file"},
    {"only LUNs that a disk line or a section [luns.ALIAS] names are used at all",
     "wwids_file find_multipaths find_multipaths_timeout allow_usb_devices blacklist "
     "blacklist_exceptions node.startup node.conn[0].startup node.leading_login node.session.scan "
     "node.session.boot_root node.boot_lun node.discovery_type product_blacklist"},
    {"keys are those of reservation_key", "prkeys_file"},
    {"a LUN's identity is looked at with every login", "recheck_wwid disable_changed_wwids"},
    {"requests wait in the process that serves the guest, and no_path_retry says for how long",
     "queue_without_daemon flush_on_last_del"},
    {"a path that fails again and again is a last resort by itself: see "
     "marginal_path_double_failed_time and marginal_path_err_recheck_gap_time",
     "san_path_err_threshold san_path_err_forget_rate san_path_err_recovery_time "
     "delay_watch_checks delay_wait_checks marginal_path_err_sample_time "
     "marginal_path_err_rate_threshold marginal_pathgroups"},
    {"when a disk is attached, standby paths are activated after five seconds without another",
     "ghost_delay"},
    {"a path without the LUN is not used, and looked at again and again", "purge_disconnected"},
    {"each path is checked by itself and waits for no other", "strict_timing force_sync"},
    {"a path needs one descriptor, and there are enough", "max_fds"},
    {"how long iscsi-blkctl waits for an answer is fixed", "uxsock_timeout"},
    {"changes are logged once each; log_level says which", "verbosity log_checker_err"},
    {"each path registers a key of its own", "all_tg_pt"},
    {"there is one file", "config_dir"},
    {"nothing is loaded", "multipath_dir"},
    {"whether a path is activated by ALUA or RDAC, the LUN says",
     "hardware_handler retain_attached_hw_handler"},
    {"each path finds its own from the target's TASK SET FULL; cmds_max bounds a session",
     "queue_depth node.session.queue_depth"},
    {"iscsid is not used: a session lives as long as the disks that need it",
     "iscsid.startup iscsid.safe_logout iscsid.ipc_auth_uid"},
    {"the host's own network is used, not that of an iSCSI adapter", "node.transport_name"},
    {"where a target listens, or is asked for, portals says, or the disk line",
     "node.discovery_address node.discovery_port node.conn[0].address node.conn[0].port node.tpgt "
     "discovery.type discovery.startup discovery.sendtargets.address discovery.sendtargets.port"},
    {"the target is named by the disk line, or as target in a section [luns.ALIAS]", "node.name"},
    {"discovery is asked for again as long as a disk needs it",
     "discovery.sendtargets.use_discoveryd discovery.sendtargets.discoveryd_poll_inval "
     "discovery.sendtargets.reopen_max"},
    {"login_timeout bounds discovery, too",
     "discovery.sendtargets.timeo.login_timeout discovery.sendtargets.timeo.auth_timeout"},
    {"open-iscsi itself does nothing with it",
     "discovery.sendtargets.timeo.active_timeout node.conn[0].timeo.active_timeout"},
    {"answers of discovery may have any length that is of use",
     "discovery.sendtargets.iscsi.MaxRecvDataSegmentLength"},
    {"iSNS is not used: portals says where to ask (SendTargets)",
     "discovery.isns.use_discoveryd discovery.isns.discoveryd_poll_inval isns.address isns.port"},
    {"there is no thread of the kernel's", "node.session.xmit_thread_priority"},
    {"the first command of a session has CmdSN 1", "node.session.initial_cmdsn"},
    {"what is sent is as long as the target's MaxRecvDataSegmentLength allows",
     "node.conn[0].iscsi.MaxXmitDataSegmentLength"},
    {"data is sent as long as the target asks for it", "node.session.iscsi.FastAbort"},
    {"RFC 7143 has no markers any more", "node.conn[0].iscsi.IFMarker node.conn[0].iscsi.OFMarker"},
    {"the kernel finds the window by itself", "node.conn[0].tcp.window_size"},
    {"routing and traffic control may mark connections to a portal",
     "node.conn[0].tcp.type_of_service"},
    {"an interface is named by iface.net_ifacename, iface.ipaddress or iface.hwaddress",
     "iface.iscsi_ifacename"},
    {"the name of the host is initiator_name, for all of its sessions", "iface.initiatorname"},
    {"[[device]] sections count in their order", "hw_str_match"},
    {"which pages tell of access a LUN says itself", "vpd_vendor"},
    {"checker_timeout bounds an activation, and pg_init_retries how often it is tried",
     "pg_timeout"},
    {"a group has the mean of the priorities of its paths", "pg_prio_calc"},
    {"its sections are [[device]] here, each with vendor and product", "devices"},
    {"its sections are [luns.ALIAS] here, with target, lun and wwid", "multipaths multipath"},
    {"what holds for all disks stands in [defaults], which counts more than [[device]] does",
     "overrides"},
});

// Without what does not tell words apart.
std::string plain(std::string_view text) {
  std::string result = lower(text);
  std::replace(result.begin(), result.end(), '-', '_');
  return result;
}

// Levenshtein's.
std::size_t distance(std::string_view left, std::string_view right) {
  std::vector<std::size_t> row(right.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (const char c : left) {
    std::size_t diagonal = row[0]++;
    for (std::size_t at = 0; at < right.size(); ++at) {
      const std::size_t changed = diagonal + (c == right[at] ? 0 : 1);
      diagonal = row[at + 1];
      row[at + 1] = std::min({changed, row[at + 1] + 1, row[at] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string_view why_meaningless(std::string_view name) {
  for (const auto& [why, names] : kOldNames) {
    const std::vector<std::string_view> list = split(names, ' ');
    if (std::find(list.begin(), list.end(), name) != list.end()) {
      return why;
    }
  }
  // The rest of a record of iscsiadm -m iface: what an adapter may be told.
  return name.starts_with("iface.") ? why_meaningless("node.transport_name") : std::string_view{};
}

std::string suggestion(std::string_view name, std::span<const std::string_view> known) {
  constexpr std::size_t kLongest = 64;  // bounds the work that a key out of nowhere can cause
  if (name.size() > kLongest) {
    return {};
  }
  std::string_view best;
  std::size_t least = 3;  // further away than two letters is another word
  for (const std::string_view candidate : known) {
    if (const std::size_t far = distance(plain(name), plain(candidate)); far < least) {
      best = candidate;
      least = far;
    }
  }
  return best.empty() ? std::string{} : fmt::format("; did you mean {}?", best);
}

}  // namespace iscsi_blkback
