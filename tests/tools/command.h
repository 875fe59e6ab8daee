// Runs a shell command to its end; for tests of programs and scripts.
#pragma once

#include <stdlib.h>
#include <sys/wait.h>

#include <fstream>
#include <sstream>
#include <string>

#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {

struct CommandResult {
  int exit_code = -1;  // -1: killed by a signal
  std::string output;
  std::string errors;
};

inline std::string read_whole(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline CommandResult run_command(const std::string& command) {
  const TemporaryFolder folder;
  const int status = std::system(
      ("{ " + command + "\n} > '" + folder / "out" + "' 2> '" + folder / "err" + "'").c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_whole(folder / "out"),
          read_whole(folder / "err")};
}

}  // namespace iscsi_blkback
