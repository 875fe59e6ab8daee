// TemporaryFolder: a folder of a test's own, gone with it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

namespace iscsi_blkback {

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& parent = "/tmp")
      : path_(parent + "/iscsi-blkback-test-XXXXXX") {
    (void)::mkdtemp(path_.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + '/' + name; }

 private:
  std::string path_;
};

}  // namespace iscsi_blkback
