// ProcessSignals: SIGTERM and SIGINT, or others, as events of a reactor. Make it before any other
// thread exists: the signals are blocked in this thread and in those that it starts.
#pragma once

#include <array>
#include <csignal>
#include <memory>
#include <span>

#include "base/reactor.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

class ProcessSignals {
 public:
  static constexpr std::array kEndOfProcess = {SIGTERM, SIGINT};
  using Callback = void (*)(void* owner) noexcept;
  // Also ignores SIGPIPE: a peer that closes its socket must not end the process. Error: the system call's.
  [[nodiscard]] static Result<std::unique_ptr<ProcessSignals>> create(
      Reactor& reactor, Callback on_terminate, void* owner,
      std::span<const int> numbers = kEndOfProcess);

 private:
  ProcessSignals(UniqueFd fd, Callback on_terminate, void* owner)
      : fd_(std::move(fd)), on_terminate_(on_terminate), owner_(owner) {}
  void take();

  UniqueFd fd_;
  Callback on_terminate_;
  void* owner_;
  std::unique_ptr<FdWatch> watch_;
};

}  // namespace iscsi_blkback
