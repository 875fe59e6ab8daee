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
  for (Sector& sector : sectors_) {
    sector.live.push_back({.ended = 0, .succeeded = true});
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
  begins(first_sector, count, version, version);
}

void SectorOracle::discard_begins(std::uint64_t first_sector, std::uint32_t count,
                                  Version version) {
  begins(first_sector, count, version, 0);
}

void SectorOracle::begins(std::uint64_t first_sector, std::uint32_t count, Version version,
                          Version content) {
  ++now_;
  for (std::uint64_t sector = first_sector; sector < first_sector + count; ++sector) {
    sectors_[sector].live.push_back({.version = version, .content = content, .began = now_});
  }
}

void SectorOracle::overwrite(Sector& sector, const std::function<bool(const Write&)>& which,
                             std::uint64_t now) {
  std::erase_if(sector.live, [&](Write& write) {
    if (!which(write)) {
      return false;
    }
    write.overwritten = now;
    sector.past.push_back(write);
    return true;
  });
}

void SectorOracle::write_ends(std::uint64_t first_sector, std::uint32_t count, Version version,
                              bool succeeded) {
  ++now_;
  for (std::uint64_t number = first_sector; number < first_sector + count; ++number) {
    Sector& sector = sectors_[number];
    const auto ending = std::find_if(sector.live.begin(), sector.live.end(),
                                     [&](const Write& write) { return write.version == version; });
    ending->ended = now_;
    ending->succeeded = succeeded;
    if (succeeded) {
      const std::uint64_t began = ending->began;
      overwrite(
          sector, [began](const Write& other) { return other.ended < began; }, now_);
    }
  }
}

std::string SectorOracle::lands(std::uint64_t first_sector, std::span<const std::byte> data) const {
  for (std::size_t at = 0; at < data.size(); at += kSectorBytes) {
    const std::uint64_t number = first_sector + at / kSectorBytes;
    const std::optional<Version> version = version_of(data.subspan(at, kSectorBytes), number);
    if (!version) {
      return fmt::format("sector {} gets what nobody has written", number);
    }
    const std::vector<Write>& live = sectors_[number].live;
    if (std::none_of(live.begin(), live.end(),
                     [&](const Write& write) { return write.content == *version; })) {
      return fmt::format("write {} reaches sector {}, where newer data has been acknowledged",
                         *version, number);
    }
  }
  return {};
}

std::string SectorOracle::read_ends(std::uint64_t first_sector, std::span<const std::byte> data,
                                    std::uint64_t ticket) {
  ++now_;
  for (std::size_t at = 0; at < data.size(); at += kSectorBytes) {
    const std::uint64_t number = first_sector + at / kSectorBytes;
    const std::optional<Version> version = version_of(data.subspan(at, kSectorBytes), number);
    if (!version) {
      return fmt::format("sector {} holds what nobody has written", number);
    }
    Sector& sector = sectors_[number];
    const auto is_seen = [&](const Write& write) { return write.content == *version; };
    if (std::none_of(sector.live.begin(), sector.live.end(), is_seen)) {
      const auto seen = std::find_if(sector.past.rbegin(), sector.past.rend(), is_seen);
      if (seen == sector.past.rend()) {
        return fmt::format("sector {} holds write {}, which never went there", number, *version);
      }
      if (seen->overwritten < ticket) {
        std::string allowed;
        for (const std::vector<Write>* writes : {&sector.past, &sector.live}) {
          for (const Write& write : *writes) {
            if (write.overwritten >= ticket) {
              allowed +=
                  fmt::format(" {}{}", write.version, write.ended == kNever ? " (open)" : "");
            }
          }
        }
        return fmt::format("sector {} reads as write {}, which was overwritten before; allowed:{}",
                           number, *version, allowed);
      }
    }
    overwrite(
        sector,
        [&](const Write& other) {
          return !is_seen(other) && other.ended < ticket && other.succeeded;
        },
        now_);
    // Nothing asks about the far past again, except to say which write it was.
    std::erase_if(sector.past,
                  [&](const Write& write) { return write.overwritten + kForgetAfter < now_; });
  }
  return {};
}

}  // namespace iscsi_blkback
