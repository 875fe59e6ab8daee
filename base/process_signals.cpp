#include "base/process_signals.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

namespace iscsi_blkback {

Result<std::unique_ptr<ProcessSignals>> ProcessSignals::create(Reactor& reactor,
                                                               Callback on_terminate, void* owner,
                                                               std::span<const int> numbers) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : numbers) {
    sigaddset(&signals, number);
  }
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  if (pthread_sigmask(SIG_BLOCK, &signals, nullptr) != 0 ||
      sigaction(SIGPIPE, &ignore, nullptr) != 0) {
    return tl::unexpected(system_error("signals cannot be set up", errno));
  }
  UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) {
    return tl::unexpected(system_error("signals cannot be set up", errno));
  }
  std::unique_ptr<ProcessSignals> result(new ProcessSignals(std::move(fd), on_terminate, owner));
  result->watch_ = reactor.watch_readable(
      result->fd_.get(), [](void* self) noexcept { static_cast<ProcessSignals*>(self)->take(); },
      result.get());
  return result;
}

void ProcessSignals::take() {
  signalfd_siginfo information{};
  while (::read(fd_.get(), &information, sizeof information) == sizeof information) {
    on_terminate_(owner_);
  }
}

}  // namespace iscsi_blkback
