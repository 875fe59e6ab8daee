#include "tools/ctl/status_client.h"

#include <dirent.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "base/decimal.h"
#include "base/unique_fd.h"
#include "blkback/control/control_protocol.h"

namespace iscsi_blkback {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::string_view kStatusRequest = "{\"command\":\"status\"}";
constexpr std::size_t kMaxProcesses = 4096;

struct Conversation {
  std::optional<unsigned> domain;
  std::string request = std::string(kStatusRequest) + '\n';
  UniqueFd socket;
  std::size_t sent = 0;
  std::string received;
  std::optional<Result<std::string>> outcome;

  void fail_with(Error error) {
    outcome.emplace(tl::unexpected(std::move(error)));
    socket.reset();
  }
};

// guest-DOMID.sock
std::optional<unsigned> guest_of(std::string_view file) {
  constexpr std::string_view kStart = "guest-";
  constexpr std::string_view kEnd = ".sock";
  if (!file.starts_with(kStart) || !file.ends_with(kEnd) ||
      file.size() <= kStart.size() + kEnd.size()) {
    return std::nullopt;
  }
  file.remove_prefix(kStart.size());
  file.remove_suffix(kEnd.size());
  return parse_decimal<unsigned>(file);
}

struct Found {
  bool service = false;
  std::vector<unsigned> guests;
};

Result<Found> find_sockets(const std::string& run_directory) {
  Found found;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(run_directory.c_str()), ::closedir);
  if (folder == nullptr) {
    if (errno == ENOENT) {
      return found;
    }
    return tl::unexpected(system_error(fmt::format("cannot look into {}", run_directory), errno));
  }
  while (const dirent* entry = ::readdir(folder.get())) {
    const std::string_view name = entry->d_name;
    if (name == "service.sock") {
      found.service = true;
    } else if (const auto guest = guest_of(name); guest && found.guests.size() < kMaxProcesses) {
      found.guests.push_back(*guest);
    }
  }
  std::sort(found.guests.begin(), found.guests.end());
  return found;
}

void connect_to(Conversation& talk, const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    talk.fail_with(Error{ErrorCode::invalid_argument, path + " is too long for a socket's name"});
    return;
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  talk.socket.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!talk.socket.valid()) {
    talk.fail_with(system_error("cannot make a socket", errno));
    return;
  }
  // A unix socket connects at once or not at all; EAGAIN says that the other side's queue is full.
  if (::connect(talk.socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
      0) {
    if (errno == EAGAIN) {
      talk.fail_with(Error{ErrorCode::timed_out, "it does not accept connections"});
    } else {
      talk.fail_with(system_error(fmt::format("cannot connect to {}", path), errno));
    }
  }
}

void send_more(Conversation& talk) {
  const std::string_view rest = std::string_view(talk.request).substr(talk.sent);
  const ssize_t sent = ::send(talk.socket.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
  if (sent >= 0) {
    talk.sent += static_cast<std::size_t>(sent);
  } else if (errno != EAGAIN && errno != EINTR) {
    talk.fail_with(system_error("cannot ask", errno));
  }
}

void receive_more(Conversation& talk) {
  std::array<char, 16384> piece;
  const ssize_t got = ::recv(talk.socket.get(), piece.data(), piece.size(), 0);
  if (got < 0) {
    if (errno != EAGAIN && errno != EINTR) {
      talk.fail_with(system_error("cannot read the answer", errno));
    }
    return;
  }
  if (got == 0) {
    talk.fail_with(Error{ErrorCode::unavailable, "it ended the connection without an answer"});
    return;
  }
  const std::string_view fresh(piece.data(), static_cast<std::size_t>(got));
  const std::size_t end = fresh.find('\n');
  talk.received.append(fresh.substr(0, end));
  if (talk.received.size() > kMaxControlReplyBytes) {
    talk.fail_with(Error{ErrorCode::protocol, "its answer is too long"});
  } else if (end != std::string_view::npos) {
    talk.outcome.emplace(std::move(talk.received));
    talk.socket.reset();
  }
}

void converse(std::vector<Conversation>& talks, SteadyClock::time_point deadline) {
  std::vector<pollfd> polled;
  std::vector<Conversation*> owners;
  while (true) {
    polled.clear();
    owners.clear();
    for (Conversation& talk : talks) {
      if (!talk.outcome) {
        const short events = talk.sent < talk.request.size() ? POLLOUT : POLLIN;
        polled.push_back({talk.socket.get(), events, 0});
        owners.push_back(&talk);
      }
    }
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now());
    if (polled.empty() || left.count() <= 0) {
      break;
    }
    if (::poll(polled.data(), polled.size(), static_cast<int>(left.count()) + 1) < 0 &&
        errno != EINTR) {
      break;
    }
    for (std::size_t at = 0; at < polled.size(); ++at) {
      if (polled[at].revents == 0) {
        continue;
      }
      if (owners[at]->sent < owners[at]->request.size()) {
        send_more(*owners[at]);
      } else {
        receive_more(*owners[at]);
      }
    }
  }
  for (Conversation& talk : talks) {
    if (!talk.outcome) {
      talk.fail_with(Error{ErrorCode::timed_out, "it does not answer"});
    }
  }
}

}  // namespace

Result<std::vector<StatusReply>> ask_status(const std::string& run_directory,
                                            std::chrono::milliseconds timeout) {
  const auto deadline = SteadyClock::now() + timeout;
  const auto found = find_sockets(run_directory);
  if (!found) {
    return tl::unexpected(found.error());
  }
  std::vector<Conversation> talks(found->guests.size() + (found->service ? 1 : 0));
  std::size_t at = 0;
  if (found->service) {
    connect_to(talks[at++], service_socket_path(run_directory));
  }
  for (const unsigned guest : found->guests) {
    talks[at].domain = guest;
    connect_to(talks[at++], guest_socket_path(run_directory, guest));
  }
  for (const Conversation& talk : talks) {
    if (talk.outcome && !*talk.outcome &&
        talk.outcome->error().code == ErrorCode::permission_denied) {
      return tl::unexpected(talk.outcome->error());
    }
  }
  converse(talks, deadline);
  std::vector<StatusReply> replies;
  replies.reserve(talks.size());
  for (Conversation& talk : talks) {
    replies.push_back({talk.domain, std::move(*talk.outcome)});
  }
  return replies;
}

Result<std::string> ask_guest(const std::string& run_directory, unsigned domain,
                              const std::string& request, std::chrono::milliseconds timeout) {
  const auto deadline = SteadyClock::now() + timeout;
  std::vector<Conversation> talks(1);
  talks[0].request = request + '\n';
  connect_to(talks[0], guest_socket_path(run_directory, domain));
  converse(talks, deadline);
  return std::move(*talks[0].outcome);
}

}  // namespace iscsi_blkback
