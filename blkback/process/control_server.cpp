#include "blkback/process/control_server.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <utility>

#include "base/unique_fd.h"
#include "blkback/control/control_protocol.h"

namespace iscsi_blkback {
namespace {

constexpr std::chrono::milliseconds kSendRetry{10};
constexpr std::chrono::milliseconds kAcceptRetry{1000};
constexpr int kBacklog = 16;

}  // namespace

class ControlServer::Impl {
 public:
  Impl(Reactor& control, UniqueFd socket, std::string path, Handler handler)
      : control_(control),
        socket_(std::move(socket)),
        path_(std::move(path)),
        handler_(std::move(handler)),
        accept_retry_(
            control, [](void* self) noexcept { static_cast<Impl*>(self)->watch_clients(); }, this),
        collect_(
            control, [](void* self) noexcept { static_cast<Impl*>(self)->collect(); }, this) {
    watch_clients();
  }

  ~Impl() {
    watch_.reset();
    ::unlink(path_.c_str());
  }

 private:
  // Replies hold a weak reference: the client may be gone when the answer comes.
  struct Client : std::enable_shared_from_this<Client> {
    Client(Impl& server, UniqueFd connection)
        : owner(server),
          socket(std::move(connection)),
          timeout(
              server.control_, [](void* self) noexcept { static_cast<Client*>(self)->close(); },
              this),
          send_retry(
              server.control_, [](void* self) noexcept { static_cast<Client*>(self)->send(); },
              this) {}

    void start() {
      timeout.start_after(kClientTimeout);
      watch_input();
    }

    void watch_input() {
      watch = owner.control_.watch_readable(
          socket.get(), [](void* self) noexcept { static_cast<Client*>(self)->receive(); }, this);
    }

    void receive() {
      char buffer[1024];
      const ssize_t count = ::recv(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
      }
      if (count <= 0) {
        close();
        return;
      }
      input.append(buffer, static_cast<std::size_t>(count));
      take_request();
    }

    void take_request() {
      if (busy || closed) {
        return;
      }
      const std::size_t end = input.find('\n');
      if (end == std::string::npos ? input.size() > kMaxControlRequestBytes
                                   : end > kMaxControlRequestBytes) {
        busy = last = true;
        answer(control_refusal("the request is too long"));
        return;
      }
      if (end == std::string::npos) {
        return;
      }
      const std::string request = input.substr(0, end);
      input.erase(0, end + 1);
      busy = true;
      watch.reset();  // no more input until this is answered
      timeout.start_after(kClientTimeout);
      owner.handler_(request, [client = weak_from_this()](std::string line) {
        if (const auto alive = client.lock()) {
          alive->answer(std::move(line));
        }
      });
    }

    void answer(std::string line) {
      if (closed || !busy) {
        return;
      }
      if (line.size() >= kMaxControlReplyBytes) {
        line = control_refusal("the reply is too long");
      }
      output = std::move(line) + '\n';
      sent = 0;
      timeout.start_after(kClientTimeout);
      send();
    }

    void send() {
      while (sent < output.size()) {
        const ssize_t count = ::send(socket.get(), output.data() + sent, output.size() - sent,
                                     MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) {
          continue;
        }
        if (count < 0 && errno == EAGAIN) {
          send_retry.start_after(
              kSendRetry);  // a reader that is merely slow; timeout ends the rest
          return;
        }
        if (count < 0) {
          close();
          return;
        }
        sent += static_cast<std::size_t>(count);
      }
      output.clear();
      busy = false;
      if (last) {
        close();
        return;
      }
      if (watch == nullptr) {
        watch_input();
      }
      owner.pending_.push_back(weak_from_this());  // it may have asked more already
      owner.collect_.schedule();
    }

    void close() {
      closed = true;
      watch.reset();
      timeout.stop();
      send_retry.stop();
      owner.collect_.schedule();
    }

    Impl& owner;
    UniqueFd socket;
    std::unique_ptr<FdWatch> watch;
    Timer timeout;
    Timer send_retry;
    std::string input;
    std::string output;
    std::size_t sent = 0;
    bool busy = false;  // a request is being answered
    bool last = false;
    bool closed = false;
  };

  void watch_clients() {
    watch_ = control_.watch_readable(
        socket_.get(), [](void* self) noexcept { static_cast<Impl*>(self)->accept(); }, this);
  }

  void accept() {
    UniqueFd connection(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!connection.valid()) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        // The client still waits, and the socket would be readable in every turn.
        watch_.reset();
        accept_retry_.start_after(kAcceptRetry);
      }
      return;
    }
    if (clients_.size() >= kMaxClients) {
      const std::string refusal = control_refusal("too many clients at once") + '\n';
      (void)::send(connection.get(), refusal.data(), refusal.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      return;
    }
    clients_.push_back(std::make_shared<Client>(*this, std::move(connection)));
    clients_.back()->start();
  }

  void collect() {
    for (const auto& waiting : std::exchange(pending_, {})) {
      if (const auto client = waiting.lock()) {
        client->take_request();
      }
    }
    clients_.remove_if([](const auto& client) { return client->closed; });
  }

  Reactor& control_;
  UniqueFd socket_;
  std::string path_;
  Handler handler_;
  std::unique_ptr<FdWatch> watch_;
  std::list<std::shared_ptr<Client>> clients_;
  std::vector<std::weak_ptr<Client>> pending_;
  Timer accept_retry_;
  Deferred collect_;
};

ControlServer::ControlServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlServer::~ControlServer() = default;

Result<std::unique_ptr<ControlServer>> ControlServer::listen(Reactor& control,
                                                             const std::string& path,
                                                             Handler handler) {
  auto socket = open_socket(path);
  if (!socket) {
    return tl::unexpected(socket.error());
  }
  return serve(control, std::move(*socket), path, std::move(handler));
}

std::unique_ptr<ControlServer> ControlServer::serve(Reactor& control, UniqueFd socket,
                                                    const std::string& path, Handler handler) {
  return std::unique_ptr<ControlServer>(new ControlServer(
      std::make_unique<Impl>(control, std::move(socket), path, std::move(handler))));
}

Result<UniqueFd> ControlServer::open_socket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} is too long for the path of a socket", path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) {
    return tl::unexpected(system_error("a control socket cannot be made", errno));
  }
  ::unlink(path.c_str());
  // The mode is set before listen(), so nobody can have connected with a laxer one.
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(path.c_str(), S_IRUSR | S_IWUSR) != 0 || ::listen(socket.get(), kBacklog) != 0) {
    return tl::unexpected(system_error(fmt::format("cannot listen on {}", path), errno));
  }
  return socket;
}

}  // namespace iscsi_blkback
