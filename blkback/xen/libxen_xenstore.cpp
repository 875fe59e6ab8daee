// XenStore on libxenstore (read at 4.17 and 4.20), and what that leaves to its user:
//
// - Its reader thread feeds a pipe that holds one byte for the whole queue of watch events. The
//   pipe is readable while the queue is not empty, and only emptying the queue clears it.
// - When xenstored dies, the reader thread ends and the pipe says nothing. So there is a second
//   connection to the same socket, whose hang-up tells of the death. The domains without such a
//   socket reach a xenstored elsewhere through the kernel's device. There a question from time to
//   time has to do.
// - A question that is under way at that moment fails with EINVAL, as if it had been wrong.
// - It gives up its connection at an answer longer than XENSTORE_PAYLOAD_MAX, and oxenstored (read
//   at 4.17 and 4.20) puts a list of any length into one answer on its socket. So the second
//   connection asks for lists, and reads what comes. The xenstored in C refuses a long list with
//   E2BIG, and libxenstore then asks for it in parts, which oxenstored does not know.
// - Nothing bounds the time of a call. It blocks the control thread, which the disks do not wait
//   for, and a CallWatchdog says so in the log.
// - XS_UNWATCH_FILTER leaks the events that it takes out, so they are left out here.
// - A call that fails closes the connection's fd, and so does the reader thread, without a lock: a
//   connection that is known to be dead is not used any more, so that the number of the fd, which
//   may be another connection's by then, is not closed twice.
#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "blkback/xen/call_watchdog.h"
#include "blkback/xen/xenstore.h"

extern "C" {
#include <xen/io/xs_wire.h>
#include <xenstore.h>
#include <xenstore_lib.h>
}

namespace iscsi_blkback {
namespace {

struct FreeDeleter {
  void operator()(void* allocated) const { std::free(allocated); }
};
template <class T>
using Allocated = std::unique_ptr<T, FreeDeleter>;

struct CloseDeleter {
  void operator()(xs_handle* handle) const { xs_close(handle); }
};
using Handle = std::unique_ptr<xs_handle, CloseDeleter>;

constexpr const char* kDevice = "/dev/xen/xenbus";
constexpr int kMaxTransactionAttempts = 64;
// Several times what the folders of all the domains that Xen has numbers for would take.
constexpr std::size_t kMaxListBytes = 1024 * 1024;

// What only xenstored says, and not libxenstore of a connection that is lost.
bool is_answer(int error) {
  return error == ENOENT || error == EACCES || error == EEXIST || error == EAGAIN;
}

// As libxenstore: what is not known is EINVAL.
int errno_of(std::string_view name) {
  name = name.substr(0, name.find('\0'));
  const auto* const known =
      std::find_if(std::begin(xsd_errors), std::end(xsd_errors),
                   [&](const auto& error) { return name == error.errstring; });
  return known != std::end(xsd_errors) ? known->errnum : EINVAL;
}

// Each name is ended by a null byte.
std::vector<std::string> names_in(std::string_view list) {
  std::vector<std::string> names;
  while (!list.empty()) {
    names.emplace_back(list.substr(0, list.find('\0')));
    list.remove_prefix(std::min(names.back().size() + 1, list.size()));
  }
  return names;
}

std::string socket_path() {
  const char* const path = xs_daemon_socket();
  return path != nullptr ? path : "";
}

bool is_socket(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

class LibxenXenStore final : public XenStore {
 public:
  LibxenXenStore(const XenStoreTimes& times, SlowCallListener* listener)
      : watchdog_("xenstored", times.notice_after, listener),
        liveness_interval_(times.liveness_interval),
        relayed_from_device_(times.relayed_from_device) {}

  Result<void> open() {
    const std::string path = socket_path();
    unsigned long flags = 0;
    if (is_socket(path)) {
      // First, so that a xenstored that dies in between is noticed.
      if (auto connected =
              watchdog_.watched("connecting to", path, [&] { return connect_second(path); });
          !connected) {
        return connected;
      }
#ifdef XS_OPEN_SOCKETONLY
      // The kernel's device is no substitute for the socket: it leads to the same xenstored, and
      // waits for a dead one for ever.
      flags |= XS_OPEN_SOCKETONLY;
#endif
    }
    handle_.reset(watchdog_.watched("connecting to", path, [flags] { return xs_open(flags); }));
    if (handle_ == nullptr) {
      return tl::unexpected(system_error(
          fmt::format("cannot reach xenstored (no {} and no /dev/xen/xenbus)", path), errno));
    }
    return make_fd();
  }

  Result<std::string> read(const std::string& path) override {
    return read_in(XBT_NULL, path);
  }
  Result<void> write(const std::string& path, std::string_view value) override {
    return write_in(XBT_NULL, path, value);
  }
  Result<void> remove(const std::string& path) override {
    return remove_in(XBT_NULL, path);
  }
  Result<std::vector<std::string>> list(const std::string& path) override {
    if (second_.valid()) {
      std::string list;
      bool in_parts = false;
      const auto done = call("listing", path, [&] {
        errno = ask_for_list(path, list);
        in_parts = errno == E2BIG;
        return errno == 0 || in_parts;
      });
      if (!done) {
        return tl::unexpected(done.error());
      }
      if (!in_parts) {
        return names_in(list);
      }
    }
    return list_by_libxenstore(path);
  }

  Result<void> transaction(const std::function<Result<void>(XenStoreAccess&)>& body) override {
    static const std::string kAll = "(all)";
    for (int attempt = 0; attempt < kMaxTransactionAttempts; ++attempt) {
      xs_transaction_t started = XBT_NULL;
      auto begun = call("starting a transaction for", kAll, [&] {
        started = xs_transaction_start(handle_.get());
        return started != XBT_NULL;
      });
      if (!begun) {
        return begun;
      }
      Transaction transaction(*this, started);
      Result<void> done = body(transaction);
      int number = 0;
      auto ended = call("ending a transaction for", kAll, [&] {
        const bool ok = xs_transaction_end(handle_.get(), started, !done);
        number = ok ? 0 : errno;
        return ok;
      });
      if (!done) {
        return done;
      }
      if (ended || number != EAGAIN) {
        return ended;
      }
    }
    return fail(ErrorCode::exhausted,
                fmt::format("a xenstore transaction conflicted {} times", kMaxTransactionAttempts));
  }

  Result<void> watch(const std::string& path, const std::string& token) override {
    auto done = call("watching", path,
                     [&] { return xs_watch(handle_.get(), path.c_str(), token.c_str()); });
    if (done) {
      watches_.push_back({path, token});
    }
    return done;
  }

  void unwatch(const std::string& path, const std::string& token) override {
    (void)call("no longer watching", path,
               [&] { return xs_unwatch(handle_.get(), path.c_str(), token.c_str()); });
    std::erase_if(watches_, [&](const WatchEvent& watch) {
      return watch.path == path && watch.token == token;
    });
  }

  int fd() const override {
    return any_.get();
  }

  Result<std::optional<WatchEvent>> next_event() override {
    std::uint64_t ignored = 0;
    if (timer_.valid() && !lost_ &&
        ::read(timer_.get(), &ignored, sizeof ignored) == static_cast<ssize_t>(sizeof ignored)) {
      ask_whether_it_lives();
    }
    if (is_lost()) {
      return tl::unexpected(*lost_);
    }
    errno = 0;
    while (const Allocated<char*> strings{xs_check_watch(handle_.get())}) {
      WatchEvent event{strings.get()[XS_WATCH_PATH], strings.get()[XS_WATCH_TOKEN]};
      if (is_watched(event)) {
        return std::optional<WatchEvent>(std::move(event));
      }
      errno = 0;
    }
    if (errno == EAGAIN || errno == 0) {
      return std::optional<WatchEvent>{};
    }
    return tl::unexpected(lose());
  }

 private:
  class Transaction final : public XenStoreAccess {
   public:
    Transaction(LibxenXenStore& store, xs_transaction_t transaction)
        : store_(store), transaction_(transaction) {}

    Result<std::string> read(const std::string& path) override {
      return store_.read_in(transaction_, path);
    }
    Result<void> write(const std::string& path, std::string_view value) override {
      return store_.write_in(transaction_, path, value);
    }
    Result<void> remove(const std::string& path) override {
      return store_.remove_in(transaction_, path);
    }

   private:
    LibxenXenStore& store_;
    xs_transaction_t transaction_;
  };

  // The second connection. xenstored has room for one or two that it has not accepted yet, and the
  // first one is one of them: this one waits for room, but a xenstored that hangs not for ever.
  Result<void> connect_second(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
      return fail(ErrorCode::invalid_argument, fmt::format("{} is too long for a socket", path));
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    constexpr timeval kPatience{.tv_sec = 5, .tv_usec = 0};
    second_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!second_.valid() ||
        ::setsockopt(second_.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof kPatience) != 0 ||
        ::connect(second_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
            0) {
      return tl::unexpected(system_error(fmt::format("cannot reach xenstored ({})", path), errno));
    }
    return {};
  }

  Result<void> make_fd() {
    loss_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    any_.reset(::epoll_create1(EPOLL_CLOEXEC));
    bool opened = add(xs_fileno(handle_.get())) && add(loss_.get());
    if (second_.valid()) {
      opened = opened && add(second_.get());
    }
    if (!second_.valid() || relayed_from_device_) {
      timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
      itimerspec times{};
      times.it_value.tv_sec = liveness_interval_.count() / 1000;
      times.it_value.tv_nsec = liveness_interval_.count() % 1000 * 1000000;
      times.it_interval = times.it_value;
      opened =
          opened && ::timerfd_settime(timer_.get(), 0, &times, nullptr) == 0 && add(timer_.get());
    }
    return opened ? Result<void>()
                  : tl::unexpected(
                        system_error("the connection to xenstored cannot be watched", errno));
  }

  Result<std::string> read_in(xs_transaction_t transaction, const std::string& path) {
    unsigned int length = 0;
    Allocated<void> value;
    const auto done = call("reading", path, [&] {
      value.reset(xs_read(handle_.get(), transaction, path.c_str(), &length));
      return value != nullptr;
    });
    if (!done) {
      return tl::unexpected(done.error());
    }
    return std::string(static_cast<const char*>(value.get()), length);
  }

  Result<void> write_in(xs_transaction_t transaction, const std::string& path,
                        std::string_view value) {
    return call("writing", path, [&] {
      return xs_write(handle_.get(), transaction, path.c_str(), value.data(),
                      static_cast<unsigned int>(value.size()));
    });
  }

  Result<void> remove_in(xs_transaction_t transaction, const std::string& path) {
    // xs_rm calls it a success when only the last component is missing (xenstore.txt: RM). Asking
    // first costs a round trip, which is nothing on the control thread.
    if (Result<std::string> there = read_in(transaction, path); !there) {
      return tl::unexpected(there.error());
    }
    return call("removing", path, [&] { return xs_rm(handle_.get(), transaction, path.c_str()); });
  }

  Result<std::vector<std::string>> list_by_libxenstore(const std::string& path) {
    unsigned int count = 0;
    int error = 0;
    Allocated<char*> names;
    const auto done = call("listing", path, [&] {
      names.reset(xs_directory(handle_.get(), XBT_NULL, path.c_str(), &count));
      error = names == nullptr ? errno : 0;
      return names != nullptr;
    });
    if (error == E2BIG && !lost_) {
      return fail(ErrorCode::unsupported,
                  fmt::format("the list of xenstore node {} is longer than {} bytes, and this "
                              "domain's xenstored (oxenstored) gives no such list to a domain that "
                              "reaches it without its socket",
                              path, XENSTORE_PAYLOAD_MAX));
    }
    if (!done) {
      return tl::unexpected(done.error());
    }
    return std::vector<std::string>(names.get(), names.get() + count);
  }

  // XS_DIRECTORY on the second connection: 0, or the errno of xenstored's answer. EIO: the
  // connection is lost.
  int ask_for_list(const std::string& path, std::string& list) {
    xsd_sockmsg header{};
    header.type = XS_DIRECTORY;
    header.len = static_cast<std::uint32_t>(path.size() + 1);
    std::string question(reinterpret_cast<const char*>(&header), sizeof header);
    question.append(path.c_str(), header.len);
    if (!send_by_second(question) || !receive_by_second(&header, sizeof header)) {
      (void)lose();
      return EIO;
    }
    if ((header.type != XS_DIRECTORY && header.type != XS_ERROR) || header.len > kMaxListBytes) {
      (void)lose(fmt::format("xenstored's answer is no list of its node {} (type {}, {} bytes)",
                             path, header.type, header.len));
      return EIO;
    }
    list.resize(header.len);
    if (!receive_by_second(list.data(), list.size())) {
      (void)lose();
      return EIO;
    }
    return header.type == XS_ERROR ? errno_of(list) : 0;
  }

  bool send_by_second(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(second_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno != EINTR) {
        return false;
      }
      bytes.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(sent, 0)));
    }
    return true;
  }

  bool receive_by_second(void* to, std::size_t length_bytes) {
    auto* at = static_cast<char*>(to);
    while (length_bytes != 0) {
      const ssize_t got = ::recv(second_.get(), at, length_bytes, 0);
      if (got == 0 || (got < 0 && errno != EINTR)) {
        return false;
      }
      at += std::max<ssize_t>(got, 0);
      length_bytes -= static_cast<std::size_t>(std::max<ssize_t>(got, 0));
    }
    return true;
  }

  // One call, which says by false and errno that it has failed. what and path are for messages.
  template <class Call>
  Result<void> call(const char* what, const std::string& path, Call&& body) {
    if (is_lost()) {
      return tl::unexpected(*lost_);
    }
    // The library would see a shorter one; xenstored ends a connection whose question is too long.
    if (path.find('\0') != std::string::npos || path.size() >= XENSTORE_PAYLOAD_MAX) {
      return tl::unexpected(system_error(fmt::format("{} xenstore node {}", what, path), EINVAL));
    }
    errno = 0;
    if (watchdog_.watched(what, path, std::forward<Call>(body))) {
      return {};
    }
    const int error = errno;
    if (!is_answer(error)) {
      if (!lost_) {
        ask_whether_it_lives();
      }
      if (lost_) {
        return tl::unexpected(*lost_);
      }
    }
    return tl::unexpected(
        system_error(fmt::format("{} xenstore node {}", what, path), error != 0 ? error : EIO));
  }

  // The domain's number is as good a question as any: what is answered does not matter. On a
  // connection that libxenstore has given up, every call fails without an answer.
  void ask_whether_it_lives() {
    const std::string path = "domid";
    unsigned int length = 0;
    errno = 0;
    const Allocated<void> value(watchdog_.watched(
        "reading", path, [&] { return xs_read(handle_.get(), XBT_NULL, path.c_str(), &length); }));
    if (value == nullptr && !is_answer(errno)) {
      (void)lose();
    }
  }

  // False: it had been queued when its watch was given up.
  [[nodiscard]] bool is_watched(const WatchEvent& event) const {
    return std::any_of(watches_.begin(), watches_.end(), [&](const WatchEvent& watch) {
      return event.token == watch.token &&
             xs_path_is_subpath(watch.path.c_str(), event.path.c_str());
    });
  }

  [[nodiscard]] bool is_lost() {
    pollfd at{second_.get(), POLLIN | POLLRDHUP, 0};
    if (!lost_ && second_.valid() && ::poll(&at, 1, 0) > 0) {
      (void)lose();
    }
    return lost_.has_value();
  }

  // From now on every call fails, and fd() is readable.
  Error lose(std::string why = "xenstored has ended the connection") {
    if (!lost_) {
      lost_ = Error{ErrorCode::unavailable, std::move(why)};
      (void)::eventfd_write(loss_.get(), 1);
    }
    return *lost_;
  }

  bool add(int fd) {
    epoll_event readable{};
    readable.events = EPOLLIN | EPOLLRDHUP;
    return ::epoll_ctl(any_.get(), EPOLL_CTL_ADD, fd, &readable) == 0;
  }

  CallWatchdog watchdog_;
  Handle handle_;
  UniqueFd second_;  // not valid: xenstored has no socket here
  std::chrono::milliseconds liveness_interval_;
  bool relayed_from_device_;
  UniqueFd loss_;   // an eventfd: set when the connection is lost
  UniqueFd timer_;  // where no hang-up tells
  UniqueFd any_;    // an epoll of libxenstore's pipe and of these
  std::vector<WatchEvent> watches_;
  std::optional<Error> lost_;
};

}  // namespace

XenStoreAddress xenstore_address() {
  std::string path = socket_path();
  if (is_socket(path) || ::access(kDevice, F_OK) != 0) {
    return {std::move(path), false};
  }
  return {kDevice, true};
}

Result<std::unique_ptr<XenStore>> open_xenstore(const XenStoreTimes& times,
                                                SlowCallListener* listener) {
  auto store = std::make_unique<LibxenXenStore>(times, listener);
  if (auto opened = store->open(); !opened) {
    return tl::unexpected(opened.error());
  }
  return store;
}

}  // namespace iscsi_blkback
