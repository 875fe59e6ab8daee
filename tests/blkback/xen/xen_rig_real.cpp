#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "tests/blkback/xen/xen_rig.h"

extern "C" {
#include <xenevtchn.h>
#include <xengnttab.h>
}

namespace iscsi_blkback {
namespace {

constexpr int kDoorbellWaitMilliseconds = 10000;

class RealRig final : public XenRig {
 public:
  explicit RealRig(DomainId self) : self_(self) {}

  ~RealRig() override {
    for (const SharedPages& shared : shared_) {
      (void)xengntshr_unshare(share_, shared.bytes.data(),
                              static_cast<std::uint32_t>(shared.references.size()));
    }
    if (share_ != nullptr) {
      xengntshr_close(share_);
    }
    if (events_ != nullptr) {
      xenevtchn_close(events_);
    }
    if (Result<std::unique_ptr<XenStore>> store = open_xenstore()) {
      (void)(*store)->remove(store_path());
    }
  }

  // What is missing; empty: nothing.
  std::string open() {
    share_ = xengntshr_open(nullptr, 0);
    if (share_ == nullptr) {
      return fmt::format("/dev/xen/gntalloc: {} (modprobe xen-gntalloc)", std::strerror(errno));
    }
    events_ = xenevtchn_open(nullptr, 0);
    if (events_ == nullptr) {
      return fmt::format("/dev/xen/evtchn: {} (modprobe xen-evtchn)", std::strerror(errno));
    }
    return {};
  }

  Result<std::unique_ptr<GrantTable>> grant_table() override { return open_grant_table(); }
  Result<std::unique_ptr<EventChannels>> event_channels() override { return open_event_channels(); }
  Result<std::unique_ptr<XenStore>> xenstore() override { return open_xenstore(); }
  Result<std::unique_ptr<DomainInfo>> domain_info() override { return open_domain_info(); }
  DomainId guest() const override { return self_; }

  SharedPages share(std::size_t count, bool writable) override {
    SharedPages shared;
    shared.references.resize(count);
    void* pages = xengntshr_share_pages(share_, self_, static_cast<int>(count),
                                        shared.references.data(), writable ? 1 : 0);
    if (pages == nullptr) {
      return {};
    }
    shared.bytes = {static_cast<std::byte*>(pages), count * kXenPageBytes};
    shared_.push_back(shared);
    return shared;
  }

  std::uint32_t allocate_port() override {
    const xenevtchn_port_or_error_t port = xenevtchn_bind_unbound_port(events_, self_);
    return port < 0 ? 0 : static_cast<std::uint32_t>(port);
  }
  void guest_notify(std::uint32_t port) override { (void)xenevtchn_notify(events_, port); }
  bool guest_heard(std::uint32_t port) override {
    pollfd readable{xenevtchn_fd(events_), POLLIN, 0};
    if (poll(&readable, 1, kDoorbellWaitMilliseconds) != 1) {
      return false;
    }
    const xenevtchn_port_or_error_t pending = xenevtchn_pending(events_);
    return pending >= 0 && static_cast<std::uint32_t>(pending) == port &&
           xenevtchn_unmask(events_, port) == 0;
  }

  std::string store_path() const override {
    return fmt::format("/local/domain/{}/iscsi-blkback-test-{}", self_, getpid());
  }

 private:
  DomainId self_;
  xengntshr_handle* share_ = nullptr;
  xenevtchn_handle* events_ = nullptr;
  std::vector<SharedPages> shared_;
};

}  // namespace

std::unique_ptr<XenRig> make_real_rig(std::string* why) {
  Result<std::unique_ptr<XenStore>> store = open_xenstore();
  if (!store) {
    *why = store.error().message;
    return nullptr;
  }
  // A relative path is below the connection's own domain.
  const Result<std::string> domid = (*store)->read("domid");
  DomainId self = 0;
  if (domid) {
    std::from_chars(domid->data(), domid->data() + domid->size(), self);
  }
  auto rig = std::make_unique<RealRig>(self);
  *why = rig->open();
  return why->empty() ? std::move(rig) : nullptr;
}

}  // namespace iscsi_blkback
