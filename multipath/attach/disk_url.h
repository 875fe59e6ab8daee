// DiskUrl: what a disk line's `target=` says. Pure; any thread. What it comes to with the
// operator's configuration is disk_config.h.
//
// The string is the toolstack's (`params` in the backend node); the guest can read it, so a secret
// in it is refused, in a sentence that does not repeat it. Forms, after libxl's prefix "aio:":
//   iscsi://HOST[:PORT][,HOST[:PORT]...]/TARGET-NAME/LUN[?key=value&...]
//                                                  libiscsi's URL, several portals; IPv6 in
//                                                  brackets; %xx in the name
//   iscsi:TARGET-NAME[/LUN][?...]                  portals from the configuration or by discovery
//   iscsi:ALIAS[?...]                              a LUN of the configuration file
// Where the array has a target name for each controller, more of HOST.../TARGET-NAME, or of
// TARGET-NAME, follow before the LUN, each behind a ';'.
// Keys are multipath.conf's (path_grouping_policy, path_selector, prio with prio_args, failback,
// no_path_retry, rr_min_io, polling_interval, checker_timeout, wwid), shared and iscsid.conf's
// timers (login_timeout, logout_timeout, noop_out_interval, noop_out_timeout); times are in
// seconds and may have decimals. Disks of a guest share a session to the same portal where all that
// is set of the session is the same.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "multipath/attach/configuration.h"

namespace iscsi_blkback {

// Overrides of one disk; what is not set comes from the configuration.
struct DiskSettings {
  std::optional<PathGroupingPolicy> path_grouping_policy;
  std::optional<PathSelectorKind> path_selector;
  std::optional<std::uint32_t> rr_min_io;
  std::optional<Prioritizer> prio;  // with its prio_args
  std::optional<Failback> failback;
  std::string no_path_retry;  // as written (checked); empty: not set
  std::optional<std::string> wwid;
  std::optional<bool> shared;
  std::optional<std::uint32_t> sector_size;
  std::optional<std::chrono::milliseconds> polling_interval;
  std::optional<std::chrono::milliseconds> checker_timeout;
  std::optional<std::chrono::milliseconds> login_timeout;
  std::optional<std::chrono::milliseconds> logout_timeout;
  std::optional<std::chrono::milliseconds> noop_out_interval;
  std::optional<std::chrono::milliseconds> noop_out_timeout;
};

struct DiskUrl {
  std::vector<Portal> portals;  // first form only
  std::string target_name;      // first two forms; of portals that have none of their own
  std::vector<std::string> other_target_names;  // second form
  std::uint16_t lun = 0;                        // first two forms
  std::string alias;                            // third form
  DiskSettings settings;
};

inline constexpr std::size_t kMaxParamsBytes = 2048;
inline constexpr std::size_t kMaxPortalsPerDisk = 32;
inline constexpr std::size_t kMaxPathsPerDisk = 64;
inline constexpr std::size_t kMaxTargetNamesPerDisk = 8;
inline constexpr std::uint16_t kMaxLun = 16383;  // see encode_lun()

// Whether params is meant for us at all; everything else is left alone. What is meant for us and
// written wrong, in a way that xl accepts (a format, a blank or a quotation mark before iscsi:), is
// ours as well: nobody else would say why the guest waits for its disk.
[[nodiscard]] bool is_iscsi_params(std::string_view params);

// For params that are ours. The error is one sentence without any secret.
[[nodiscard]] Result<DiskUrl> parse_disk_url(std::string_view params);

// Parts of it, which the configuration file has too. Errors are sentences; what: "the target name".
[[nodiscard]] Result<Portal> parse_portal(std::string_view text);  // "HOST[:PORT]"
[[nodiscard]] Result<void> check_iscsi_name(std::string_view what, std::string_view name);
// To those by which one LUN is served. False: it is one of them.
[[nodiscard]] bool add_target_name(std::string name, std::string& first,
                                   std::vector<std::string>& others);
[[nodiscard]] bool is_alias(std::string_view text);
// "yes", "no", "true" or "false" in any letters; nothing: none of these.
[[nodiscard]] std::optional<bool> parse_yes_no(std::string_view text);
[[nodiscard]] Result<PathGroupingPolicy> parse_path_grouping_policy(std::string_view text);
[[nodiscard]] Result<PathSelectorKind> parse_path_selector(std::string_view text);
// Of a LUN, as MultipathSnapshot::wwid has it; hexadecimal digits in either case, and a byte that
// is shown as \xNN may also stand there itself.
[[nodiscard]] Result<std::string> parse_wwid(std::string_view text);

// no_path_retry as it is written: "queue", "fail", "N" (checks, polling_interval apart) or "Ns"
// (seconds, perhaps with decimals); 0 is fail.
struct WrittenNoPathRetry {
  NoPathRetry time = std::chrono::milliseconds(0);  // nullopt: for ever
  std::uint32_t checks = 0;                         // instead of a time

  [[nodiscard]] NoPathRetry with(std::chrono::milliseconds polling_interval) const {
    return checks == 0 ? time : polling_interval * static_cast<int>(checks);
  }
  bool operator==(const WrittenNoPathRetry&) const = default;
};
[[nodiscard]] Result<WrittenNoPathRetry> parse_no_path_retry(std::string_view text);

}  // namespace iscsi_blkback
