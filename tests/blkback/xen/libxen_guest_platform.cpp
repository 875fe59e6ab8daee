#include "tests/blkback/xen/libxen_guest_platform.h"

#include <poll.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

extern "C" {
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>
}

namespace iscsi_blkback {
namespace {

class LibxenGuestPlatform final : public GuestPlatform {
 public:
  ~LibxenGuestPlatform() override {
    stop();
    if (share_ != nullptr) {
      xengntshr_close(share_);
    }
    if (events_ != nullptr) {
      xenevtchn_close(events_);
    }
    if (store_ != nullptr) {
      xs_close(store_);
    }
  }

  // What is missing; empty: nothing.
  std::string open() {
    store_ = xs_open(0);
    if (store_ == nullptr) {
      return std::string("xenstore: ") + std::strerror(errno);
    }
    const std::optional<std::string> domid = read("domid");
    if (!domid) {
      return "xenstore does not tell the domain's number";
    }
    std::from_chars(domid->data(), domid->data() + domid->size(), self_);
    share_ = xengntshr_open(nullptr, 0);
    if (share_ == nullptr) {
      return std::string("/dev/xen/gntalloc: ") + std::strerror(errno);
    }
    events_ = xenevtchn_open(nullptr, 0);
    return events_ != nullptr ? std::string()
                              : std::string("/dev/xen/evtchn: ") + std::strerror(errno);
  }

  DomainId own_domain() const override { return self_; }

  Pages share(DomainId with, std::size_t count, bool writable) override {
    Pages pages;
    pages.references.resize(count);
    void* base = xengntshr_share_pages(share_, with, static_cast<int>(count),
                                       pages.references.data(), writable ? 1 : 0);
    if (base == nullptr) {
      return {};
    }
    pages.bytes = {static_cast<std::byte*>(base), count * kXenPageBytes};
    return pages;
  }
  void unshare(Pages& pages) override {
    (void)xengntshr_unshare(share_, pages.bytes.data(),
                            static_cast<std::uint32_t>(pages.references.size()));
    pages = Pages{};
  }

  std::uint32_t offer_port(DomainId to) override {
    const xenevtchn_port_or_error_t port = xenevtchn_bind_unbound_port(events_, to);
    return port < 0 ? 0 : static_cast<std::uint32_t>(port);
  }
  void close_port(std::uint32_t port) override { (void)xenevtchn_unbind(events_, port); }
  void notify(std::uint32_t port) override { (void)xenevtchn_notify(events_, port); }
  void wait(Time at_most) override {
    pollfd readable{xenevtchn_fd(events_), POLLIN, 0};
    auto left = static_cast<int>((at_most.count() + 999) / 1000);
    while (poll(&readable, 1, left) == 1) {
      const xenevtchn_port_or_error_t port = xenevtchn_pending(events_);
      if (port < 0) {
        return;
      }
      (void)xenevtchn_unmask(events_, static_cast<evtchn_port_t>(port));
      left = 0;
    }
  }

  std::optional<std::string> read(const std::string& path) override {
    unsigned bytes = 0;
    auto* value = static_cast<char*>(xs_read(store_, XBT_NULL, path.c_str(), &bytes));
    if (value == nullptr) {
      return std::nullopt;
    }
    std::string copy(value, bytes);
    std::free(value);
    return copy;
  }
  bool write(const std::string& path, std::string_view value) override {
    return xs_write(store_, XBT_NULL, path.c_str(), value.data(),
                    static_cast<unsigned>(value.size()));
  }
  bool remove(const std::string& path) override { return xs_rm(store_, XBT_NULL, path.c_str()); }

  Time now() override {
    return std::chrono::duration_cast<Time>(std::chrono::steady_clock::now().time_since_epoch());
  }

  void run_beside(std::function<void()> step) override {
    enough_ = false;
    beside_ = std::thread([this, step = std::move(step)] {
      while (!enough_.load(std::memory_order_relaxed)) {
        step();
      }
    });
  }
  void stop_beside() override { stop(); }

 private:
  void stop() {
    enough_ = true;
    if (beside_.joinable()) {
      beside_.join();
    }
  }

  DomainId self_ = 0;
  xs_handle* store_ = nullptr;
  xengntshr_handle* share_ = nullptr;
  xenevtchn_handle* events_ = nullptr;
  std::thread beside_;
  std::atomic<bool> enough_ = false;
};

}  // namespace

std::unique_ptr<GuestPlatform> open_guest_platform(std::string* why) {
  auto platform = std::make_unique<LibxenGuestPlatform>();
  *why = platform->open();
  return why->empty() ? std::move(platform) : nullptr;
}

}  // namespace iscsi_blkback
