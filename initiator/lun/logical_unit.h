// LogicalUnit: one LUN as seen through one session: builds the commands of reads, writes, flushes,
// deallocation, ALUA and reservations, and asks the LUN who it is (INQUIRY, VPD 0x80, 0x83, 0xB0 to
// 0xB2, READ CAPACITY, MODE SENSE). It decides nothing about errors: that is the multipath layer's
// table. Reactor thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "initiator/scsi/cdb.h"
#include "initiator/scsi/lun_address.h"
#include "initiator/scsi/lun_names.h"
#include "initiator/scsi/persistent_reservation.h"
#include "initiator/scsi/scsi_task.h"
#include "initiator/scsi/target_port_groups.h"
#include "initiator/scsi/vendor_pages.h"
#include "initiator/scsi/vpd.h"
#include "initiator/session/session.h"

namespace iscsi_blkback {

// How well the LUN is served by the target port and controller that it is reached through.
struct LogicalUnitAccess {
  // TEST UNIT READY says that it is not served here now (02/04/0A to 0C, 12); nullopt: it is.
  std::optional<AccessState> refused;
  std::uint8_t tpgs = 0;                 // INQUIRY: bit 0 implicit, bit 1 explicit ALUA
  TargetPortIds port;                    // VPD 0x83
  std::vector<TargetPortGroup> groups;   // REPORT TARGET PORT GROUPS; empty: not told
  std::optional<RdacVolumeAccess> rdac;  // VPD 0xC9
  std::uint8_t rdac_max_lun = 0;         // VPD 0xC2
  std::optional<EmcUnitPath> emc;        // VPD 0xC0

  // The group of the port; nullptr when it is not known.
  [[nodiscard]] const TargetPortGroup* group() const;
};

// Whether a write may be answered before the medium has it (caching page, WCE).
enum class WriteCache : std::uint8_t {
  untold,  // the target was in trouble when it was asked
  off,     // also of a LUN that knows no MODE SENSE or has no caching page, as Linux has it
  on,
};

enum class DiscardForm : std::uint8_t { none, unmap, write_same };

// What identifies the medium, whichever path leads to it.
struct LogicalUnitIdentity {
  // Texts of the target's, all of them as printable_identity() has them.
  std::string vendor;  // INQUIRY, trailing blanks removed
  std::string product;
  std::string revision;
  std::string serial;             // VPD 0x80; empty when the LUN has none
  std::string wwid;               // wwid_of(names)
  LunNames names;                 // VPD 0x83 and 0x80
  std::uint8_t tpgs = 0;          // INQUIRY: target port group support
  std::uint64_t block_count = 0;  // 0: not told, because the LUN is not served here now
  std::uint32_t logical_block_bytes = 512;
  std::uint32_t physical_block_bytes = 512;
  std::uint32_t max_transfer_blocks = 0;  // 0: not limited; VPD 0xB0, or what the CDBs can say
  BlockLimits limits;                     // VPD 0xB0
  LogicalBlockProvisioning provisioning;  // VPD 0xB2
  std::uint16_t rotation_rate = 0;        // VPD 0xB1; 1: not rotating, 0: not told
  bool write_protected = false;           // as far as known
  bool thin_provisioned = false;          // READ CAPACITY(16) LBPME
  WriteCache write_cache = WriteCache::untold;
  bool force_unit_access = false;       // DPOFUA: writes may have the FUA bit
  bool software_write_protect = false;  // control page, SWP
  bool task_aborted_status = false;     // control page, TAS
  bool has_16_byte_commands = true;
  LogicalUnitAccess access;  // of the path; says nothing of the medium

  // How blocks are deallocated (SBC-4 4.7.3), if they can be.
  [[nodiscard]] DiscardForm discard_form() const;
};

class LogicalUnit {
 public:
  // lun: the 8-byte LUN as a big-endian number; see encode_lun().
  LogicalUnit(Reactor& reactor, Session& session, std::uint64_t lun);
  ~LogicalUnit();  // not while identify() runs: cancel_identify() first

  [[nodiscard]] Session& session();
  [[nodiscard]] std::uint64_t lun() const;

  // Asks the LUN who it is; session logged in. on_done(owner, result) exactly once, from the
  // reactor. After a unit attention met on the way it is asked from the start again, bounded.
  using Identified = void (*)(void* owner, Result<LogicalUnitIdentity> identity) noexcept;
  void identify(Identified on_done, void* owner);
  // After an identify(): asks only how well the LUN is served here; the answer has access and
  // nothing else. Not while an identify() runs. serves: commands for the medium have just
  // succeeded, so that TEST UNIT READY need not be asked; only where tells_access().
  void read_access(Identified on_done, void* owner, bool serves = false);
  // The LUN tells about its access in other ways than by refusing.
  [[nodiscard]] bool tells_access() const {
    return access_.tpgs != 0 || access_.rdac.has_value() || access_.emc.has_value();
  }
  // Of either, while it runs: what the LUN has told so far is asked for again.
  void start_over();
  // Of either, while it runs: when the LUN has answered last, with whatever it was; when it began,
  // as long as there is no answer.
  [[nodiscard]] TimePoint answered_at() const;
  // ... and what was asked last: "INQUIRY of page 0x83".
  [[nodiscard]] std::string question() const;
  // So long an identify() takes at most where each answer comes within longest_answer and nothing
  // has it start over.
  [[nodiscard]] static Duration longest_identification(Duration longest_answer);
  // How long the answer to a question is waited for: `usual`, and twice as long as one has taken
  // lately where that is longer: a LUN that is slower than that by nature would never be
  // identified.
  [[nodiscard]] Duration patience(Duration usual) const;
  // Of the caller's own questions, that have come back.
  void note_question(const ScsiTask& task, Duration took);
  // Of either: on_done does not come; the buffers stay ours until the target has answered or the
  // connection is gone.
  void cancel_identify();
  // While an identify() waits for an answer. True: the LUN is usable without this one, is asked
  // from the start again, and is not asked this until the session's next login.
  [[nodiscard]] bool do_without_answer();
  // Questions of cancelled ones, and such as were done without, that are at the target still.
  [[nodiscard]] std::uint32_t unanswered() const { return questions_->unanswered; }

  // All prepare_ calls fill cdb, lun, direction and data of a task for this LUN; the caller sets
  // on_complete and owner and submits it. Buffers are the caller's, and like the task untouched
  // until completion. Sectors and requests: within the geometry that identify() gave, aligned to
  // the logical block.
  void prepare_io(ScsiTask& task, const BlockRequest& request) const;
  // The same of a discard. form: unmap or write_same. parameters: of the command, as long as it is
  // under way.
  using DiscardParameters = std::array<std::byte, unmap_list_bytes(1)>;
  void prepare_discard(ScsiTask& task, const BlockRequest& request, DiscardForm form,
                       DiscardParameters& parameters) const;
  // Of a task of prepare_io() that was refused with 5/20/00 (INVALID COMMAND OPERATION CODE) or
  // 5/24/xx (INVALID FIELD IN CDB), or of a flush for which refuses_form() is true: true when the
  // LUN can be asked in another way, and from now on is: prepare again. READ, WRITE and SYNCHRONIZE
  // CACHE have two forms each (SBC-3); a LUN need not know both, nor those that its READ CAPACITY
  // has. Until the next identify().
  [[nodiscard]] bool try_other_form(const ScsiTask& task);
  // SYNCHRONIZE CACHE has been refused in both forms since the last identify().
  [[nodiscard]] bool refuses_flushes() const;
  // As the last identify() has found it. A flush that is refused is not needed only where it is
  // off, and only while nothing tells otherwise: this is what one path knows.
  [[nodiscard]] WriteCache write_cache() const { return write_cache_; }
  void prepare_test_unit_ready(ScsiTask& task) const;
  // A vital product data page, of which at most bytes are wanted.
  void prepare_inquiry(ScsiTask& task, int page, std::size_t bytes,
                       std::span<std::byte> buffer) const;
  // As identify() has found it; 512 before.
  [[nodiscard]] std::uint32_t logical_block_bytes() const { return logical_block_bytes_; }
  // READ CAPACITY, the form that identify() found. buffer: kCapacityBytes.
  static constexpr std::size_t kCapacityBytes = 32;
  void prepare_read_capacity(ScsiTask& task, std::span<std::byte> buffer) const;
  // Of such a task that has completed with GOOD.
  [[nodiscard]] Result<Capacity> capacity_of(const ScsiTask& task) const;

  struct SectorRange {
    std::uint64_t sector = 0;
    std::uint32_t sector_count = 0;
  };
  // Deallocates; what the sectors read as afterwards, provisioning.reads_zeros says. At most
  // limits.max_unmap_ranges ranges of limits.max_unmap_blocks in all; buffer: at least
  // unmap_list_bytes(ranges.size()).
  void prepare_unmap(ScsiTask& task, std::span<const SectorRange> ranges,
                     std::span<std::byte> buffer) const;

  // Into buffer; see target_port_groups.h.
  void prepare_report_target_port_groups(ScsiTask& task, std::span<std::byte> buffer,
                                         bool extended) const;
  void prepare_set_target_port_groups(ScsiTask& task, std::span<const SetTargetPortGroup> groups,
                                      std::span<std::byte> buffer) const;
  // The controller takes the LUN over; buffer: at least kRdacLongListBytes. max_lun: as
  // LogicalUnitAccess has it.
  void prepare_rdac_take_over(ScsiTask& task, std::uint8_t max_lun,
                              std::span<std::byte> buffer) const;

  // See persistent_reservation.h. buffer: at most 65535 bytes used; at least kReserveOutListBytes.
  void prepare_reserve_in(ScsiTask& task, ReserveInAction action,
                          std::span<std::byte> buffer) const;
  void prepare_reserve_out(ScsiTask& task, ReserveOutAction action, ReservationType type,
                           const ReserveOutList& values, std::span<std::byte> buffer) const;

  // Of the target, through this LUN; see vpd.h.
  void prepare_report_luns(ScsiTask& task, std::span<std::byte> buffer) const;

 private:
  class Identification;
  // What is known of questions. Shared with those that were cancelled, which may outlive the unit.
  struct Questions {
    void note(const ScsiTask& task, Duration took, TimePoint now);

    std::uint32_t unanswered = 0;
    std::uint8_t silences = 0;  // of the last one that came back; see ScsiTask
    Duration longest{};         // answer, for a while
    TimePoint remembered_until{};
  };
  [[nodiscard]] BlockRange in_blocks(SectorRange range) const;
  // The form that identify() has found, unless the LUN has refused it and not the other one.
  [[nodiscard]] bool uses_16_byte_form(std::uint8_t form10, std::uint8_t form16) const {
    if (refused_forms_ == 0 || refused(form10) == refused(form16)) [[likely]] {
      return has_16_byte_commands_;
    }
    return refused(form10);
  }
  [[nodiscard]] bool refused(std::uint8_t operation) const;
  void prepare(ScsiTask& task, const Cdb& cdb, DataDirection direction,
               std::span<std::byte> data) const;

  Reactor& reactor_;
  Session& session_;
  std::uint64_t lun_;
  // Of the last successful identify().
  std::uint32_t logical_block_bytes_ = 512;
  bool has_16_byte_commands_ = true;
  WriteCache write_cache_ = WriteCache::untold;
  std::uint64_t block_count_ = 0;
  std::uint8_t refused_forms_ = 0;  // bits of logical_unit.cpp's kForms, since then
  LogicalUnitAccess access_;
  std::unique_ptr<Identification> identification_;
  std::shared_ptr<Questions> questions_ = std::make_shared<Questions>();
  std::uint32_t done_without_ = 0;     // bits of Identification::Step
  std::uint64_t done_without_in_ = 0;  // in this login (Session::login_epoch())
};

}  // namespace iscsi_blkback
