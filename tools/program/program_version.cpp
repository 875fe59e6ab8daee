#include "tools/program/program_version.h"

#include "base/version.h"

namespace iscsi_blkback {

std::string program_version(std::string_view program) {
  constexpr std::string_view kTree = ISCSI_BLKBACK_GIT_DESCRIPTION;
  std::string text(program);
  text += " ";
  text += kVersion;
  if (!kTree.empty()) {
    text += " (";
    text += kTree;
    text += ")";
  }
  return text;
}

}  // namespace iscsi_blkback
