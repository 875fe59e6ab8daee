// Everything that a LUN says about itself: the first byte chooses the parser.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "initiator/vpd.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace iscsi_blkback;
  if (size == 0) {
    return 0;
  }
  const auto* input = reinterpret_cast<const std::byte*>(bytes);
  const std::vector<std::byte> data(input + 1, input + size);
  switch (bytes[0] % 10) {
    case 0:
      static_cast<void>(parse_inquiry(data));
      break;
    case 1:
      static_cast<void>(parse_supported_pages(data));
      break;
    case 2:
      static_cast<void>(parse_unit_serial_number(data));
      break;
    case 3:
      static_cast<void>(parse_device_identification(data));
      break;
    case 4:
      static_cast<void>(parse_block_limits(data));
      break;
    case 5:
      static_cast<void>(parse_block_characteristics(data));
      break;
    case 6:
      static_cast<void>(parse_logical_block_provisioning(data));
      break;
    case 7:
    case 8: {
      const auto capacity =
          bytes[0] % 10 == 7 ? parse_read_capacity10(data) : parse_read_capacity16(data);
      if (capacity && (capacity->block_count == 0 || capacity->logical_block_bytes < 512 ||
                       capacity->logical_block_bytes > 4096)) {
        __builtin_trap();
      }
      break;
    }
    default:
      static_cast<void>(parse_report_luns(data));
  }
  return 0;
}
