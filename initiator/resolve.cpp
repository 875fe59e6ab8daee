#include "initiator/resolve.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/unique_fd.h"

namespace iscsi_blkback {
namespace {

// What a question's thread and its asker share; the one that ends last frees it.
struct Question {
  std::string host;
  std::uint16_t port = 0;
  UniqueFd answered;  // an eventfd
  std::mutex mutex;
  std::optional<Result<std::vector<SocketAddress>>> addresses;
};

class SystemLookup final : public NameLookup {
 public:
  SystemLookup(Reactor& reactor, std::shared_ptr<Question> question, NameResolver::Answer answer,
               void* owner)
      : question_(std::move(question)), answer_(answer), owner_(owner) {
    watch_ = reactor.watch_readable(
        question_->answered.get(),
        [](void* self) noexcept { static_cast<SystemLookup*>(self)->on_answered(); }, this);
  }

 private:
  void on_answered() noexcept {
    watch_.reset();
    std::optional<Result<std::vector<SocketAddress>>> addresses;
    {
      const std::lock_guard lock(question_->mutex);
      addresses.swap(question_->addresses);
    }
    answer_(owner_, std::move(*addresses));  // may delete this
  }

  std::shared_ptr<Question> question_;
  NameResolver::Answer answer_;
  void* owner_;
  std::unique_ptr<FdWatch> watch_;
};

void answer_question(const std::shared_ptr<Question>& question,
                     Result<std::vector<SocketAddress>> addresses) {
  {
    const std::lock_guard lock(question->mutex);
    question->addresses = std::move(addresses);
  }
  const std::uint64_t one = 1;
  // Cannot fail: the counter is at 0, and nobody else has the descriptor.
  static_cast<void>(!::write(question->answered.get(), &one, sizeof one));
}

class SystemNameResolver final : public NameResolver {
 public:
  std::unique_ptr<NameLookup> look_up(Reactor& reactor, const std::string& host, std::uint16_t port,
                                      Answer answer, void* owner) override {
    auto question = std::make_shared<Question>();
    question->host = host;
    question->port = port;
    question->answered.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    ISCSI_BLKBACK_ASSERT(question->answered.valid());
    try {
      std::thread([question] {
        answer_question(question, resolve(question->host, question->port));
      }).detach();
    } catch (const std::system_error& failure) {
      answer_question(question,
                      tl::unexpected(system_error("a thread for name resolution cannot be started",
                                                  failure.code().value())));
    }
    return std::make_unique<SystemLookup>(reactor, std::move(question), answer, owner);
  }
};

}  // namespace

Result<std::vector<SocketAddress>> resolve(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = ::getaddrinfo(host.c_str(), fmt::to_string(port).c_str(), &hints, &found);
  if (status != 0) {
    const std::string why = status == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(status);
    return fail(status == EAI_AGAIN ? ErrorCode::unavailable : ErrorCode::not_found,
                fmt::format("cannot resolve the host name {}: {}; check its spelling and the DNS "
                            "settings of this host",
                            host, why));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, &::freeaddrinfo);
  std::vector<SocketAddress> addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    SocketAddress address;
    if (entry->ai_addrlen > sizeof(address.storage) ||
        (entry->ai_family != AF_INET && entry->ai_family != AF_INET6)) {
      continue;
    }
    std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
    address.length_bytes = entry->ai_addrlen;
    if (std::find(addresses.begin(), addresses.end(), address) == addresses.end()) {
      addresses.push_back(address);
    }
  }
  if (addresses.empty()) {
    return fail(ErrorCode::not_found,
                fmt::format("the host name {} has no IPv4 or IPv6 address", host));
  }
  return addresses;
}

NameResolver& system_name_resolver() {
  static SystemNameResolver resolver;
  return resolver;
}

}  // namespace iscsi_blkback
