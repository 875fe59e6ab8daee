// DiskLog: what a disk says in the log, each message behind its name, and all of them bounded in
// number. Owned by MultipathDevice, shared by its parts, which it outlives. Reactor thread.
#pragma once

#include <string>
#include <utility>

#include "base/log.h"
#include "base/reactor.h"

namespace iscsi_blkback {

class DiskLog {
 public:
  DiskLog(const Reactor& reactor, std::string disk_name)
      : reactor_(reactor), disk_name_(std::move(disk_name)) {}

  [[nodiscard]] const std::string& disk_name() const { return disk_name_; }

  template <class... Args>
  void info(fmt::format_string<Args...> format, Args&&... args) {
    write(LogLevel::info, format, std::forward<Args>(args)...);
  }
  template <class... Args>
  void warning(fmt::format_string<Args...> format, Args&&... args) {
    write(LogLevel::warning, format, std::forward<Args>(args)...);
  }
  template <class... Args>
  void error(fmt::format_string<Args...> format, Args&&... args) {
    write(LogLevel::error, format, std::forward<Args>(args)...);
  }

 private:
  template <class... Args>
  void write(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
    if (log_enabled(level)) {
      log_limited(limiter_, reactor_.now(), level, "multipath", "{}: {}", disk_name_,
                  fmt::format(format, std::forward<Args>(args)...));
    }
  }

  const Reactor& reactor_;
  const std::string disk_name_;
  LogLimiter limiter_;
};

}  // namespace iscsi_blkback
