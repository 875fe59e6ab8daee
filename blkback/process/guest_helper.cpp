#include "blkback/process/guest_helper.h"

#include <fmt/format.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <list>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/log.h"
#include "blkback/control/control_protocol.h"
#include "blkback/guest/log_limits.h"
#include "blkback/process/control_server.h"
#include "blkback/process/xenstore_gate.h"
#include "blkback/process/xenstore_relay.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kHelperLog = "helper";
constexpr std::size_t kMostRelays =
    8;  // two for each connection, of which an old one may end just now

enum class HelperRequest : std::uint8_t {
  guest_status,
  restore_lock,
  control_socket,
  firmware_socket,
  remove_firmware_socket,
  remove_files,
};

// Between two processes of one program: as they lie in memory. An answer may have a descriptor beside it.
struct Question {
  HelperRequest what = HelperRequest::guest_status;
  FirmwareDrive drive{};  // whose socket
};
static_assert(std::is_trivially_copyable_v<Question>);
struct Answer {
  bool ok = false;
  bool done = false;  // of restore_lock: it was not there
  ErrorCode code = ErrorCode::io;
  DomainStatus status{};  // of a question about the guest
  std::array<char, 400> why{};
};
static_assert(std::is_trivially_copyable_v<Answer>);

Answer refusal(const Error& error) {
  Answer answer;
  answer.code = error.code;
  error.message.copy(answer.why.data(), answer.why.size() - 1);
  return answer;
}

bool send_answer(int socket, const Answer& answer, int fd = -1) {
  iovec part{const_cast<Answer*>(&answer), sizeof answer};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  return ::sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof answer);
}

// False: the helper has gone.
bool receive_answer(int socket, Answer& answer, UniqueFd& fd) {
  iovec part{&answer, sizeof answer};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(sizeof answer)) {
    return false;
  }
  if (const cmsghdr* const header = CMSG_FIRSTHDR(&message);
      header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    int number = -1;
    std::memcpy(&number, CMSG_DATA(header), sizeof number);
    fd.reset(number);
  }
  return true;
}

Error helper_has_gone() {
  return {ErrorCode::io,
          "the helper of this process has gone; what takes root's rights cannot be done"};
}

// One question, one answer.
Result<Answer> ask(int socket, const Question& question, UniqueFd& fd) {
  Answer answer;
  if (::send(socket, &question, sizeof question, MSG_NOSIGNAL) != sizeof question ||
      !receive_answer(socket, answer, fd)) {
    return tl::unexpected(helper_has_gone());
  }
  if (!answer.ok) {
    answer.why.back() = '\0';
    return fail(answer.code, answer.why.data());
  }
  return answer;
}

// In the process.

class DomainInfoOfHelper final : public DomainInfo {
 public:
  explicit DomainInfoOfHelper(UniqueFd socket) : socket_(std::move(socket)) {}

  // Of the helper's guest, whichever is asked for: it knows of no other.
  Result<DomainStatus> status(DomainId) override {
    UniqueFd none;
    auto answer = ask(socket_.get(), {HelperRequest::guest_status}, none);
    if (!answer) {
      return tl::unexpected(answer.error());
    }
    return answer->status;
  }

 private:
  UniqueFd socket_;
};

class HelpersDoors final : public GuestDoors, private FirmwareSockets {
 public:
  HelpersDoors(UniqueFd files, std::vector<UniqueFd> questions, bool xenstore_by_device)
      : files_(std::move(files)),
        questions_(std::move(questions)),
        xenstore_by_device_(xenstore_by_device) {}

  Result<UniqueFd> open_control_socket() override {
    return socket({HelperRequest::control_socket});
  }

  Result<bool> restore(ProcessLock& lock) override {
    UniqueFd locked;
    auto answer = ask(files_.get(), {HelperRequest::restore_lock}, locked);
    if (!answer) {
      return tl::unexpected(answer.error());
    }
    if (answer->done) {
      lock.replace(std::move(locked));
    }
    return answer->done;
  }

  void remove_files() override {
    UniqueFd none;
    (void)ask(files_.get(), {HelperRequest::remove_files}, none);
  }

  FirmwareSockets& firmware_sockets() override { return *this; }

  // One for each of those who ask, which may be different threads.
  std::unique_ptr<DomainInfo> open_domain_info() override {
    ISCSI_BLKBACK_ASSERT(!questions_.empty());
    UniqueFd socket = std::move(questions_.back());
    questions_.pop_back();
    return std::make_unique<DomainInfoOfHelper>(std::move(socket));
  }

  XenStoreTimes xenstore_times() const override {
    return {.relayed_from_device = xenstore_by_device_};
  }

 private:
  // FirmwareSockets.
  Result<UniqueFd> open(const FirmwareDrive& drive) override {
    return socket({HelperRequest::firmware_socket, drive});
  }
  void remove(const FirmwareDrive& drive) override {
    UniqueFd none;
    (void)ask(files_.get(), {HelperRequest::remove_firmware_socket, drive}, none);
  }

  Result<UniqueFd> socket(const Question& question) {
    UniqueFd opened;
    if (auto answer = ask(files_.get(), question, opened); !answer) {
      return tl::unexpected(answer.error());
    }
    return opened;
  }

  UniqueFd files_;
  std::vector<UniqueFd> questions_;
  bool xenstore_by_device_;
};

// In the helper.

// Made anew at its path; only the user of the process may connect to it.
Result<UniqueFd> open_xenstore_socket(const GuestPlace& place) {
  const std::string path = guest_xenstore_path(place.run_directory, place.guest);
  auto socket = ControlServer::open_socket(path);
  if (socket && place.user && ::geteuid() == 0 &&
      ::chown(path.c_str(), place.user->user, place.user->group) != 0) {
    return tl::unexpected(system_error(fmt::format("{} cannot be handed over", path), errno));
  }
  return socket;
}

// Until the other ends have closed.
void answer_questions(std::vector<UniqueFd> sockets, DomainId guest) {
  const auto domains = open_domain_info_when_asked();
  while (!sockets.empty()) {
    std::vector<pollfd> watched;
    for (const UniqueFd& socket : sockets) {
      watched.push_back({socket.get(), POLLIN, 0});
    }
    if (::poll(watched.data(), watched.size(), -1) < 0) {
      continue;
    }
    for (std::size_t i = watched.size(); i-- > 0;) {
      if (watched[i].revents == 0) {
        continue;
      }
      Question question;
      if (::recv(sockets[i].get(), &question, sizeof question, 0) == sizeof question) {
        const auto status = domains->status(guest);
        Answer answer = status ? Answer{.ok = true, .status = *status} : refusal(status.error());
        if (send_answer(sockets[i].get(), answer)) {
          continue;
        }
      }
      sockets.erase(sockets.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
}

class Helper {
 public:
  Helper(GuestPlace place, XenStoreAddress xenstored, pid_t process, UniqueFd files,
         UniqueFd xenstore)
      : place_(std::move(place)),
        xenstored_(std::move(xenstored)),
        gate_(place_.own_domain, place_.guest, place_.run_directory),
        firmware_sockets_(place_.run_directory, place_.guest),
        process_(process),
        files_(std::move(files)),
        xenstore_(std::move(xenstore)) {}

  [[nodiscard]] std::vector<int> descriptors() const { return {files_.get(), xenstore_.get()}; }

  // What the process waits for before it goes on: nobody else has its lock, and no signal ends the helper.
  [[nodiscard]] bool say_ready(const Result<void>& ready) const {
    return send_answer(files_.get(), ready ? Answer{.ok = true} : refusal(ready.error())) &&
           ready.has_value();
  }

  // Until the process has gone.
  void run() {
    while (serve_files_) {
      wait();
      if (watched_[0].revents != 0) {
        serve_file_request();
      }
      if (watched_[1].revents != 0) {
        accept_relay();
      }
      relays_.remove_if([this](XenStoreRelay& relay) {
        const bool ended = !relay.serve();
        if (ended && !relay.why().empty()) {
          log_limited(relay_log_, now(), LogLevel::error, kHelperLog, "{}", relay.why());
        }
        return ended;
      });
    }
  }

 private:
  static TimePoint now() {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return TimePoint(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
  }

  void wait() {
    watched_ = {{files_.get(), POLLIN, 0},
                {relays_.size() < kMostRelays ? xenstore_.get() : -1, POLLIN, 0}};
    bool connecting = false;
    for (const XenStoreRelay& relay : relays_) {
      const short client = relay.client_events();
      const short xenstored = relay.xenstored_events();
      watched_.push_back({client != 0 ? relay.client_fd() : -1, client, 0});
      watched_.push_back({xenstored != 0 ? relay.xenstored_fd() : -1, xenstored, 0});
      connecting = connecting || relay.is_connecting();
    }
    (void)::poll(watched_.data(), watched_.size(),
                 connecting ? static_cast<int>(XenStoreRelay::kRetry.count()) : -1);
  }

  void accept_relay() {
    UniqueFd client(::accept4(xenstore_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (client.valid()) {
      relays_.emplace_back(std::move(client), xenstored_, gate_);
    }
  }

  void serve_file_request() {
    Question question;
    const ssize_t got = ::recv(files_.get(), &question, sizeof question, 0);
    if (got < 0 && errno == EINTR) {
      return;
    }
    if (got != sizeof question) {
      serve_files_ = false;
      return;
    }
    Answer answer;
    UniqueFd fd;
    switch (question.what) {
      case HelperRequest::restore_lock:
        answer = restore_lock(fd);
        break;
      case HelperRequest::control_socket:
        answer = hand_over(
            ControlServer::open_socket(guest_socket_path(place_.run_directory, place_.guest)), fd);
        break;
      case HelperRequest::firmware_socket:
        answer = process_has_lock()
                     ? hand_over(firmware_sockets_.open(question.drive), fd)
                     : refusal({ErrorCode::conflict, "another process has the lock"});
        break;
      case HelperRequest::remove_firmware_socket:
        if (process_has_lock()) {
          firmware_sockets_.remove(question.drive);
        }
        answer.ok = true;
        break;
      case HelperRequest::remove_files:
        answer = remove_files();
        break;
      default:
        answer = refusal({ErrorCode::invalid_argument, "the helper does nothing of the kind"});
        break;
    }
    serve_files_ = send_answer(files_.get(), answer, fd.valid() ? fd.get() : -1);
  }

  Answer restore_lock(UniqueFd& fd) {
    if (auto prepared = prepare_run_folders(place_); !prepared) {
      return refusal(prepared.error());
    }
    auto xenstore = open_xenstore_socket(place_);
    if (!xenstore) {
      return refusal(xenstore.error());
    }
    xenstore_ = std::move(*xenstore);
    const std::string path = guest_lock_path(place_.run_directory, place_.guest);
    if (const auto holder = ProcessLock::holder(path); holder && *holder == process_) {
      return Answer{.ok = true};
    }
    auto lock = ProcessLock::acquire(path, lock_purpose(place_.guest), process_);
    if (!lock) {
      return refusal(lock.error());
    }
    fd = lock->release();
    return Answer{.ok = true, .done = true};
  }

  static Answer hand_over(Result<UniqueFd> socket, UniqueFd& fd) {
    if (!socket) {
      return refusal(socket.error());
    }
    fd = std::move(*socket);
    return Answer{.ok = true};
  }

  // Else the files may be those of the guest's next process.
  [[nodiscard]] bool process_has_lock() const {
    const auto holder = ProcessLock::holder(guest_lock_path(place_.run_directory, place_.guest));
    return holder && *holder == process_;
  }

  Answer remove_files() {
    if (process_has_lock()) {
      firmware_sockets_.remove_all();
      ::unlink(guest_socket_path(place_.run_directory, place_.guest).c_str());
      ::unlink(guest_xenstore_path(place_.run_directory, place_.guest).c_str());
      ::unlink(guest_lock_path(place_.run_directory, place_.guest).c_str());
    }
    return Answer{.ok = true};
  }

  GuestPlace place_;
  XenStoreAddress xenstored_;
  XenStoreGate gate_;
  OwnFirmwareSockets firmware_sockets_;
  pid_t process_;
  UniqueFd files_;
  UniqueFd xenstore_;
  bool serve_files_ = true;
  std::list<XenStoreRelay> relays_;
  std::vector<pollfd> watched_;
  LogLimiter relay_log_{kMessageLimit};
};

// In the child. Never returns.
[[noreturn]] void run_helper(Helper helper, std::vector<UniqueFd> questions, DomainId guest) {
  (void)::prctl(PR_SET_NAME, "blkback-helper");
  set_log_prefix(fmt::format("guest {}", guest));
  // The process ends it, by closing its sockets, and needs it until then.
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) {
    (void)::sigaction(number, &ignore, nullptr);
  }
  std::vector<int> descriptors = helper.descriptors();
  for (const UniqueFd& socket : questions) {
    descriptors.push_back(socket.get());
  }
  close_descriptors_but(descriptors);
  if (!helper.say_ready(keep_capabilities(std::uint64_t{1} << CAP_CHOWN))) {
    ::_exit(1);
  }
  std::thread(answer_questions, std::move(questions), guest).detach();
  helper.run();
  ::_exit(0);
}

// On a stack of its own: that of an OwnStackThread is shared memory, which a child shares. 0, or an errno.
int fork_helper(Helper helper, std::vector<UniqueFd> questions, DomainId guest) {
  int failed = 0;
  try {
    std::thread([&failed, guest, helper = std::move(helper),
                 questions = std::move(questions)]() mutable {
      const pid_t child = ::fork();
      if (child == 0) {
        run_helper(std::move(helper), std::move(questions), guest);
      }
      failed = child < 0 ? errno : 0;
    }).join();
  } catch (const std::system_error& error) {
    failed = error.code().value();
  }
  return failed;
}

Result<std::pair<UniqueFd, UniqueFd>> make_pair_of_sockets() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return tl::unexpected(system_error("no sockets for the helper of the process", errno));
  }
  return std::pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

}  // namespace

std::string guest_xenstore_path(const std::string& run_directory, DomainId domain) {
  return fmt::format("{}/guest-{}.xenstore", run_directory, domain);
}

Result<std::unique_ptr<GuestDoors>> start_guest_helper(const GuestPlace& place) {
  const XenStoreAddress xenstored = xenstore_address();
  auto files = make_pair_of_sockets();
  // For the control thread, and for the one that asks while that waits for xenstored.
  auto question = make_pair_of_sockets();
  auto other_question = make_pair_of_sockets();
  auto xenstore = open_xenstore_socket(place);
  for (const Error* error :
       {!files ? &files.error() : nullptr, !question ? &question.error() : nullptr,
        !other_question ? &other_question.error() : nullptr,
        !xenstore ? &xenstore.error() : nullptr}) {
    if (error != nullptr) {
      return tl::unexpected(*error);
    }
  }
  std::vector<UniqueFd> helpers_questions;
  helpers_questions.push_back(std::move(question->second));
  helpers_questions.push_back(std::move(other_question->second));
  // Its ends of the sockets are not open here any more then, so that its end is heard of.
  const int failed = fork_helper(
      Helper(place, xenstored, ::getpid(), std::move(files->second), std::move(*xenstore)),
      std::move(helpers_questions), place.guest);
  if (failed != 0) {
    return tl::unexpected(system_error("the helper of the process cannot be started", failed));
  }
  Answer ready;
  UniqueFd none;
  if (!receive_answer(files->first.get(), ready, none) || !ready.ok) {
    ready.why.back() = '\0';
    return fail(ready.code,
                fmt::format("the helper of the process cannot start: {}", ready.why.data()));
  }
  std::vector<UniqueFd> questions;
  questions.push_back(std::move(question->first));
  questions.push_back(std::move(other_question->first));
  const std::string path = guest_xenstore_path(place.run_directory, place.guest);
  if (::setenv("XENSTORED_PATH", path.c_str(), 1) != 0) {
    return tl::unexpected(system_error("libxenstore cannot be told of the helper", errno));
  }
  return std::make_unique<HelpersDoors>(std::move(files->first), std::move(questions),
                                        xenstored.is_device);
}

}  // namespace iscsi_blkback
