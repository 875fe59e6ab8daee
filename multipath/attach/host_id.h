// What tells this host from others that were set up alike, down to their initiator name: it goes
// into the ISIDs. The same as long as the host runs, and from one process to the next.
// Blocks: before any other thread runs.
#pragma once

#include <string>

namespace iscsi_blkback {

// The machine id (machine-id(5)) and the UUID of the SMBIOS, because a copied installation has the
// first one of its original, and cheap boards have one UUID for all; empty where there is neither.
// root: put before the paths, for tests.
[[nodiscard]] std::string read_host_id(const std::string& root = {});

}  // namespace iscsi_blkback
