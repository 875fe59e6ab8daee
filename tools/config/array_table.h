// The built-in array table (arrays.toml): how the paths of known arrays are used where nothing is
// said. Any thread.
#pragma once

#include <string_view>

#include "multipath/groups/path_policies.h"

namespace iscsi_blkback {

// The file as it was when the program was built.
[[nodiscard]] std::string_view array_table_text();
[[nodiscard]] const ArrayTable& built_in_arrays();

}  // namespace iscsi_blkback
