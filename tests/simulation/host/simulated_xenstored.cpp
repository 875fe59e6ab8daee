#include "tests/simulation/host/simulated_xenstored.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/unique_fd.h"
#include "tests/support/ready_fd.h"

namespace iscsi_blkback {

class SimulatedXenstored::Connection final : public XenStore {
 public:
  Connection(SimulatedXenstored& daemon, const void* owner)
      : owner_(owner),
        daemon_(&daemon),
        store_(daemon.xen_.store().connect(0)),
        fd_(::fcntl(store_->fd(), F_DUPFD_CLOEXEC, 0)) {
    ISCSI_BLKBACK_ASSERT(fd_.valid());
    daemon_->connections_.push_back(this);
  }
  ~Connection() override {
    if (daemon_ != nullptr) {
      std::erase(daemon_->connections_, this);
    }
  }

  Result<std::string> read(const std::string& path) override {
    return ask<std::string>([&] { return store_->read(path); });
  }
  Result<void> write(const std::string& path, std::string_view value) override {
    return ask<void>([&] { return store_->write(path, value); });
  }
  Result<void> remove(const std::string& path) override {
    return ask<void>([&] { return store_->remove(path); });
  }
  Result<std::vector<std::string>> list(const std::string& path) override {
    return ask<std::vector<std::string>>([&] { return store_->list(path); });
  }
  Result<void> transaction(const std::function<Result<void>(XenStoreAccess&)>& body) override {
    return ask<void>([&] { return store_->transaction(body); });
  }
  Result<void> watch(const std::string& path, const std::string& token) override {
    return ask<void>([&] { return store_->watch(path, token); });
  }
  void unwatch(const std::string& path, const std::string& token) override {
    if (store_ != nullptr) {
      store_->unwatch(path, token);
    }
  }
  int fd() const override { return fd_.get(); }
  Result<std::optional<WatchEvent>> next_event() override {
    if (store_ == nullptr) {
      return fail(ErrorCode::unavailable, "the connection to xenstored is gone");
    }
    return store_->next_event();
  }

  // Nothing comes any more but this news.
  void lose() {
    store_.reset();
    signal_ready(fd_.get());
  }
  // The kernel has closed it.
  void release() {
    store_.reset();
    fd_.reset();
    daemon_ = nullptr;
  }
  [[nodiscard]] const void* owner() const { return owner_; }

 private:
  template <class Value, class Ask>
  Result<Value> ask(Ask&& ask_store) {
    if (store_ == nullptr) {
      return fail(ErrorCode::unavailable, "the connection to xenstored is gone");
    }
    if (daemon_->store_calls.fails()) {
      return fail(ErrorCode::io, "xenstored cannot do that now");
    }
    return ask_store();
  }

  const void* const owner_;
  SimulatedXenstored* daemon_;  // null: the process is dead
  std::unique_ptr<MemXenStore> store_;
  UniqueFd fd_;
};

class SimulatedXenstored::Domains final : public DomainInfo {
 public:
  explicit Domains(SimulatedXenstored& daemon)
      : daemon_(daemon), domains_(daemon.xen_.open_domain_info()) {}

  Result<DomainStatus> status(DomainId domain) override {
    if (daemon_.domain_calls.fails()) {
      return fail(ErrorCode::exhausted, "the hypervisor has no memory for that now");
    }
    return domains_->status(domain);
  }

 private:
  SimulatedXenstored& daemon_;
  std::unique_ptr<DomainInfo> domains_;
};

SimulatedXenstored::~SimulatedXenstored() {
  ISCSI_BLKBACK_ASSERT(connections_.empty());
}

Result<std::unique_ptr<XenStore>> SimulatedXenstored::connect(const void* owner) {
  if (!up_) {
    return fail(ErrorCode::unavailable, "xenstored does not run");
  }
  return std::make_unique<Connection>(*this, owner);
}

std::unique_ptr<DomainInfo> SimulatedXenstored::open_domain_info() {
  return std::make_unique<Domains>(*this);
}

void SimulatedXenstored::die() {
  up_ = false;
  for (Connection* connection : connections_) {
    connection->lose();
  }
}

void SimulatedXenstored::owner_died(const void* owner) {
  std::erase_if(connections_, [owner](Connection* connection) {
    const bool its = connection->owner() == owner;
    if (its) {
      connection->release();
    }
    return its;
  });
}

}  // namespace iscsi_blkback
