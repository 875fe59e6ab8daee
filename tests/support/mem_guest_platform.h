// The GuestPlatform of a guest of MemXen. Its program is a function that a test calls: the backend
// runs, on the test's reactor, while it waits and a little in each of its calls. What runs beside it
// does so before each segment of a grant copy, and in each call.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "tests/support/guest_platform.h"
#include "tests/support/mem_xen.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class MemGuestPlatform final : public GuestPlatform {
 public:
  // xen and reactor outlive it.
  MemGuestPlatform(MemXen& xen, SimReactor& reactor, DomainId self)
      : xen_(xen),
        reactor_(reactor),
        self_(self),
        events_(xen.events().open(self)),
        store_(xen.store().connect(self)) {}

  ~MemGuestPlatform() override {
    stop_beside();
    for (auto& [base, shared] : shared_) {
      take_back(shared.pages, true);
    }
    for (Shared& shared : kept_) {
      take_back(shared.pages, true);
    }
    for (const std::uint32_t port : ports_) {
      events_->unbind(port);
    }
  }

  DomainId own_domain() const override { return self_; }

  Pages share(DomainId with, std::size_t count, bool writable) override {
    Shared shared;
    shared.memory = std::make_unique<GuestMemory>(count);
    shared.pages.bytes = shared.memory->pages(0, count);
    for (std::size_t page = 0; page < count; ++page) {
      shared.pages.references.push_back(
          xen_.grants().grant(self_, *shared.memory, page, with, !writable));
    }
    Pages pages = shared.pages;
    shared_.emplace(pages.bytes.data(), std::move(shared));
    return pages;
  }

  // A page that is mapped stays granted, as in Linux.
  void unshare(Pages& pages) override {
    const auto at = shared_.find(pages.bytes.data());
    take_back(at->second.pages, false);
    kept_.push_back(std::move(at->second));
    shared_.erase(at);
    pages = Pages{};
  }

  std::uint32_t offer_port(DomainId to) override {
    ports_.push_back(events_->allocate_unbound(to));
    return ports_.back();
  }
  void close_port(std::uint32_t port) override {
    std::erase(ports_, port);
    events_->unbind(port);
  }
  void notify(std::uint32_t port) override {
    (void)events_->notify(port);
    pass(kCall);
  }
  void wait(Time at_most) override {
    const TimePoint end = reactor_.now() + at_most;
    do {
      pass(std::clamp<Duration>(at_most, kCall, kSlice));
      while (const std::optional<LocalPort> port = events_->next_pending()) {
        (void)events_->unmask(*port);
        at_most = Time(0);
      }
    } while (at_most > Time(0) && reactor_.now() < end);
  }

  std::optional<std::string> read(const std::string& path) override {
    pass(kCall);
    const Result<std::string> value = store_->read(path);
    return value ? std::optional(*value) : std::nullopt;
  }
  bool write(const std::string& path, std::string_view value) override {
    const bool written = store_->write(path, value).has_value();
    pass(kCall);
    return written;
  }
  bool remove(const std::string& path) override {
    const bool removed = store_->remove(path).has_value();
    pass(kCall);
    return removed;
  }

  Time now() override {
    return std::chrono::duration_cast<Time>(reactor_.now().time_since_epoch());
  }

  void run_beside(std::function<void()> step) override {
    beside_ = std::move(step);
    xen_.grants().before_copied_segment([this] { do_beside(); });
  }
  void stop_beside() override {
    xen_.grants().before_copied_segment(nullptr);
    beside_ = nullptr;
  }

 private:
  static constexpr Time kCall{20};
  static constexpr Time kSlice{500};

  struct Shared {
    std::unique_ptr<GuestMemory> memory;
    Pages pages;
  };

  // for_good: as a domain that ends, whoever has a page mapped.
  void take_back(Pages& pages, bool for_good) {
    std::erase_if(pages.references, [&](GrantReference reference) {
      return xen_.grants().end_access(self_, reference);
    });
    if (for_good) {
      for (const GrantReference reference : pages.references) {
        xen_.grants().revoke(self_, reference);
      }
    }
  }

  void pass(Duration time) {
    if (in_beside_) {
      return;  // a call of what runs beside the program, which does not wait for it
    }
    if (beside_) {
      do_beside();
    }
    reactor_.run_for(time);
  }
  void do_beside() {
    in_beside_ = true;
    beside_();
    in_beside_ = false;
  }

  MemXen& xen_;
  SimReactor& reactor_;
  const DomainId self_;
  std::unique_ptr<MemEventChannels> events_;
  std::unique_ptr<MemXenStore> store_;
  std::map<std::byte*, Shared> shared_;
  std::vector<Shared> kept_;
  std::vector<std::uint32_t> ports_;
  std::function<void()> beside_;
  bool in_beside_ = false;
};

}  // namespace iscsi_blkback
