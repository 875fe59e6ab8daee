// SimLun: a disk in memory that understands the SCSI commands of the initiator; behind the portals
// of one or several SimTargets. Executing a command is immediate; delays and faults are the
// target's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "initiator/cdb.h"
#include "initiator/scsi_task.h"

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
  std::uint8_t device_type = 0;
  bool read_only = false;
  bool thin_provisioned = false;
  bool has_16_byte_commands = true;  // READ(16), READ CAPACITY(16) ...
  bool has_mode_sense = true;
};

// Sense data of a CHECK CONDITION, fixed format, as it goes over the wire.
[[nodiscard]] std::vector<std::byte> make_sense(SenseKey key, std::uint16_t code);

struct SimScsiResult {
  ScsiStatus status = ScsiStatus::good;
  std::vector<std::byte> sense = {};  // with CHECK CONDITION
  std::vector<std::byte> data = {};   // Data-In
};

class SimLun {
 public:
  explicit SimLun(SimLunOptions options);

  // data: what the initiator wrote.
  [[nodiscard]] SimScsiResult execute(const Cdb& cdb, std::span<const std::byte> data);

  // Tests may change these at any time; medium() keeps its size in step with block_count after
  // resize().
  SimLunOptions options;
  void resize(std::uint64_t block_count);
  [[nodiscard]] std::vector<std::byte>& medium() { return medium_; }

  struct Counters {
    std::uint64_t reads = 0;
    std::uint64_t writes = 0;
    std::uint64_t flushes = 0;
    std::uint64_t others = 0;
  };
  Counters counters;  // commands that were executed with GOOD

 private:
  [[nodiscard]] SimScsiResult inquiry(const Cdb& cdb) const;
  [[nodiscard]] SimScsiResult transfer(bool write, std::uint64_t block, std::uint64_t count,
                                       std::span<const std::byte> data);

  std::vector<std::byte> medium_;
};

}  // namespace iscsi_blkback
