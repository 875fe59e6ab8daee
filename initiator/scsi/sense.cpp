#include "initiator/scsi/sense.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "base/byte_order.h"

namespace iscsi_blkback {
namespace {

using SenseBytes = std::span<const std::byte>;

unsigned sense_byte(SenseBytes bytes, std::size_t at) {
  return at < bytes.size() ? std::to_integer<unsigned>(bytes[at]) : 0U;
}

// Sense key specific data, three bytes (SPC-4 4.5.2.4): a progress indication with these two keys.
void take_key_specific(SenseBytes three, SenseData& sense) {
  const bool valid = (sense_byte(three, 0) & 0x80) != 0;
  if (valid && (sense.key == SenseKey::no_sense || sense.key == SenseKey::not_ready)) {
    sense.progress = load_be16(three.data() + 1);
  }
}

void parse_fixed(SenseBytes bytes, SenseData& sense) {
  if (bytes.size() < 3) {
    return;
  }
  sense.valid = true;
  sense.key = static_cast<SenseKey>(sense_byte(bytes, 2) & 0x0f);
  if (bytes.size() >= 7 && (sense_byte(bytes, 0) & 0x80) != 0) {
    sense.information = load_be32(bytes.data() + 3);
  }
  // The additional length says which of the bytes from 8 on exist.
  bytes = bytes.first(std::min(bytes.size(), std::size_t{8} + sense_byte(bytes, 7)));
  sense.asc = static_cast<std::uint8_t>(sense_byte(bytes, 12));
  sense.ascq = static_cast<std::uint8_t>(sense_byte(bytes, 13));
  if (bytes.size() >= 18) {
    take_key_specific(bytes.subspan(15, 3), sense);
  }
}

void parse_descriptors(SenseBytes bytes, SenseData& sense) {
  if (bytes.size() < 4) {
    return;
  }
  sense.valid = true;
  sense.key = static_cast<SenseKey>(sense_byte(bytes, 1) & 0x0f);
  sense.asc = static_cast<std::uint8_t>(sense_byte(bytes, 2));
  sense.ascq = static_cast<std::uint8_t>(sense_byte(bytes, 3));
  if (bytes.size() < 8) {
    return;
  }
  SenseBytes rest = bytes.subspan(8, std::min(bytes.size() - 8, std::size_t{sense_byte(bytes, 7)}));
  while (rest.size() >= 2 && sense_byte(rest, 1) <= rest.size() - 2) {
    const SenseBytes descriptor = rest.first(std::size_t{2} + sense_byte(rest, 1));
    rest = rest.subspan(descriptor.size());
    const unsigned type = sense_byte(descriptor, 0);
    if (type == 0x00 && descriptor.size() >= 12 && (sense_byte(descriptor, 2) & 0x80) != 0) {
      sense.information = load_be64(descriptor.data() + 4);
    } else if (type == 0x02 && descriptor.size() >= 7) {
      take_key_specific(descriptor.subspan(4, 3), sense);
    }
  }
}

struct CodeText {
  std::uint16_t code;
  const char* text;
};

// In order. Those that disks and arrays send; an entry with qualifier 0 serves for its whole ASC.
constexpr CodeText kCodeTexts[] = {
    {0x0300, "peripheral device write fault"},
    {0x0400, "not ready, cause not reportable"},
    {0x0401, "becoming ready"},
    {0x0402, "initializing command required"},
    {0x0403, "manual intervention required"},
    {0x0404, "format in progress"},
    {0x0405, "rebuild in progress"},
    {0x0406, "recalculation in progress"},
    {0x0407, "operation in progress"},
    {0x0408, "long write in progress"},
    {0x0409, "self-test in progress"},
    {0x040a, "asymmetric access state transition"},
    {0x040b, "target port in standby state"},
    {0x040c, "target port in unavailable state"},
    {0x0411, "notify (enable spinup) required"},
    {0x0412, "offline"},
    {0x0414, "space allocation in progress"},
    {0x041a, "start stop unit command in progress"},
    {0x041b, "sanitize in progress"},
    {0x041d, "configuration in progress"},
    {0x0500, "logical unit does not respond to selection"},
    {0x0800, "logical unit communication failure"},
    {0x0801, "logical unit communication timeout"},
    {0x0900, "track following error"},
    {0x0a00, "error log overflow"},
    {0x0b00, "warning"},
    {0x0b01, "warning: specified temperature exceeded"},
    {0x0c00, "write error"},
    {0x0c02, "write error, automatic reallocation failed"},
    {0x0c0d, "write error, not enough unsolicited data"},
    {0x0d00, "error detected by third party"},
    {0x0e00, "invalid information unit"},
    {0x1000, "ID CRC or ECC error"},
    {0x1001, "logical block guard check failed"},
    {0x1002, "logical block application tag check failed"},
    {0x1003, "logical block reference tag check failed"},
    {0x1100, "unrecovered read error"},
    {0x1104, "unrecovered read error, automatic reallocation failed"},
    {0x1400, "recorded entity not found"},
    {0x1500, "random positioning error"},
    {0x1600, "data synchronization mark error"},
    {0x1700, "recovered data with no error correction applied"},
    {0x1701, "recovered data with retries"},
    {0x1800, "recovered data with error correction applied"},
    {0x1900, "defect list error"},
    {0x1a00, "parameter list length error"},
    {0x1d00, "miscompare during verify operation"},
    {0x2000, "invalid command operation code"},
    {0x2100, "logical block address out of range"},
    {0x2400, "invalid field in CDB"},
    {0x2500, "logical unit not supported"},
    {0x2600, "invalid field in parameter list"},
    {0x2604, "invalid release of persistent reservation"},
    {0x2700, "write protected"},
    {0x2701, "hardware write protected"},
    {0x2702, "logical unit software write protected"},
    {0x2707, "space allocation failed write protect"},
    {0x2800, "not ready to ready change, medium may have changed"},
    {0x2900, "power on, reset, or bus device reset occurred"},
    {0x2901, "power on occurred"},
    {0x2902, "SCSI bus reset occurred"},
    {0x2903, "bus device reset function occurred"},
    {0x2904, "device internal reset"},
    {0x2907, "I_T nexus loss occurred"},
    {0x2a00, "parameters changed"},
    {0x2a01, "mode parameters changed"},
    {0x2a03, "reservations preempted"},
    {0x2a04, "reservations released"},
    {0x2a05, "registrations preempted"},
    {0x2a06, "asymmetric access state changed"},
    {0x2a07, "implicit asymmetric access state transition failed"},
    {0x2a09, "capacity data has changed"},
    {0x2c00, "command sequence error"},
    {0x2e01, "command timeout before processing"},
    {0x2e02, "command timeout during processing"},
    {0x2e03, "command timeout during processing due to error recovery"},
    {0x2f00, "commands cleared by another initiator"},
    {0x3100, "medium format corrupted"},
    {0x3200, "no defect spare location available"},
    {0x3500, "enclosure services failure"},
    {0x3807, "thin provisioning soft threshold reached"},
    {0x3900, "saving parameters not supported"},
    {0x3a00, "medium not present"},
    {0x3e00, "logical unit has not self-configured yet"},
    {0x3e01, "logical unit failure"},
    {0x3e02, "timeout on logical unit"},
    {0x3f00, "target operating conditions have changed"},
    {0x3f01, "microcode has been changed"},
    {0x3f03, "inquiry data has changed"},
    {0x3f05, "device identifier changed"},
    {0x3f0e, "reported LUNs data has changed"},
    {0x4300, "message error"},
    {0x4400, "internal target failure"},
    {0x4500, "select or reselect failure"},
    {0x4700, "SCSI parity error"},
    {0x4800, "initiator detected error message received"},
    {0x4900, "invalid message error"},
    {0x4b00, "data phase error"},
    {0x4c00, "logical unit failed self-configuration"},
    {0x4e00, "overlapped commands attempted"},
    {0x5300, "media load or eject failed"},
    {0x5500, "system resource failure"},
    {0x5503, "insufficient resources"},
    {0x5504, "insufficient registration resources"},
    {0x5506, "auxiliary memory out of space"},
    {0x5d00, "failure prediction threshold exceeded"},
    {0x5e00, "low power condition on"},
    {0x6700, "configuration failure"},
    {0x680a, "logical unit not configured"},
    {0x7400, "security error"},
};

const char* find_text(std::uint16_t code) {
  const auto* found = std::lower_bound(
      std::begin(kCodeTexts), std::end(kCodeTexts), code,
      [](const CodeText& entry, std::uint16_t wanted) { return entry.code < wanted; });
  return found != std::end(kCodeTexts) && found->code == code ? found->text : nullptr;
}

}  // namespace

const char* to_string(SenseKey key) {
  switch (key) {
    case SenseKey::no_sense:
      return "no sense";
    case SenseKey::recovered_error:
      return "recovered error";
    case SenseKey::not_ready:
      return "not ready";
    case SenseKey::medium_error:
      return "medium error";
    case SenseKey::hardware_error:
      return "hardware error";
    case SenseKey::illegal_request:
      return "illegal request";
    case SenseKey::unit_attention:
      return "unit attention";
    case SenseKey::data_protect:
      return "data protect";
    case SenseKey::blank_check:
      return "blank check";
    case SenseKey::vendor_specific:
      return "vendor specific";
    case SenseKey::copy_aborted:
      return "copy aborted";
    case SenseKey::aborted_command:
      return "aborted command";
    case SenseKey::reserved:
      return "reserved";
    case SenseKey::volume_overflow:
      return "volume overflow";
    case SenseKey::miscompare:
      return "miscompare";
    case SenseKey::completed:
      return "completed";
  }
  return "unknown";
}

SenseData parse_sense(SenseBytes bytes) {
  SenseData sense;
  const unsigned response_code = sense_byte(bytes, 0) & 0x7f;
  if (response_code == 0x70 || response_code == 0x71) {
    parse_fixed(bytes, sense);
  } else if (response_code == 0x72 || response_code == 0x73) {
    parse_descriptors(bytes, sense);
  }
  sense.deferred = sense.valid && (response_code & 0x01) != 0;
  return sense;
}

const char* additional_sense_text(std::uint16_t code) {
  if (const char* exact = find_text(code)) {
    return exact;
  }
  const char* of_asc = find_text(static_cast<std::uint16_t>(code & 0xff00));
  return of_asc != nullptr ? of_asc : "";
}

std::string sense_text(const SenseData& sense) {
  if (!sense.valid) {
    return "no usable sense data";
  }
  std::string text = fmt::format("{:x}/{:02x}/{:02x} ({}", static_cast<unsigned>(sense.key),
                                 sense.asc, sense.ascq, to_string(sense.key));
  if (const char* words = additional_sense_text(sense.code()); *words != '\0') {
    text += fmt::format(": {}", words);
  }
  if (sense.progress) {
    text += fmt::format(", {} % done", *sense.progress * 100U / 65536U);
  }
  if (sense.information) {
    text += fmt::format(", at block {}", *sense.information);
  }
  text += sense.deferred ? ", of an earlier command)" : ")";
  return text;
}

}  // namespace iscsi_blkback
