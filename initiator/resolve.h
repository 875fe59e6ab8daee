// Names to addresses. Blocks (DNS): control thread only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "base/result.h"

namespace iscsi_blkback {

// host: a name or a numeric address without brackets. The addresses are in the resolver's order,
// without duplicates, at least one.
[[nodiscard]] Result<std::vector<SocketAddress>> resolve(const std::string& host,
                                                         std::uint16_t port);

}  // namespace iscsi_blkback
