// Initiator task tags of the session's own PDUs; TaskTable never gives them out. Values.
#pragma once

#include <cstdint>

#include "initiator/session/task_table.h"

namespace iscsi_blkback {

inline constexpr std::uint32_t kLoginTag = 0xfff0;
inline constexpr std::uint32_t kPingTag = 0xfff1;
inline constexpr std::uint32_t kLogoutTag = 0xfff2;
// Task management functions: from here on, the place in the low half, a generation in the high half
// as for commands.
inline constexpr std::uint32_t kFunctionTags = 0xff00;
inline constexpr std::uint32_t kMaxFunctions = 16;
static_assert(kFunctionTags >= TaskTable::kMaxSlots && kFunctionTags + kMaxFunctions <= kLoginTag);
static_assert(kLoginTag >= TaskTable::kMaxSlots);

}  // namespace iscsi_blkback
