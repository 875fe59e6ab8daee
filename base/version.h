// The version of the product, as the build states it. A constant; any thread.
#pragma once

namespace iscsi_blkback {

extern const char* const kVersion;

}  // namespace iscsi_blkback
