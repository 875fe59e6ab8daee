// SimLun: a disk in memory that understands the SCSI commands of the initiator; behind the portals
// of one or several SimTargets. Executing a command is immediate; delays and faults are the
// target's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/byte_order.h"
#include "initiator/scsi/cdb.h"
#include "initiator/scsi/scsi_task.h"
#include "initiator/scsi/target_port_groups.h"

namespace iscsi_blkback {

struct SimLunOptions {
  std::uint64_t block_count = 2048;
  std::uint32_t block_bytes = 512;
  std::uint8_t physical_block_exponent = 3;
  std::uint32_t max_transfer_blocks = 0;
  std::string vendor = "SIM";
  std::string product = "DISK";
  std::string revision = "0001";
  std::string serial = "SERIAL0";   // empty: no page 0x80
  std::uint64_t naa_extension = 1;  // the last 8 of the 16 bytes of NAA 6...; 0: no page 0x83
  bool naa_has_company = true;      // else zeros, as of targets that are no company's
  std::uint8_t device_type = 0;
  bool read_only = false;
  bool thin_provisioned = false;
  bool has_unmap = true;             // else blocks are deallocated by WRITE SAME alone
  bool has_16_byte_commands = true;  // READ(16), READ CAPACITY(16) ...
  std::set<std::uint8_t> unknown_operations = {};  // refused with 5/20/00
  bool has_mode_sense = true;
  bool has_mode_sense6 = true;
  bool write_cache = true;              // caching page
  bool software_write_protect = false;  // control page; refuses writes
  bool force_unit_access = true;        // DPOFUA
  std::uint32_t failing_flushes = 0;    // so many from now on are answered with 4/44/00
  std::uint32_t max_unmap_blocks = 1024;
  std::uint8_t tpgs = 0;  // not 0: answers REPORT and SET TARGET PORT GROUPS
  // A port in a group that is neither active nor block dependent refuses what touches the medium.
  std::vector<TargetPortGroup> port_groups = {};
  std::uint8_t implicit_transition_seconds = 0;
  // Two RDAC controllers, 0 and 1; port N belongs to controller (N - 1) % 2. I/O at the one that is
  // not the owner is refused, or moves the LUN there (AVT).
  bool rdac = false;
  int rdac_owner = 0;
  int rdac_preferred = 0;
  bool rdac_automatic_transfer = false;
  bool rdac_shared = false;  // IOSHIP
  std::uint8_t rdac_max_lun = 255;
  // Two CLARiiON service processors in the same way; only the pages differ.
  bool emc = false;
  int emc_owner = 0;
  int emc_default = 0;
  std::map<std::uint16_t, std::string> serials_of_ports = {};  // in place of serial
  // Vital product data pages from their first byte on, in place of its own; an empty one is
  // refused.
  std::map<std::uint8_t, std::vector<std::byte>> pages = {};
  std::set<std::uint8_t> pages_of_standard_data = {};  // answered as if EVPD were not set
  bool reads_one_byte_of_allocation = false;           // of INQUIRY, as SCSI-2 had it
  std::uint8_t standard_data_byte1 = 0;                // 0x80: RMB
};

// Sense data of a CHECK CONDITION, fixed format, as it goes over the wire.
[[nodiscard]] std::vector<std::byte> make_sense(SenseKey key, std::uint16_t code);

struct SimScsiResult {
  ScsiStatus status = ScsiStatus::good;
  std::vector<std::byte> sense = {};  // with CHECK CONDITION
  std::vector<std::byte> data = {};   // Data-In
};

[[nodiscard]] SimScsiResult check_condition(SenseKey key, std::uint16_t code);

// What a target itself answers: the number in a PDU's LUN field, the commands to a LUN that is not
// there, and REPORT LUNS for those that are.
[[nodiscard]] inline std::uint16_t addressed_lun(std::uint64_t field) {
  return static_cast<std::uint16_t>(field >> 48 & 0x3fff);
}
[[nodiscard]] SimScsiResult answer_without_lun(const Cdb& cdb);
[[nodiscard]] SimScsiResult report_luns(const Cdb& cdb, std::span<const std::uint16_t> numbers);

// The blocks that a READ or WRITE command names; nothing where the command is neither.
struct SimTransfer {
  bool write = false;
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};
[[nodiscard]] inline std::optional<SimTransfer> transfer_of(const Cdb& cdb) {
  const auto* bytes = reinterpret_cast<const std::byte*>(cdb.data());
  switch (cdb[0]) {
    case scsi_operation::kRead10:
    case scsi_operation::kWrite10:
      return SimTransfer{cdb[0] == scsi_operation::kWrite10, load_be32(bytes + 2),
                         load_be16(bytes + 7)};
    case scsi_operation::kRead16:
    case scsi_operation::kWrite16:
      return SimTransfer{cdb[0] == scsi_operation::kWrite16, load_be64(bytes + 2),
                         load_be32(bytes + 10)};
    default:
      return std::nullopt;
  }
}

class SimLun {
 public:
  explicit SimLun(SimLunOptions options);

  // data: what the initiator wrote. port: relative identifier of the target port that it came to.
  [[nodiscard]] SimScsiResult execute(const Cdb& cdb, std::span<const std::byte> data,
                                      std::uint16_t port = 1);

  // Whether this port takes commands for the medium, as its port group's state has it.
  [[nodiscard]] bool is_active(std::uint16_t port) const;

  // Tests may change these at any time; medium() keeps its size in step with block_count after
  // resize().
  SimLunOptions options;
  void resize(std::uint64_t block_count);
  [[nodiscard]] std::vector<std::byte>& medium() { return medium_; }
  // Hears of each write that reaches the medium, from the block on, and of zeros where blocks are
  // deallocated. Null: nobody does.
  std::function<void(std::uint64_t block, std::span<const std::byte> data)> on_written;

  struct Counters {
    std::uint64_t reads = 0;
    std::uint64_t writes = 0;
    std::uint64_t flushes = 0;
    std::uint64_t unmaps = 0;
    std::uint64_t write_sames = 0;
    std::uint64_t others = 0;
    std::uint64_t take_overs = 0;  // MODE SELECT of the RDAC page
    std::uint64_t set_port_groups = 0;
  };
  Counters counters;  // commands that were executed with GOOD

 private:
  [[nodiscard]] SimScsiResult inquiry(const Cdb& cdb, std::uint16_t port) const;
  // The answer of a port through which the LUN is not served now.
  [[nodiscard]] std::optional<SimScsiResult> refuse(const Cdb& cdb, std::uint16_t port);
  [[nodiscard]] SimScsiResult take_over(const Cdb& cdb, std::span<const std::byte> list,
                                        std::uint16_t port);
  [[nodiscard]] const TargetPortGroup* group_of(std::uint16_t port) const;
  [[nodiscard]] SimScsiResult mode_sense(const Cdb& cdb) const;
  [[nodiscard]] SimScsiResult unmap(std::span<const std::byte> list);
  [[nodiscard]] SimScsiResult write_same(const Cdb& cdb, std::span<const std::byte> block);
  [[nodiscard]] SimScsiResult report_port_groups(const Cdb& cdb) const;
  [[nodiscard]] SimScsiResult set_port_groups(std::span<const std::byte> list);
  [[nodiscard]] bool write_protected() const {
    return options.read_only || options.software_write_protect;
  }
  [[nodiscard]] SimScsiResult transfer(const SimTransfer& range, std::span<const std::byte> data);
  void tell_of(std::uint64_t block, std::uint64_t count) const;

  std::vector<std::byte> medium_;
};

}  // namespace iscsi_blkback
