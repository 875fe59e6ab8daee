#include <poll.h>

#include "tests/blkback/xen/xen_rig.h"
#include "tests/support/fake_xenstored.h"
#include "tests/support/mem_xen.h"

namespace iscsi_blkback {
namespace {

constexpr DomainId kGuest = 3;

class MemoryRig : public XenRig {
 public:
  MemoryRig() : guest_events_(xen_.events().open(kGuest)) {
    xen_.set_domain(kGuest, DomainStatus{DomainLife::running, ShutdownReason::poweroff});
  }
  ~MemoryRig() override {
    for (const GrantReference reference : references_) {
      if (!xen_.grants().end_access(kGuest, reference)) {
        xen_.faults().report("a grant is still mapped at the end of a contract test");
        xen_.grants().revoke(kGuest, reference);
      }
    }
    for (const std::uint32_t port : ports_) {
      guest_events_->unbind(port);
    }
  }

  Result<std::unique_ptr<GrantTable>> grant_table() override { return xen_.grants().open(0); }
  Result<std::unique_ptr<EventChannels>> event_channels() override { return xen_.events().open(0); }
  Result<std::unique_ptr<XenStore>> xenstore() override { return xen_.store().connect(0); }
  Result<std::unique_ptr<DomainInfo>> domain_info() override { return xen_.open_domain_info(); }
  DomainId guest() const override { return kGuest; }

  SharedPages share(std::size_t count, bool writable) override {
    memory_.push_back(std::make_unique<GuestMemory>(count));
    SharedPages shared;
    shared.bytes = memory_.back()->pages(0, count);
    for (std::size_t page = 0; page < count; ++page) {
      shared.references.push_back(xen_.grants().grant(kGuest, *memory_.back(), page, 0, !writable));
      references_.push_back(shared.references.back());
    }
    return shared;
  }

  std::uint32_t allocate_port() override {
    ports_.push_back(guest_events_->allocate_unbound(0));
    return ports_.back();
  }
  void guest_notify(std::uint32_t port) override { (void)guest_events_->notify(port); }
  bool guest_heard(std::uint32_t port) override {
    return guest_events_->next_pending() == port && guest_events_->unmask(port).has_value();
  }

  std::string store_path() const override { return "/local/domain/0/iscsi-blkback-test"; }

  bool kill_xenstored() override {
    xen_.store().break_connections();
    return true;
  }
  bool set_xenstored_hung(bool hung) override {
    xen_.store().set_hung(hung);
    return true;
  }

 protected:
  MemXen xen_;

 private:
  std::unique_ptr<MemEventChannels> guest_events_;
  std::vector<std::unique_ptr<GuestMemory>> memory_;
  std::vector<GrantReference> references_;
  std::vector<std::uint32_t> ports_;
};

class WireRig final : public MemoryRig {
 public:
  explicit WireRig(LongLists long_lists) : xenstored_(xen_.store(), long_lists) {}

  Result<std::unique_ptr<XenStore>> xenstore() override { return xenstored_.connect(); }
  bool kill_xenstored() override {
    xenstored_.kill();
    return true;
  }
  void start_xenstored() override { xenstored_.start(); }
  bool set_xenstored_hung(bool hung) override {
    xenstored_.set_hung(hung);
    return true;
  }

 private:
  FakeXenstored xenstored_;
};

}  // namespace

std::unique_ptr<XenRig> make_memory_rig() {
  return std::make_unique<MemoryRig>();
}

std::unique_ptr<XenRig> make_wire_rig(LongLists long_lists) {
  return std::make_unique<WireRig>(long_lists);
}

}  // namespace iscsi_blkback
