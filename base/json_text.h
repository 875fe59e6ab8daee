// The door of JSON: every JSON text that one of our programs gives to another program is made here.
// Pure; any thread.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace iscsi_blkback {

inline constexpr std::size_t kMaxJsonStringBytes = 4096;

// In one line, or indented by so many blanks. Every string and key in it goes through
// printable_text(), so that it stays harmless when its reader prints it, and all of it is ASCII.
// Never fails, whatever the strings hold.
[[nodiscard]] std::string json_text(const nlohmann::json& document, int indent = -1);

}  // namespace iscsi_blkback
