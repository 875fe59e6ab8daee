#include "blkback/suspend_sentry.h"

#include <utility>

namespace iscsi_blkback {
namespace {

// Hands everything on.
class SentriedStore final : public XenStore {
 public:
  SentriedStore(SuspendSentry& sentry, std::unique_ptr<XenStore> store)
      : sentry_(sentry), store_(std::move(store)) {}
  ~SentriedStore() override {
    const SuspendSentry::Call call(sentry_);
    store_.reset();
  }

  Result<std::string> read(const std::string& path) override {
    const SuspendSentry::Call call(sentry_);
    return store_->read(path);
  }
  Result<void> write(const std::string& path, std::string_view value) override {
    const SuspendSentry::Call call(sentry_);
    return store_->write(path, value);
  }
  Result<void> remove(const std::string& path) override {
    const SuspendSentry::Call call(sentry_);
    return store_->remove(path);
  }
  Result<std::vector<std::string>> list(const std::string& path) override {
    const SuspendSentry::Call call(sentry_);
    return store_->list(path);
  }
  Result<void> transaction(const std::function<Result<void>(XenStoreAccess&)>& body) override {
    const SuspendSentry::Call call(sentry_);
    return store_->transaction(body);
  }
  Result<void> watch(const std::string& path, const std::string& token) override {
    const SuspendSentry::Call call(sentry_);
    return store_->watch(path, token);
  }
  void unwatch(const std::string& path, const std::string& token) override {
    const SuspendSentry::Call call(sentry_);
    store_->unwatch(path, token);
  }
  int fd() const override { return store_->fd(); }
  Result<std::optional<WatchEvent>> next_event() override {
    const SuspendSentry::Call call(sentry_);
    return store_->next_event();
  }

 private:
  SuspendSentry& sentry_;
  std::unique_ptr<XenStore> store_;
};

}  // namespace

Result<std::unique_ptr<SuspendSentry>> SuspendSentry::start(std::unique_ptr<DomainInfo> domains,
                                                            DomainId guest, Tell tell) {
  std::unique_ptr<SuspendSentry> sentry(
      new SuspendSentry(std::move(domains), guest, std::move(tell)));
  auto thread = OwnStackThread::start([sentry = sentry.get()] { sentry->run(); });
  if (!thread) {
    return tl::unexpected(thread.error());
  }
  sentry->thread_ = std::make_unique<OwnStackThread>(std::move(*thread));
  return sentry;
}

SuspendSentry::SuspendSentry(std::unique_ptr<DomainInfo> domains, DomainId guest, Tell tell)
    : domains_(std::move(domains)), guest_(guest), tell_(std::move(tell)) {}

SuspendSentry::~SuspendSentry() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  changed_.notify_one();
  thread_.reset();  // joined
}

Result<std::unique_ptr<XenStore>> SuspendSentry::watch_store(
    const std::function<Result<std::unique_ptr<XenStore>>()>& open) {
  const Call call(*this);
  auto store = open();
  if (!store) {
    return store;
  }
  return std::make_unique<SentriedStore>(*this, std::move(*store));
}

void SuspendSentry::begin() {
  {
    const std::lock_guard lock(mutex_);
    ++calls_;
  }
  changed_.notify_one();
}

void SuspendSentry::end() {
  bool told = false;
  {
    const std::lock_guard lock(mutex_);
    ++ended_;
    if (--calls_ == 0) {
      told = std::exchange(told_, false);
    }
  }
  if (told && after_doubt_) {
    after_doubt_();
  }
}

// Each call has its own patience: many short ones, one after the other, let the control thread ask.
void SuspendSentry::run() {
  std::unique_lock lock(mutex_);
  while (!stops_) {
    changed_.wait(lock, [this] { return stops_ || calls_ != 0; });
    std::uint64_t ended = ended_;
    auto pause = kPatience;
    while (!stops_ && calls_ != 0) {
      changed_.wait_for(lock, pause, [this, ended] { return stops_ || ended_ != ended; });
      if (stops_ || calls_ == 0) {
        break;
      }
      if (std::exchange(ended, ended_) != ended_) {
        pause = kPatience;
        continue;
      }
      lock.unlock();
      ask();
      lock.lock();
      pause = kInterval;
    }
  }
}

void SuspendSentry::ask() {
  const auto status = domains_->status(guest_);
  if (status ? status->life == DomainLife::running : is_refusal(status.error().code)) {
    return;
  }
  // Told with the lock held, so that what the control thread tells after its call comes later.
  const std::lock_guard lock(mutex_);
  if (calls_ != 0) {
    told_ = true;
    // How a guest has ended is the control thread's to find out.
    tell_(status ? GuestState::suspended : GuestState::in_doubt);
  }
}

}  // namespace iscsi_blkback
