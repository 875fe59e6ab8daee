#include "initiator/scsi/vpd_writer.h"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kHeaderBytes = 4;
constexpr std::uint8_t kTypeEui64 = 2;
constexpr std::uint8_t kTypeNaa = 3;

std::vector<std::byte> page_with_header(std::uint8_t page) {
  return {std::byte{0}, std::byte{page}, std::byte{0}, std::byte{0}};
}

void append(std::vector<std::byte>& page, std::string_view bytes) {
  for (const char c : bytes) {
    page.push_back(static_cast<std::byte>(c));
  }
}

// A page of nothing but its header is none. The length fits into the second of its two bytes.
std::vector<std::byte> finished(std::vector<std::byte> page) {
  if (page.size() == kHeaderBytes) {
    return {};
  }
  page[3] = static_cast<std::byte>(page.size() - kHeaderBytes);
  return page;
}

int place_of(const Designator& designator) {
  return designator.type == kTypeNaa ? 0 : designator.type == kTypeEui64 ? 1 : 2;
}

}  // namespace

std::vector<std::byte> write_serial_number_page(const LunNames& names) {
  std::vector<std::byte> page = page_with_header(0x80);
  for (const LunNames& name : each_of(names)) {
    if (kHeaderBytes + name.serial.size() <= kMaxWrittenPageBytes) {
      append(page, name.serial);
    }
  }
  return finished(std::move(page));
}

std::vector<std::byte> write_designator_page(const LunNames& names) {
  std::vector<Designator> designators;
  for (const LunNames& name : each_of(names)) {
    if (!name.designators.empty() && !is_local(name.designators[0])) {
      designators.push_back(name.designators[0]);
    }
  }
  std::stable_sort(designators.begin(), designators.end(),
                   [](const Designator& one, const Designator& other) {
                     return place_of(one) < place_of(other);
                   });
  std::vector<std::byte> page = page_with_header(0x83);
  for (const Designator& designator : designators) {
    if (page.size() + kHeaderBytes + designator.bytes.size() > kMaxWrittenPageBytes) {
      continue;
    }
    page.push_back(static_cast<std::byte>(designator.code_set));
    page.push_back(static_cast<std::byte>(designator.type));  // of the logical unit
    page.push_back(std::byte{0});
    page.push_back(static_cast<std::byte>(designator.bytes.size()));
    append(page, designator.bytes);
  }
  return finished(std::move(page));
}

}  // namespace iscsi_blkback
