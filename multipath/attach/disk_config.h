// DiskConfig: what a disk's target comes to with the operator's configuration: which settings hold,
// and where its portals are looked up; and what becomes of it when they have been (discovery_state.h):
// everything that it takes to open the disk. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "multipath/attach/configuration.h"
#include "multipath/attach/disk_url.h"
#include "multipath/attach/policy_contradiction.h"

namespace iscsi_blkback {

// What has to be looked up before the disk can be opened.
struct DiskConfig
    : DiskOptions {  // places: of what the configuration sets, and "the disk's target"
  std::string target_name;
  std::vector<std::string> other_target_names;  // to be asked for, too
  std::uint16_t lun = 0;
  std::vector<Portal> portals;  // empty: ask the discovery portals
  std::vector<Portal> discovery_portals;
  std::uint32_t session_variant = 0;  // see session_isid.h
};

// name: what the disk is called when the configuration has no alias for it ("xvda"). Error: invalid_argument, one
// sentence, for an alias that is not configured, portals that are nowhere, settings that contradict each other.
[[nodiscard]] Result<DiskConfig> configure_disk(const DiskUrl& target,
                                                const Configuration& configuration,
                                                const std::string& name, bool read_only);

// Why the LUN, with logical blocks of so many bytes, cannot be a disk with the sectors that these
// options say; empty: it can.
[[nodiscard]] std::string sector_size_trouble(const DiskOptions& options,
                                              std::uint32_t logical_block_bytes);

// Where a setting comes from, for a sentence.
[[nodiscard]] std::string place_of(std::string_view setting, const SettingPlaces& places);

// Its sentence, with where both settings come from.
[[nodiscard]] std::string with_places(const PolicyContradiction& contradiction,
                                      const SettingPlaces& places);

// Where one path leads.
struct ResolvedPortal {
  Portal portal;
  SocketAddress address;
  std::uint16_t session_number = 0;  // of those to this portal through this interface
  std::string target_name = {};
  std::vector<SocketAddress> other_addresses = {};  // of the same name
};
// Whatever the portal is called, or wherever its name leads now.
[[nodiscard]] bool same_path(const ResolvedPortal& one, const ResolvedPortal& other);

// Everything that the I/O side needs to open the disk.
struct DiskSpecification {
  std::uint32_t device_id = 0;  // as whoever uses the disk numbers it
  std::uint16_t lun = 0;
  SessionOptions session;  // with target_name
  std::uint32_t session_variant = 0;
  MultipathOptions multipath;
  std::vector<ResolvedPortal> portals;  // at least one, at most kMaxPathsPerDisk
};

struct ResolvedDisk {
  DiskSpecification specification;
  std::string trouble;   // why some portals are missing: try again later; or empty
  bool complete = true;  // false: not everything has been answered yet
};

}  // namespace iscsi_blkback
