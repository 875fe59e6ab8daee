// Sense data of any length and content.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "initiator/scsi/sense.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const auto* input = reinterpret_cast<const std::byte*>(bytes);
  const std::vector<std::byte> copy(input, input + size);
  const iscsi_blkback::SenseData sense = iscsi_blkback::parse_sense(copy);
  if (!sense.valid && (sense.code() != 0 || sense.progress || sense.information)) {
    __builtin_trap();
  }
  if (iscsi_blkback::sense_text(sense).size() > 200) {
    __builtin_trap();
  }
  return 0;
}
