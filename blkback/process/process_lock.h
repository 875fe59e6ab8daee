// ProcessLock: a file that one process holds locked while it runs and that names its pid, so that
// no second one serves the same guest, and a restarted service finds those that are still at work.
// The lock (an open file description lock, fcntl(2)) vanishes with its holder, however that ends;
// the file is removed by a holder that ends in order. One that somebody else removes (whoever
// cleans folders) its holder makes anew: a service that is restarted would start a second process.
// Control thread.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>

#include "base/domain_id.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

class ProcessLock {
 public:
  // conflict: another process holds it; what: for that message, "domain 5 is served". The folder is
  // made when it does not exist. pid: of the process that holds it, where this one hands it over.
  [[nodiscard]] static Result<ProcessLock> acquire(const std::string& path, const std::string& what,
                                                   pid_t pid = ::getpid());

  // The pid of the process that holds the lock now; nullopt: nobody does. An error: it cannot be
  // told, as when a process has just locked the file and not yet written its pid.
  [[nodiscard]] static Result<std::optional<pid_t>> holder(const std::string& path);

  ProcessLock(ProcessLock&&) noexcept = default;
  ProcessLock& operator=(ProcessLock&&) = delete;
  ~ProcessLock();

  // To be called from time to time. True: the file was not there any more, and is again. The error:
  // it is not, or another process has it by now.
  [[nodiscard]] Result<bool> restore();

  // The same by another process, which may write to the folder: it acquires the lock for this one, releases
  // it and passes the descriptor on.
  [[nodiscard]] bool is_in_place() const;
  [[nodiscard]] UniqueFd release() { return std::move(fd_); }
  void replace(UniqueFd locked) { fd_ = std::move(locked); }

 private:
  ProcessLock(UniqueFd fd, std::string path, std::string what)
      : fd_(std::move(fd)), path_(std::move(path)), what_(std::move(what)) {}
  UniqueFd fd_;
  std::string path_;
  std::string what_;
};

[[nodiscard]] std::string guest_lock_path(const std::string& run_directory, DomainId domain);
// Whether one of these locks is held.
[[nodiscard]] bool any_guest_is_served(const std::string& run_directory);
// Where the disks of all guests tell each other of their writes; see LunWriteBarrier.
[[nodiscard]] std::string barrier_directory(const std::string& run_directory);
[[nodiscard]] std::string service_lock_path(const std::string& run_directory);

}  // namespace iscsi_blkback
