#include "tests/simulation/sector_oracle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/block_device.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kWords = kSectorBytes / sizeof(std::uint64_t);

void fill_sector(std::span<std::byte> data, std::uint64_t sector, SectorOracle::Version version) {
  std::uint64_t words[kWords] = {version, sector};
  if (version == 0) {
    words[1] = 0;
  } else {
    SimRandom pattern(version * 0x10001 + sector);
    std::generate(words + 2, words + kWords, [&] { return pattern.next(); });
  }
  std::memcpy(data.data(), words, kSectorBytes);
}

}  // namespace

SectorOracle::SectorOracle(std::uint64_t sector_count) : sectors_(sector_count) {
  for (std::vector<Write>& sector : sectors_) {
    sector.push_back({.ended = 0, .succeeded = true});
  }
}

void SectorOracle::fill(std::span<std::byte> data, std::uint64_t first_sector, Version version) {
  for (std::size_t at = 0; at < data.size(); at += kSectorBytes) {
    fill_sector(data.subspan(at, kSectorBytes), first_sector + at / kSectorBytes, version);
  }
}

std::optional<SectorOracle::Version> SectorOracle::version_of(
    std::span<const std::byte> sector_data, std::uint64_t sector) {
  Version version = 0;
  std::memcpy(&version, sector_data.data(), sizeof version);
  std::byte expected[kSectorBytes];
  fill_sector(expected, sector, version);
  if (std::memcmp(expected, sector_data.data(), kSectorBytes) != 0) {
    return std::nullopt;
  }
  return version;
}

void SectorOracle::write_begins(std::uint64_t first_sector, std::uint32_t count, Version version) {
  ++now_;
  for (std::uint64_t sector = first_sector; sector < first_sector + count; ++sector) {
    sectors_[sector].push_back({.version = version, .began = now_});
  }
}

void SectorOracle::write_ends(std::uint64_t first_sector, std::uint32_t count, Version version,
                              bool succeeded) {
  ++now_;
  for (std::uint64_t sector = first_sector; sector < first_sector + count; ++sector) {
    std::vector<Write>& writes = sectors_[sector];
    const auto ending = std::find_if(writes.begin(), writes.end(),
                                     [&](const Write& write) { return write.version == version; });
    ending->ended = now_;
    ending->succeeded = succeeded;
    if (succeeded) {
      for (Write& other : writes) {
        if (other.ended < ending->began) {
          other.overwritten = std::min(other.overwritten, now_);
        }
      }
    }
  }
}

std::string SectorOracle::read_ends(std::uint64_t first_sector, std::span<const std::byte> data,
                                    std::uint64_t ticket) {
  ++now_;
  for (std::size_t at = 0; at < data.size(); at += kSectorBytes) {
    const std::uint64_t sector = first_sector + at / kSectorBytes;
    const std::optional<Version> version = version_of(data.subspan(at, kSectorBytes), sector);
    if (!version) {
      return fmt::format("sector {} holds what nobody has written", sector);
    }
    std::vector<Write>& writes = sectors_[sector];
    const auto seen = std::find_if(writes.begin(), writes.end(),
                                   [&](const Write& write) { return write.version == *version; });
    if (seen == writes.end()) {
      return fmt::format("sector {} holds write {}, which never went there", sector, *version);
    }
    if (seen->overwritten < ticket) {
      std::string allowed;
      for (const Write& write : writes) {
        if (write.overwritten >= ticket) {
          allowed += fmt::format(" {}{}", write.version, write.ended == kNever ? " (open)" : "");
        }
      }
      return fmt::format("sector {} reads as write {}, which was overwritten before; allowed:{}",
                         sector, *version, allowed);
    }
    for (Write& other : writes) {
      if (&other != &*seen && other.ended < ticket && other.succeeded) {
        other.overwritten = std::min(other.overwritten, now_);
      }
    }
    // Nothing asks about the far past again, except to say which write it was.
    std::erase_if(writes, [&](const Write& write) {
      return write.overwritten != kNever && write.overwritten + kForgetAfter < now_;
    });
  }
  return {};
}

}  // namespace iscsi_blkback
