// From the replies of the service and the guests' processes to what iscsi-blkctl prints. A reply is
// believed in nothing: the process of a guest may have been taken over by it, so that numbers are
// checked, nesting is bounded, and texts are made printable when they are printed. Pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/printable_text.h"
#include "tools/ctl/status_client.h"

namespace iscsi_blkback {

struct DiskStatusRow {
  unsigned domain = 0;
  nlohmann::json disk;  // an object, as in blkback/control/control_protocol.h

  [[nodiscard]] std::string device_name() const;  // "dom5/xvda"
  [[nodiscard]] std::uint32_t device_id() const;
};

struct StatusOverview {
  bool service_running = false;
  bool any_process = false;  // somebody answered, or at least holds a socket open
  std::vector<DiskStatusRow> disks;
  std::vector<unsigned> unresponsive;  // guests
  // Sentences about processes that did not answer or cannot serve.
  std::vector<std::string> remarks;
};

// The reply to a request that changes something: done, or why not.
[[nodiscard]] Result<void> read_answer(const Result<std::string>& line);

[[nodiscard]] StatusOverview read_status(const std::vector<StatusReply>& replies);

// Keeps the disks with this alias, WWID, virtual device ("xvda") or device name ("dom5/xvda").
void keep_only(StatusOverview& overview, std::string_view name);

// The layout of multipath -ll.
[[nodiscard]] PrintableLines topology_text(const StatusOverview& overview);
// The layout of multipathd's "show maps json", with keys of our own besides.
[[nodiscard]] nlohmann::json topology_json(const StatusOverview& overview);

}  // namespace iscsi_blkback
