// One disk's backend node in xenstore: reading what the toolstack and the guest wrote, and writing
// what we say. Control thread. Rules kept here:
//  - nothing is ever written into the frontend's directory (it belongs to the guest);
//  - a write happens only while the node still exists with the state that the decision was made on,
//    in one transaction, so that a node that the toolstack removes is not brought back to life;
//  - the frontend's keys are read once, in one transaction, and parsed from that copy (XSA-155);
//  - text that is written is printable and bounded (printable_text.h), wherever it comes from.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/block_device.h"
#include "base/domain_id.h"
#include "blkback/guest/firmware_socket.h"
#include "blkback/guest/statistics_page.h"
#include "blkback/guest/xenbus_state.h"
#include "blkback/ring/blkif_abi.h"
#include "blkback/xen/grant_table.h"
#include "blkback/xen/xenstore.h"
#include "initiator/scsi/lun_names.h"

namespace iscsi_blkback {

// The log component of everything that concerns the handshake.
inline constexpr const char* kXenbusLog = "xenbus";

enum class BackendKind : std::uint8_t { qdisk, vbd3 };
inline constexpr BackendKind kBackendKinds[] = {BackendKind::qdisk, BackendKind::vbd3};

[[nodiscard]] const char* to_string(BackendKind kind);  // "qdisk", "vbd3": as in paths

// Which node: /local/domain/OWN/backend/KIND/GUEST/DEVID.
struct XenbusNodeId {
  BackendKind kind = BackendKind::qdisk;
  DomainId own_domain = 0;
  DomainId guest = 0;
  std::uint32_t device_id = 0;

  [[nodiscard]] std::string path() const;
  [[nodiscard]] std::string name() const;  // "qdisk/5/51712", for messages
};

// /local/domain/OWN/backend/KIND, and the same with /GUEST.
[[nodiscard]] std::string backend_kind_path(DomainId own_domain, BackendKind kind);
[[nodiscard]] std::string backend_guest_path(DomainId own_domain, BackendKind kind, DomainId guest);

[[nodiscard]] bool is_at_or_below(std::string_view path, std::string_view folder);

// What the toolstack says of the disk when it is made; it does not change afterwards.
struct DiskDescription {
  std::string params;
  std::uint32_t device_id = 0;
  std::string virtual_device;  // "xvda"
  std::string frontend_path;
  bool read_only = false;
  bool cdrom = false;
  bool removable = false;
  bool discards = true;  // unless the disk line says no-discard
  // The guest has a device model that opens the target itself, beside us (emulated_drive.h).
  bool device_model_opens_it = false;
  // Or one that has it from us, so that its firmware boots from it.
  std::optional<FirmwareDrive> firmware_drive;

  bool operator==(const DiskDescription&) const = default;
};

struct XenbusStates {
  XenbusState backend = XenbusState::unknown;
  XenbusState frontend = XenbusState::unknown;
  bool online = false;
};

// What a frontend is offered for its rings.
struct RingOffer {
  std::uint32_t max_page_order = 0;  // log2 of the most pages of a ring
  std::uint32_t max_queues = 1;
  std::uint32_t max_indirect_segments = 0;  // of a request; 0: there are none
  bool discards = false;                    // where the LUN has them
  std::uint32_t max_buffers_mb = 64;        // that nobody is told of; see RequestRoom
};

struct FrontendQueue {
  std::vector<GrantReference> references;  // 1, 2, 4, 8 or 16: the ring's pages
  std::uint32_t event_channel = 0;         // the guest's port; never 0
};

// What a frontend asks to be connected to, parsed: no page and no port is in two queues.
struct FrontendRing {
  std::vector<FrontendQueue> queues;  // 1 to RingOffer::max_queues
  // As offered: a frontend does not say whether it uses them.
  std::uint32_t max_indirect_segments = 0;
  bool discards = false;
  std::uint32_t max_buffers_mb = 64;
  // Without the key "protocol": x86_32, as Linux's xen-blkback has it. Frontends that never write
  // the key are 32-bit ones from before it existed.
  BlkifAbi abi = BlkifAbi::x86_32;
  // Not the frontend's: where the disk's statistics are read; null: nowhere.
  std::shared_ptr<StatisticsPage> statistics;
};

class XenbusNode {
 public:
  using Entries = std::vector<std::pair<std::string, std::string>>;

  explicit XenbusNode(XenbusNodeId id) : id_(id), path_(id.path()) {}

  [[nodiscard]] const XenbusNodeId& id() const { return id_; }
  [[nodiscard]] const std::string& path() const { return path_; }

  // not_found: there is no such node (any more), or it lacks params or frontend.
  [[nodiscard]] Result<DiskDescription> read_description(XenStoreAccess& store) const;

  // Nodes that do not exist read as unknown; errors are xenstore's only.
  [[nodiscard]] Result<XenbusStates> read_states(XenStoreAccess& store,
                                                 const std::string& frontend_path) const;

  // The frontend's ring keys. Errors: xenstore's; invalid_argument, one sentence about what the guest got
  // wrong.
  [[nodiscard]] Result<FrontendRing> read_ring(XenStore& store, const std::string& frontend_path,
                                               const RingOffer& offer) const;

  // Writes entries while the node's state is expected. Errors: conflict, when it is not any more;
  // xenstore's.
  [[nodiscard]] Result<void> write(XenStore& store, XenbusState expected,
                                   const Entries& entries) const;
  [[nodiscard]] Result<void> write_state(XenStore& store, XenbusState expected,
                                         XenbusState state) const;
  // The same while the node is the disk that description says; false: it was made anew for another
  // one, and nothing is written. An error may also say that it has no description any more.
  [[nodiscard]] Result<bool> write_for(XenStore& store, const DiskDescription& description,
                                       XenbusState expected, const Entries& entries) const;
  // hotplug-status and hotplug-error, whatever the state is; nothing when the node has gone. device_path:
  // physical-device-path; empty: it is removed; nothing: it is not ours. Errors, here and of remove():
  // xenstore's only.
  [[nodiscard]] Result<void> write_hotplug(
      XenStore& store, bool connected, const std::string& error,
      const std::optional<std::string>& device_path = {}) const;
  // A driver domain removes its own node in the end; in dom0 the toolstack does.
  [[nodiscard]] Result<void> remove(XenStore& store) const;

  // What we can do, written before state 2.
  [[nodiscard]] static Entries capabilities(const RingOffer& offer);
  // What the disk is, written before state 4. sector_size: what the guest is told, 512 or 4096; all
  // is counted in 512 bytes in any case.
  [[nodiscard]] static Entries sizes(const Geometry& geometry, const DiskDescription& description,
                                     std::uint32_t sector_size);
  // Which LUN it is, with the same: vital product data pages 0x80 and 0x83 in base64, where XenServer
  // has them and Windows' driver (xenvbd, frontend.c) looks when the backend is in state 4. Only
  // those that the LUN's names are enough for.
  [[nodiscard]] static Entries identity(const LunNames& names);

 private:
  [[nodiscard]] Result<void> write_now(XenStoreAccess& access, XenbusState expected,
                                       const Entries& entries) const;

  XenbusNodeId id_;
  std::string path_;
};

}  // namespace iscsi_blkback
