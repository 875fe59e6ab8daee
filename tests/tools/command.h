// Runs a shell command to its end; for tests of programs and scripts.
#pragma once

#include <stdlib.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace iscsi_blkback {

struct CommandResult {
  int exit_code = -1;  // -1: killed by a signal
  std::string output;
  std::string errors;
};

// A folder of its own, gone with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "blkback-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] std::string operator/(const std::string& name) const {
    return (path_ / name).string();
  }
  [[nodiscard]] std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
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
