// What the real targets that tests start have in common: a folder in memory, ports that were free,
// a child that ends with the thread that started it, disks that are sparse files.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

// Where a TemporaryFolder is in memory, if this host has such a place.
[[nodiscard]] std::string memory_folder();

// TCP ports of 127.0.0.1 that were free a moment ago, no two of them the same; empty on failure.
[[nodiscard]] std::vector<std::uint16_t> free_ports(std::size_t count);

// Both outputs go to folder/log. The variable, if it has a name, is set in the environment.
[[nodiscard]] pid_t spawn(const std::vector<std::string>& arguments, const std::string& folder,
                          const std::pair<std::string, std::string>& variable = {});
// SIGKILL, and waits for its end; nothing happens for a process of -1.
void kill_spawned(pid_t& process);

// Filled: with data in every block, because the holes of a sparse file would be cheaper to read. A
// file that exists keeps its contents.
[[nodiscard]] Result<void> make_disk_file(const std::string& path, std::uint64_t bytes,
                                          bool filled);

void sleep_a_little();

}  // namespace iscsi_blkback
