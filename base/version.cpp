#include "base/version.h"

namespace iscsi_blkback {

const char* const kVersion = ISCSI_BLKBACK_VERSION;

}  // namespace iscsi_blkback
