// Everything that a LUN says about itself: the first byte chooses the parser; from 0x80 on those of
// mode pages, target port groups and reservations.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "initiator/scsi/lun_address.h"
#include "initiator/scsi/mode_pages.h"
#include "initiator/scsi/persistent_reservation.h"
#include "initiator/scsi/target_port_groups.h"
#include "initiator/scsi/vendor_pages.h"
#include "initiator/scsi/vpd.h"

namespace {

using namespace iscsi_blkback;

// Texts of the target's are printable, whatever bytes they are.
void require_printable(const Result<std::string>& text) {
  for (const char c : text.value_or("")) {
    if (c < ' ' || c > '~') {
      __builtin_trap();
    }
  }
}

void parse_other(unsigned which, const std::vector<std::byte>& data) {
  switch (which % 10) {
    case 0:
      static_cast<void>(parse_mode_sense6(data));
      return;
    case 1:
      static_cast<void>(parse_mode_sense10(data));
      return;
    case 2:
      static_cast<void>(parse_target_port_groups(data));
      return;
    case 3:
      static_cast<void>(parse_reservation_keys(data));
      return;
    case 4:
      static_cast<void>(parse_reservation(data));
      return;
    case 5:
      static_cast<void>(parse_rdac_volume_access(data));
      return;
    case 6:
      static_cast<void>(parse_rdac_max_lun(data));
      return;
    case 7:
      static_cast<void>(parse_emc_unit_path(data));
      return;
    default:
      static_cast<void>(parse_target_port_ids(data));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const auto* input = reinterpret_cast<const std::byte*>(bytes);
  const std::vector<std::byte> data(input + 1, input + size);
  if (bytes[0] >= 0x80) {
    parse_other(bytes[0] - 0x80U, data);
    return 0;
  }
  switch (bytes[0] % 10) {
    case 0:
      if (const auto inquiry = parse_inquiry(data)) {
        require_printable(inquiry->vendor + inquiry->product + inquiry->revision);
      }
      break;
    case 1:
      static_cast<void>(parse_supported_pages(data));
      break;
    case 2:
      require_printable(parse_unit_serial_number(data));
      break;
    case 3:
      if (const auto designators = parse_designators(data)) {
        const LunNames names{.designators = *designators, .vendor = "VENDOR", .product = "PRODUCT"};
        require_printable(wwid_of(names) + barrier_name_of(names));
        if (difference(names, names, SerialNumberIs::the_luns)) {
          __builtin_trap();
        }
      }
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
      if (const auto luns = parse_report_luns(data)) {
        for (const std::uint64_t lun : *luns) {
          static_cast<void>(lun_text(lun));
        }
      }
  }
  return 0;
}
