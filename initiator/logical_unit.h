// LogicalUnit: one LUN as seen through one session: builds the CDBs of reads, writes and flushes,
// and asks the LUN who it is (INQUIRY, VPD 0x80/0x83/0xB0/0xB1/0xB2, READ CAPACITY(16)). It decides
// nothing about errors: that is the multipath layer's table. Reactor thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/block_device.h"
#include "initiator/scsi_task.h"
#include "initiator/session.h"

namespace iscsi_blkback {

// What identifies the medium, whichever path leads to it.
struct LogicalUnitIdentity {
  std::string vendor;  // INQUIRY, trailing blanks removed
  std::string product;
  std::string revision;
  std::string serial;     // VPD 0x80; empty when the LUN has none
  std::string wwid;       // the strongest LUN-associated designator of VPD 0x83 as
                          // scsi_id prints it: type digit, then hex (NAA, EUI) or
                          // text (T10, name); from VPD 0x80 with prefix 'S' when
                          // there is no 0x83, empty when there is neither
  std::uint8_t tpgs = 0;  // INQUIRY: target port group support
  std::uint64_t block_count = 0;
  std::uint32_t logical_block_bytes = 512;
  std::uint32_t physical_block_bytes = 512;
  std::uint32_t max_transfer_blocks = 0;  // VPD 0xB0; 0: not limited
  bool write_protected = false;           // as far as known
  bool thin_provisioned = false;          // READ CAPACITY(16) LBPME
};

class LogicalUnit {
 public:
  // lun: the 8-byte LUN as a big-endian number; see encode_lun().
  LogicalUnit(Reactor& reactor, Session& session, std::uint64_t lun);
  ~LogicalUnit();  // not while identify() runs: cancel_identify() first

  [[nodiscard]] Session& session();
  [[nodiscard]] std::uint64_t lun() const;

  // Asks the LUN who it is; session logged in. on_done(owner, result) exactly once, from the
  // reactor; unit attentions met on the way are retried, bounded.
  using Identified = void (*)(void* owner, Result<LogicalUnitIdentity> identity) noexcept;
  void identify(Identified on_done, void* owner);
  void cancel_identify();  // on_done does not come; the buffers stay ours until the
                           // target has answered or the connection is gone

  // Fill cdb, lun, direction, data of a task for this LUN; the caller sets on_complete and owner
  // and submits it. request: within the geometry that identify() gave, aligned to the logical
  // block.
  void prepare_io(ScsiTask& task, const BlockRequest& request) const;
  void prepare_test_unit_ready(ScsiTask& task) const;

 private:
  class Identification;
  Reactor& reactor_;
  Session& session_;
  std::uint64_t lun_;
  // Of the last successful identify().
  std::uint32_t logical_block_bytes_ = 512;
  bool has_16_byte_commands_ = true;
  std::unique_ptr<Identification> identification_;
};

// SAM-5 4.7: peripheral addressing below 256, flat space addressing up to 16383.
[[nodiscard]] std::uint64_t encode_lun(std::uint16_t number);

}  // namespace iscsi_blkback
