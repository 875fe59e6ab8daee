// What --version prints: "NAME VERSION", with git's name of the tree behind it when the build knew
// it. Pure.
#pragma once

#include <string>
#include <string_view>

namespace iscsi_blkback {

[[nodiscard]] std::string program_version(std::string_view program);

}  // namespace iscsi_blkback
