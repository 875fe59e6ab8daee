#include "tests/support/sim_lun.h"

#include <algorithm>
#include <cstring>

#include "base/byte_order.h"
#include "initiator/scsi/lun_address.h"

namespace iscsi_blkback {
namespace {

using namespace scsi_operation;

constexpr std::uint16_t kInvalidOperation = 0x2000;
constexpr std::uint16_t kOutOfRange = 0x2100;
constexpr std::uint16_t kInvalidField = 0x2400;
constexpr std::uint16_t kNoSuchLun = 0x2500;
constexpr std::uint16_t kWriteProtected = 0x2700;
constexpr std::uint16_t kInternalTargetFailure = 0x4400;

const std::byte* at(const Cdb& cdb, std::size_t index) {
  return reinterpret_cast<const std::byte*>(cdb.data()) + index;
}

SimScsiResult good(std::vector<std::byte> data, std::size_t allocation) {
  data.resize(std::min(data.size(), allocation));
  return {.status = ScsiStatus::good, .sense = {}, .data = std::move(data)};
}

void put_text(std::vector<std::byte>& to, std::size_t offset, const std::string& text,
              std::size_t width) {
  for (std::size_t i = 0; i < width; ++i) {
    to[offset + i] = static_cast<std::byte>(i < text.size() ? text[i] : ' ');
  }
}

}  // namespace

std::vector<std::byte> make_sense(SenseKey key, std::uint16_t code) {
  std::vector<std::byte> sense(18, std::byte{0});
  sense[0] = std::byte{0x70};
  sense[2] = static_cast<std::byte>(key);
  sense[7] = std::byte{10};
  store_be16(sense.data() + 12, code);
  return sense;
}

SimScsiResult check_condition(SenseKey key, std::uint16_t code) {
  return {.status = ScsiStatus::check_condition, .sense = make_sense(key, code), .data = {}};
}

SimScsiResult answer_without_lun(const Cdb& cdb) {
  if (cdb[0] == kInquiry) {
    std::vector<std::byte> nothing(36, std::byte{0});
    nothing[0] = std::byte{0x7f};
    return {.status = ScsiStatus::good, .sense = {}, .data = std::move(nothing)};
  }
  return check_condition(SenseKey::illegal_request, kNoSuchLun);
}

SimScsiResult report_luns(const Cdb& cdb, std::span<const std::uint16_t> numbers) {
  std::vector<std::byte> list(8 + 8 * numbers.size(), std::byte{0});
  store_be32(list.data(), static_cast<std::uint32_t>(8 * numbers.size()));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    store_be64(list.data() + 8 + 8 * i, encode_lun(numbers[i]));
  }
  return good(std::move(list), load_be32(at(cdb, 6)));
}

SimLun::SimLun(SimLunOptions initial) : options(std::move(initial)) {
  resize(options.block_count);
}

void SimLun::resize(std::uint64_t block_count) {
  options.block_count = block_count;
  medium_.resize(block_count * options.block_bytes);
}

SimScsiResult SimLun::execute(const Cdb& cdb, std::span<const std::byte> data, std::uint16_t port) {
  if (auto refused = refuse(cdb, port)) {
    return *refused;
  }
  if (options.unknown_operations.contains(cdb[0])) {
    return check_condition(SenseKey::illegal_request, kInvalidOperation);
  }
  const bool is_16 = cdb[0] >= 0x80 && cdb[0] < 0xa0;
  if (is_16 && !options.has_16_byte_commands) {
    return check_condition(SenseKey::illegal_request, kInvalidOperation);
  }
  if (const auto range = transfer_of(cdb)) {
    return transfer(*range, data);
  }
  switch (cdb[0]) {
    case kTestUnitReady:
      ++counters.others;
      return {};
    case kInquiry:
      ++counters.others;
      return inquiry(cdb, port);
    case kModeSense6:
    case kModeSense10:
      if (!options.has_mode_sense || (cdb[0] == kModeSense6 && !options.has_mode_sense6)) {
        return check_condition(SenseKey::illegal_request, kInvalidOperation);
      }
      ++counters.others;
      return mode_sense(cdb);
    case kModeSelect6:
    case kModeSelect10:
      return take_over(cdb, data, port);
    case kUnmap:
      return unmap(data);
    case kWriteSame16:
      return write_same(cdb, data);
    case kMaintenanceIn:
    case kMaintenanceOut:
      if (options.tpgs == 0 || (cdb[1] & 0x1f) != kTargetPortGroupsAction) {
        return check_condition(SenseKey::illegal_request, kInvalidOperation);
      }
      ++counters.others;
      return cdb[0] == kMaintenanceIn ? report_port_groups(cdb) : set_port_groups(data);
    case kReadCapacity10: {
      ++counters.others;
      std::vector<std::byte> capacity(8);
      store_be32(capacity.data(), static_cast<std::uint32_t>(std::min<std::uint64_t>(
                                      options.block_count - 1, 0xffffffff)));
      store_be32(capacity.data() + 4, options.block_bytes);
      return good(capacity, 8);
    }
    case kServiceActionIn16: {
      if ((cdb[1] & 0x1f) != kReadCapacity16Action) {
        return check_condition(SenseKey::illegal_request, kInvalidField);
      }
      ++counters.others;
      std::vector<std::byte> capacity(32, std::byte{0});
      store_be64(capacity.data(), options.block_count - 1);
      store_be32(capacity.data() + 8, options.block_bytes);
      capacity[13] = std::byte{options.physical_block_exponent};
      capacity[14] = options.thin_provisioned ? std::byte{0xc0} : std::byte{0};
      return good(capacity, load_be32(at(cdb, 10)));
    }
    case kSynchronizeCache10:
    case kSynchronizeCache16:
      if (options.failing_flushes > 0) {
        --options.failing_flushes;
        return check_condition(SenseKey::hardware_error, kInternalTargetFailure);
      }
      ++counters.flushes;
      return {};
    default:
      return check_condition(SenseKey::illegal_request, kInvalidOperation);
  }
}

const TargetPortGroup* SimLun::group_of(std::uint16_t port) const {
  for (const TargetPortGroup& group : options.port_groups) {
    if (std::find(group.ports.begin(), group.ports.end(), port) != group.ports.end()) {
      return &group;
    }
  }
  return nullptr;
}

bool SimLun::is_active(std::uint16_t port) const {
  const TargetPortGroup* group = group_of(port);
  return group == nullptr || group->state == AccessState::active_optimized ||
         group->state == AccessState::active_non_optimized ||
         group->state == AccessState::block_dependent;
}

std::optional<SimScsiResult> SimLun::refuse(const Cdb& cdb, std::uint16_t port) {
  constexpr std::uint16_t kNotOwner = 0x9401;
  const bool io = transfer_of(cdb) || cdb[0] == kSynchronizeCache10 ||
                  cdb[0] == kSynchronizeCache16 || cdb[0] == kUnmap || cdb[0] == kWriteSame16;
  const bool needs_service =
      io || cdb[0] == kTestUnitReady || cdb[0] == kReadCapacity10 || cdb[0] == kServiceActionIn16;
  if (const TargetPortGroup* group = group_of(port); group != nullptr && needs_service) {
    switch (group->state) {
      case AccessState::standby:
        return check_condition(SenseKey::not_ready, 0x040b);
      case AccessState::unavailable:
        return check_condition(SenseKey::not_ready, 0x040c);
      case AccessState::offline:
        return check_condition(SenseKey::not_ready, 0x0412);
      case AccessState::transitioning:
        return check_condition(SenseKey::not_ready, 0x040a);
      case AccessState::active_optimized:
      case AccessState::active_non_optimized:
      case AccessState::block_dependent:
        break;
    }
  }
  const int controller = (port - 1) % 2;
  if (options.rdac && io && options.rdac_owner != controller && !options.rdac_shared) {
    if (!options.rdac_automatic_transfer) {
      return check_condition(SenseKey::illegal_request, kNotOwner);
    }
    options.rdac_owner = controller;
  }
  return std::nullopt;
}

SimScsiResult SimLun::take_over(const Cdb& cdb, std::span<const std::byte> list,
                                std::uint16_t port) {
  const bool long_form = cdb[0] == kModeSelect10;
  const std::size_t bytes = long_form ? 8 + 4 + 38 + 256 + 2 : 4 + 2 + 38 + 32 + 34;
  if (!options.rdac || list.size() != bytes || long_form != (options.rdac_max_lun >= 32)) {
    return check_condition(SenseKey::illegal_request, kInvalidField);
  }
  const auto byte = [&list](std::size_t index) { return std::to_integer<int>(list[index]); };
  const bool right_page = long_form
                              ? byte(8) == 0x6c && byte(9) == 1 && byte(10) == 1 && byte(11) == 0x28
                              : byte(4) == 0x2c && byte(5) == 0x68;
  const std::size_t common = long_form ? 12 : 6;
  // LUN 0 is the only one that this disk can have there.
  if (!right_page || byte(common + 33) != 2 || byte(common + 38) != 0x81) {
    return check_condition(SenseKey::illegal_request, 0x2600);
  }
  options.rdac_owner = (port - 1) % 2;
  ++counters.take_overs;
  return {};
}

SimScsiResult SimLun::inquiry(const Cdb& cdb, std::uint16_t port) const {
  const std::size_t allocation =
      options.reads_one_byte_of_allocation ? std::size_t{cdb[4]} : load_be16(at(cdb, 3));
  std::vector<std::byte> page(4, std::byte{0});
  page[0] = std::byte{options.device_type};
  if ((cdb[1] & 1) == 0 || options.pages_of_standard_data.contains(cdb[2])) {
    page.resize(36, std::byte{0});
    page[1] = std::byte{options.standard_data_byte1};
    page[2] = std::byte{5};
    page[3] = std::byte{2};
    page[5] = static_cast<std::byte>(options.tpgs << 4);
    page[4] = std::byte{31};
    put_text(page, 8, options.vendor, 8);
    put_text(page, 16, options.product, 16);
    put_text(page, 32, options.revision, 4);
    return good(page, allocation);
  }
  if (const auto given = options.pages.find(cdb[2]); given != options.pages.end()) {
    return given->second.empty() ? check_condition(SenseKey::illegal_request, kInvalidField)
                                 : good(given->second, allocation);
  }
  page[1] = std::byte{cdb[2]};
  const auto append = [&](std::initializer_list<int> bytes) {
    for (const int byte : bytes) {
      page.push_back(static_cast<std::byte>(byte));
    }
  };
  switch (cdb[2]) {
    case 0x00:
      append({0x00});
      if (!options.serial.empty()) {
        append({0x80});
      }
      if (options.naa_extension != 0) {
        append({0x83});
      }
      append({0xb0, 0xb1, 0xb2});
      if (options.emc) {
        append({0xc0});
      }
      if (options.rdac) {
        append({0xc2, 0xc9});
      }
      break;
    case 0x80: {
      const auto own = options.serials_of_ports.find(port);
      for (const char letter :
           own == options.serials_of_ports.end() ? options.serial : own->second) {
        append({letter});
      }
      break;
    }
    case 0x83: {
      // A port's designator first, to be passed over, then the LUN's T10 one and its NAA one.
      append({0x01, 0x94, 0, 4, 0, 0, port >> 8, port & 0xff});
      if (const TargetPortGroup* group = group_of(port)) {
        append({0x01, 0x95, 0, 4, 0, 0, group->tag >> 8, group->tag & 0xff});
      }
      append({0x02, 0x01, 0, 8, 'S', 'I', 'M', ' ', 'D', 'I', 'S', 'K'});
      append({0x01, 0x03, 0, 16});
      if (options.naa_has_company) {
        append({0x60, 0x01, 0x40, 0x50, 0, 0, 0, 0});
      } else {
        append({0x60, 0, 0, 0, 0, 0, 0, 0});
      }
      for (int shift = 56; shift >= 0; shift -= 8) {
        append({static_cast<int>(options.naa_extension >> shift & 0xff)});
      }
      break;
    }
    case 0xb0:
      page.resize(64, std::byte{0});
      store_be32(page.data() + 8, options.max_transfer_blocks);
      if (options.thin_provisioned) {
        store_be32(page.data() + 20, options.has_unmap ? options.max_unmap_blocks : 0);
        store_be32(page.data() + 24, 16);
        store_be32(page.data() + 28, 8);
        store_be32(page.data() + 32, 0x80000004);
        store_be64(page.data() + 36, 4096);
      }
      break;
    case 0xb1:
      page.resize(64, std::byte{0});
      store_be16(page.data() + 4, 1);
      break;
    case 0xb2:
      append({0,
              !options.thin_provisioned ? 0
              : options.has_unmap       ? 0xc4
                                        : 0x44,
              options.thin_provisioned ? 2 : 0, 0});
      break;
    case 0xc0: {
      const int processor = (port - 1) % 2;
      append({processor == options.emc_owner ? 2 : 1, options.emc_default, 0, 0, processor, 0});
      page.resize(64, std::byte{0});
      break;
    }
    case 0xc2:
      append({'s', 'w', 'r', '4', 7, 0, 0, 9, 1, 1, 0, options.rdac_max_lun});
      break;
    case 0xc9: {
      const int controller = (port - 1) % 2;
      append({'v', 'a', 'c', 'e',
              (options.rdac_automatic_transfer ? 0x80 : 0) | (options.rdac_shared ? 0x20 : 0) |
                  (controller == options.rdac_owner ? 1 : 0),
              controller == options.rdac_preferred ? 1 : 2});
      page.resize(48, std::byte{0});
      break;
    }
    default:
      return check_condition(SenseKey::illegal_request, kInvalidField);
  }
  const bool absent = (cdb[2] == 0x80 && options.serial.empty()) ||
                      (cdb[2] == 0x83 && options.naa_extension == 0) ||
                      (cdb[2] == 0xc0 && !options.emc) ||
                      ((cdb[2] == 0xc2 || cdb[2] == 0xc9) && !options.rdac);
  if (absent) {
    return check_condition(SenseKey::illegal_request, kInvalidField);
  }
  store_be16(page.data() + 2, static_cast<std::uint16_t>(page.size() - 4));
  return good(page, allocation);
}

SimScsiResult SimLun::mode_sense(const Cdb& cdb) const {
  const bool six = cdb[0] == kModeSense6;
  std::vector<std::byte> mode(six ? 4 : 8, std::byte{0});
  mode[six ? 2 : 3] = static_cast<std::byte>((options.read_only ? 0x80 : 0) |
                                             (options.force_unit_access ? 0x10 : 0));
  const auto append = [&](std::initializer_list<int> head, std::size_t bytes) {
    const std::size_t at = mode.size();
    mode.resize(at + bytes, std::byte{0});
    std::size_t i = at;
    for (const int byte : head) {
      mode[i++] = static_cast<std::byte>(byte);
    }
  };
  append({0x01, 0x0a}, 12);       // read-write error recovery, of no interest
  append({0x5c, 0x03, 0, 4}, 8);  // a page with a subpage code
  append({0x08, 0x12, options.write_cache ? 0x04 : 0x00}, 20);
  append({0x0a, 0x0a, 0x20, 0, options.software_write_protect ? 0x08 : 0x00, 0x40}, 12);
  if (six) {
    mode[0] = static_cast<std::byte>(mode.size() - 1);
    return good(mode, cdb[4]);
  }
  store_be16(mode.data(), static_cast<std::uint16_t>(mode.size() - 2));
  return good(mode, load_be16(at(cdb, 7)));
}

SimScsiResult SimLun::unmap(std::span<const std::byte> list) {
  constexpr std::uint16_t kInvalidParameter = 0x2600;
  if (!options.thin_provisioned || !options.has_unmap) {
    return check_condition(SenseKey::illegal_request, kInvalidOperation);
  }
  if (write_protected()) {
    return check_condition(SenseKey::data_protect, kWriteProtected);
  }
  if (list.size() < 8 || load_be16(list.data()) != list.size() - 2 ||
      load_be16(list.data() + 2) != list.size() - 8 || list.size() % 16 != 8) {
    return check_condition(SenseKey::illegal_request, kInvalidParameter);
  }
  for (std::size_t entry = 8; entry < list.size(); entry += 16) {
    const std::uint64_t block = load_be64(list.data() + entry);
    const std::uint32_t count = load_be32(list.data() + entry + 8);
    if (block > options.block_count || count > options.block_count - block) {
      return check_condition(SenseKey::illegal_request, kOutOfRange);
    }
    if (count > options.max_unmap_blocks) {
      return check_condition(SenseKey::illegal_request, kInvalidParameter);
    }
    const std::size_t bytes = std::size_t{count} * options.block_bytes;
    std::memset(medium_.data() + block * options.block_bytes, 0, bytes);
    tell_of(block, count);
  }
  ++counters.unmaps;
  return {};
}

SimScsiResult SimLun::write_same(const Cdb& cdb, std::span<const std::byte> block) {
  if (write_protected()) {
    return check_condition(SenseKey::data_protect, kWriteProtected);
  }
  if (block.size() != options.block_bytes) {
    return check_condition(SenseKey::illegal_request, kInvalidField);
  }
  const std::uint64_t first = load_be64(at(cdb, 2));
  const std::uint32_t count = load_be32(at(cdb, 10));
  if (first > options.block_count || count > options.block_count - first) {
    return check_condition(SenseKey::illegal_request, kOutOfRange);
  }
  for (std::uint64_t index = first; index < first + count; ++index) {
    std::memcpy(medium_.data() + index * options.block_bytes, block.data(), block.size());
  }
  tell_of(first, count);
  ++counters.write_sames;
  return {};
}

SimScsiResult SimLun::report_port_groups(const Cdb& cdb) const {
  std::vector<std::byte> data(4, std::byte{0});
  if ((cdb[1] & 0x20) != 0) {
    data.resize(8, std::byte{0});
    data[4] = std::byte{0x10};
    data[5] = std::byte{options.implicit_transition_seconds};
  }
  for (const TargetPortGroup& group : options.port_groups) {
    const std::size_t entry = data.size();
    data.resize(entry + 8 + group.ports.size() * 4, std::byte{0});
    data[entry] =
        static_cast<std::byte>(static_cast<int>(group.state) | (group.preferred ? 0x80 : 0));
    data[entry + 1] = std::byte{group.supported_states};
    store_be16(data.data() + entry + 2, group.tag);
    data[entry + 5] = std::byte{group.status_code};
    data[entry + 7] = static_cast<std::byte>(group.ports.size());
    for (std::size_t port = 0; port < group.ports.size(); ++port) {
      store_be16(data.data() + entry + 8 + port * 4 + 2, group.ports[port]);
    }
  }
  store_be32(data.data(), static_cast<std::uint32_t>(data.size() - 4));
  return good(data, load_be32(at(cdb, 6)));
}

SimScsiResult SimLun::set_port_groups(std::span<const std::byte> list) {
  if ((options.tpgs & 2) == 0) {
    return check_condition(SenseKey::illegal_request, kInvalidOperation);
  }
  ++counters.set_port_groups;
  for (std::size_t entry = 4; entry + 4 <= list.size(); entry += 4) {
    for (TargetPortGroup& group : options.port_groups) {
      if (group.tag == load_be16(list.data() + entry + 2)) {
        group.state = static_cast<AccessState>(std::to_integer<int>(list[entry]) & 0x0f);
        group.status_code = 1;
      }
    }
  }
  return {};
}

SimScsiResult SimLun::transfer(const SimTransfer& range, std::span<const std::byte> data) {
  const auto [write, block, count] = range;
  if (block > options.block_count || count > options.block_count - block) {
    return check_condition(SenseKey::illegal_request, kOutOfRange);
  }
  if (options.max_transfer_blocks != 0 && count > options.max_transfer_blocks) {
    return check_condition(SenseKey::illegal_request, kInvalidField);
  }
  const std::size_t offset = block * options.block_bytes;
  const std::size_t bytes = count * options.block_bytes;
  if (!write) {
    ++counters.reads;
    return {.status = ScsiStatus::good,
            .sense = {},
            .data = {medium_.begin() + static_cast<std::ptrdiff_t>(offset),
                     medium_.begin() + static_cast<std::ptrdiff_t>(offset + bytes)}};
  }
  if (write_protected()) {
    return check_condition(SenseKey::data_protect, kWriteProtected);
  }
  if (data.size() < bytes) {
    return check_condition(SenseKey::aborted_command, 0x0c02);
  }
  std::memcpy(medium_.data() + offset, data.data(), bytes);
  ++counters.writes;
  tell_of(block, count);
  return {};
}

void SimLun::tell_of(std::uint64_t block, std::uint64_t count) const {
  if (on_written) {
    on_written(block, std::span(medium_).subspan(block * options.block_bytes,
                                                 count * options.block_bytes));
  }
}

}  // namespace iscsi_blkback
