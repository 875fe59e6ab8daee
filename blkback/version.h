// The version of the product, as the build states it.
#pragma once

namespace iscsi_blkback {

inline constexpr const char* kVersion = ISCSI_BLKBACK_VERSION;

}  // namespace iscsi_blkback
