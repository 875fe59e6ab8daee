// XenRig: what the contract suite of the Xen seams needs beside the seams themselves: the guest's
// side. In memory: a guest of MemXen. Over the wire: the same, with libxenstore before a
// FakeXenstored of either kind. Real: this very domain plays both sides (grants to itself through
// /dev/xen/gntalloc, event channels to itself, its own corner of xenstore).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/domain_id.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/event_channel.h"
#include "blkback/xen/grant_table.h"
#include "blkback/xen/xenstore.h"
#include "tests/support/fake_xenstored.h"

namespace iscsi_blkback {

class XenRig {
 public:
  virtual ~XenRig() = default;

  [[nodiscard]] virtual Result<std::unique_ptr<GrantTable>> grant_table() = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<EventChannels>> event_channels() = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<XenStore>> xenstore() = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<DomainInfo>> domain_info() = 0;

  // The domain that the guest's side belongs to.
  [[nodiscard]] virtual DomainId guest() const = 0;

  struct SharedPages {
    std::span<std::byte> bytes;
    std::vector<GrantReference> references;
  };
  // count pages of the guest's, granted to us until the rig is destroyed. bytes is empty on
  // failure.
  [[nodiscard]] virtual SharedPages share(std::size_t count, bool writable) = 0;

  // A port of the guest's, for us to bind.
  [[nodiscard]] virtual std::uint32_t allocate_port() = 0;
  virtual void guest_notify(std::uint32_t port) = 0;
  // Waits until the guest's port has rung (true) or a generous time has passed.
  [[nodiscard]] virtual bool guest_heard(std::uint32_t port) = 0;

  // An empty directory of ours in xenstore, removed with the rig.
  [[nodiscard]] virtual std::string store_path() const = 0;

  // xenstored is killed, and started again without having forgotten anything; it is stopped, and
  // goes on. False: not to be done to this one.
  [[nodiscard]] virtual bool kill_xenstored() { return false; }
  virtual void start_xenstored() {}
  [[nodiscard]] virtual bool set_xenstored_hung(bool) { return false; }
};

[[nodiscard]] std::unique_ptr<XenRig> make_memory_rig();
[[nodiscard]] std::unique_ptr<XenRig> make_wire_rig(LongLists long_lists);
// Null: this is no Xen domain, or a device is missing; *why says which.
[[nodiscard]] std::unique_ptr<XenRig> make_real_rig(std::string* why);

}  // namespace iscsi_blkback
