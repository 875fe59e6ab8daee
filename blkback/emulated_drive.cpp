#include "blkback/emulated_drive.h"

#include <cstdint>
#include <optional>

#include "base/decimal.h"

namespace iscsi_blkback {
namespace {

constexpr std::string_view kDigits = "0123456789";
constexpr std::uint32_t kFarAway = 1000;  // further than any emulated drive

// "a" 0, "b" 1, ..., "aa" 26, perhaps with a partition's number behind.
std::optional<std::uint32_t> disk_of_letters(std::string_view text) {
  const std::size_t letters = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz");
  const std::string_view partition =
      letters == std::string_view::npos ? std::string_view() : text.substr(letters);
  if (letters == 0 || text.empty() ||
      partition.find_first_not_of(kDigits) != std::string_view::npos) {
    return std::nullopt;
  }
  std::uint32_t disk = 0;
  for (const char letter : text.substr(0, letters)) {
    disk = disk * 26 + static_cast<std::uint32_t>(letter - 'a') + 1;
    if (disk > kFarAway) {
      return kFarAway;
    }
  }
  return disk - 1;
}

// dNpM
std::optional<std::uint32_t> disk_of_numbers(std::string_view text) {
  const std::size_t end = text.find('p');
  if (end == std::string_view::npos || !parse_decimal<std::uint32_t>(text.substr(end + 1))) {
    return std::nullopt;
  }
  return parse_decimal<std::uint32_t>(text.substr(0, end));
}

}  // namespace

bool is_emulated_drive(std::string_view name, bool cdrom) {
  constexpr std::uint32_t kDrives = 4;
  constexpr std::uint32_t kCdDrives = 5;
  std::optional<std::uint32_t> disk;
  bool scsi = false;
  if (name.starts_with("xvd")) {
    disk = disk_of_letters(name.substr(3));
  } else if (name.starts_with("hd") || name.starts_with("sd")) {
    scsi = name.front() == 's';
    disk = disk_of_letters(name.substr(2));
  } else if (name.starts_with('d')) {
    disk = disk_of_numbers(name.substr(1));
  }
  if (!disk) {
    return false;
  }
  return cdrom ? *disk < kCdDrives : scsi || *disk < kDrives;
}

}  // namespace iscsi_blkback
