#include "tests/support/tcp_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace iscsi_blkback {
namespace {

using SteadyClock = std::chrono::steady_clock;

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void set_no_delay(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void close_with_reset(UniqueFd& fd) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  fd.reset();
}

struct Chunk {
  SteadyClock::time_point due;
  std::vector<std::byte> bytes;
  std::size_t sent = 0;
};

// One direction of a connection.
struct Flow {
  std::deque<Chunk> chunks;
  bool stalled = false;
  bool source_ended = false;  // no more comes
  bool source_reset = false;
  bool ended = false;  // the receiver has been told, or is gone
  std::optional<std::uint64_t> cut_after;
  TcpProxy::Ending ending = TcpProxy::Ending::fin;

  [[nodiscard]] std::uint64_t held() const {
    std::uint64_t bytes = 0;
    for (const Chunk& chunk : chunks) {
      bytes += chunk.bytes.size() - chunk.sent;
    }
    return bytes;
  }
};

struct Link {
  // By TcpProxy::Way of what they send: 0 the initiator's socket, 1 the target's.
  std::array<UniqueFd, 2> ends;
  std::array<Flow, 2> flows;
  bool dead = false;
};

}  // namespace

class TcpProxy::Impl {
 public:
  Impl(UniqueFd listener, UniqueFd wake, std::uint16_t port, std::uint16_t target_port)
      : target_port_(target_port),
        listener_(std::move(listener)),
        wake_(std::move(wake)),
        port_(port),
        thread_([this] { run(); }) {}

  ~Impl() {
    change([this] { stopping_ = true; });
    thread_.join();
    for (Link& link : links_) {
      kill(link);
    }
  }

  template <class Change>
  void change(Change what) {
    {
      const std::lock_guard lock(mutex_);
      what();
    }
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
  }

  template <class Look>
  auto look(Look what) const {
    const std::lock_guard lock(mutex_);
    return what();
  }

  static void kill(Link& link) {
    for (UniqueFd& end : link.ends) {
      if (end.valid()) {
        close_with_reset(end);
      }
    }
    link.dead = true;
  }

  [[nodiscard]] std::uint16_t port() const { return port_; }

  std::list<Link> links_;  // under mutex_, as what follows
  std::chrono::milliseconds delay_{0};
  bool refusing_ = false;
  std::uint16_t target_port_;
  std::uint64_t accepted_ = 0;
  std::array<std::uint64_t, 2> forwarded_{};

 private:
  void run() {
    while (true) {
      std::vector<pollfd> polled;
      std::vector<std::pair<Link*, std::size_t>> owners;
      int timeout_ms = -1;
      {
        const std::lock_guard lock(mutex_);
        if (stopping_) {
          return;
        }
        prepare(polled, owners, timeout_ms);
      }
      ::poll(polled.data(), polled.size(), timeout_ms);
      const std::lock_guard lock(mutex_);
      if (polled[0].revents != 0) {
        std::uint64_t count = 0;
        [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
      }
      for (std::size_t i = 2; i < polled.size(); ++i) {
        if ((polled[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
          take(*owners[i - 2].first, owners[i - 2].second);
        }
      }
      for (Link& link : links_) {
        pass(link, 0);
        pass(link, 1);
        if (link.flows[0].ended && link.flows[1].ended) {
          link.dead = true;
        }
      }
      links_.remove_if([](const Link& link) { return link.dead; });
      if (polled[1].revents != 0) {
        accept_one();
      }
    }
  }

  void prepare(std::vector<pollfd>& polled, std::vector<std::pair<Link*, std::size_t>>& owners,
               int& timeout_ms) {
    polled.push_back({.fd = wake_.get(), .events = POLLIN, .revents = 0});
    polled.push_back({.fd = listener_.get(), .events = POLLIN, .revents = 0});
    const auto now = SteadyClock::now();
    for (Link& link : links_) {
      for (std::size_t way = 0; way < 2; ++way) {
        short events = 0;
        if (!link.flows[way].source_ended) {
          events |= POLLIN;
        }
        const Flow& back = link.flows[1 - way];  // what this socket is to receive
        if (!back.stalled && !back.chunks.empty() && !back.ended) {
          const auto wait =
              std::chrono::ceil<std::chrono::milliseconds>(back.chunks.front().due - now).count();
          if (wait <= 0) {
            events |= POLLOUT;
          } else {
            timeout_ms = timeout_ms < 0 ? static_cast<int>(wait)
                                        : std::min(timeout_ms, static_cast<int>(wait));
          }
        }
        if (events != 0 && link.ends[way].valid()) {
          polled.push_back({.fd = link.ends[way].get(), .events = events, .revents = 0});
          owners.emplace_back(&link, way);
        }
      }
    }
  }

  // What has arrived at one end.
  void take(Link& link, std::size_t way) {
    Flow& flow = link.flows[way];
    if (flow.source_ended || !link.ends[way].valid()) {
      return;
    }
    std::vector<std::byte> bytes(65536);
    const ssize_t count = ::recv(link.ends[way].get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count > 0) {
      bytes.resize(static_cast<std::size_t>(count));
      flow.chunks.push_back(Chunk{SteadyClock::now() + delay_, std::move(bytes)});
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
      flow.source_ended = true;
      flow.source_reset = count != 0;
    }
  }

  // Sends on what may go.
  void pass(Link& link, std::size_t way) {
    Flow& flow = link.flows[way];
    UniqueFd& to = link.ends[1 - way];
    const auto now = SteadyClock::now();
    while (!link.dead && !flow.ended && !flow.stalled && !flow.chunks.empty() &&
           flow.chunks.front().due <= now) {
      Chunk& chunk = flow.chunks.front();
      std::uint64_t most = chunk.bytes.size() - chunk.sent;
      if (flow.cut_after) {
        most = std::min(most, *flow.cut_after);
      }
      ssize_t count = 0;
      if (most != 0) {
        count =
            ::send(to.get(), chunk.bytes.data() + chunk.sent, most, MSG_DONTWAIT | MSG_NOSIGNAL);
      }
      if (count < 0) {
        if (errno != EAGAIN && errno != EINTR) {
          flow.chunks.clear();
          flow.ended = true;  // the receiver is gone
          flow.source_ended = true;
        }
        break;
      }
      chunk.sent += static_cast<std::size_t>(count);
      forwarded_[way] += static_cast<std::uint64_t>(count);
      if (chunk.sent == chunk.bytes.size()) {
        flow.chunks.pop_front();
      }
      if (flow.cut_after && (*flow.cut_after -= static_cast<std::uint64_t>(count)) == 0) {
        cut(link, flow.ending);
        return;
      }
    }
    if (!link.dead && !flow.ended && !flow.stalled && flow.chunks.empty() && flow.source_ended) {
      flow.ended = true;
      if (flow.source_reset) {
        kill(link);
      } else {
        ::shutdown(to.get(), SHUT_WR);
      }
    }
  }

  static void cut(Link& link, Ending ending) {
    if (ending == Ending::fin) {
      // An orderly end towards both, whatever was still to come.
      for (UniqueFd& end : link.ends) {
        ::shutdown(end.get(), SHUT_WR);
        end.reset();
      }
      link.dead = true;
    } else {
      kill(link);
    }
  }

  void accept_one() {
    UniqueFd initiator(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!initiator.valid()) {
      return;
    }
    ++accepted_;
    UniqueFd target(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address = loopback(target_port_);
    if (refusing_ ||
        ::connect(target.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      close_with_reset(initiator);
      return;
    }
    set_no_delay(initiator.get());
    set_no_delay(target.get());
    Link& link = links_.emplace_back();
    link.ends = {std::move(initiator), std::move(target)};
  }

  mutable std::mutex mutex_;
  bool stopping_ = false;  // under mutex_
  UniqueFd listener_;
  UniqueFd wake_;
  const std::uint16_t port_;
  std::thread thread_;  // last: it uses the rest
};

Result<std::unique_ptr<TcpProxy>> TcpProxy::start(std::uint16_t target_port) {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  sockaddr_in address = loopback(0);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (!listener.valid() || !wake.valid() || ::bind(listener.get(), generic, length) != 0 ||
      ::listen(listener.get(), 64) != 0 || ::getsockname(listener.get(), generic, &length) != 0) {
    return tl::unexpected(system_error("the proxy cannot listen", errno));
  }
  return std::unique_ptr<TcpProxy>(new TcpProxy(std::make_unique<Impl>(
      std::move(listener), std::move(wake), ntohs(address.sin_port), target_port)));
}

TcpProxy::TcpProxy(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

TcpProxy::~TcpProxy() = default;

std::uint16_t TcpProxy::port() const {
  return impl_->port();
}

void TcpProxy::stall(Way way) {
  impl_->change([this, way] {
    for (Link& link : impl_->links_) {
      link.flows[static_cast<std::size_t>(way)].stalled = true;
    }
  });
}

void TcpProxy::release() {
  impl_->change([this] {
    for (Link& link : impl_->links_) {
      for (Flow& flow : link.flows) {
        flow.stalled = false;
      }
    }
  });
}

void TcpProxy::set_delay(std::chrono::milliseconds delay) {
  impl_->change([this, delay] { impl_->delay_ = delay; });
}

void TcpProxy::cut_after(Way way, std::uint64_t bytes, Ending ending) {
  impl_->change([&] {
    for (Link& link : impl_->links_) {
      Flow& flow = link.flows[static_cast<std::size_t>(way)];
      flow.cut_after = bytes;
      flow.ending = ending;
    }
  });
}

void TcpProxy::reset() {
  impl_->change([this] {
    for (Link& link : impl_->links_) {
      Impl::kill(link);
    }
  });
}

void TcpProxy::set_refusing(bool refusing) {
  impl_->change([this, refusing] { impl_->refusing_ = refusing; });
}

void TcpProxy::set_target_port(std::uint16_t port) {
  impl_->change([this, port] { impl_->target_port_ = port; });
}

std::uint64_t TcpProxy::accepted() const {
  return impl_->look([this] { return impl_->accepted_; });
}

std::uint64_t TcpProxy::open() const {
  return impl_->look([this] { return std::uint64_t{impl_->links_.size()}; });
}

std::uint64_t TcpProxy::forwarded(Way way) const {
  return impl_->look([this, way] { return impl_->forwarded_[static_cast<std::size_t>(way)]; });
}

std::uint64_t TcpProxy::stalled(Way way) const {
  return impl_->look([this, way] {
    std::uint64_t bytes = 0;
    for (const Link& link : impl_->links_) {
      const Flow& flow = link.flows[static_cast<std::size_t>(way)];
      bytes += flow.stalled ? flow.held() : 0;
    }
    return bytes;
  });
}

}  // namespace iscsi_blkback
