// SectorOracle: knows what each sector of a disk may read as, from what the guest was told. It
// makes no assumption about how the disk works, only about what a disk promises:
//
//  - a read returns, for each sector, data of a write that was not overwritten for good before the
//    read began: V is overwritten for good when a write that began after V had ended has succeeded;
//  - writes that are unanswered at the same time may take effect in either order, but once: when a
//    read has returned V, no write that had ended before that read began may show up after it.
//
// A write that failed may have taken effect or not, and may still do so, until something newer has
// succeeded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace iscsi_blkback {

class SectorOracle {
 public:
  // Versions are the writes' names: unlike each other and 0, which is the zeroed medium.
  using Version = std::uint64_t;

  explicit SectorOracle(std::uint64_t sector_count);

  // Fills data, that is whole sectors, with what version writes there.
  static void fill(std::span<std::byte> data, std::uint64_t first_sector, Version version);
  // Which version a sector holds; nothing when the bytes are no version's whole sector.
  [[nodiscard]] static std::optional<Version> version_of(std::span<const std::byte> sector_data,
                                                         std::uint64_t sector);

  void write_begins(std::uint64_t first_sector, std::uint32_t count, Version version);
  // The LUN reads as zeros where it has discarded, and ends like a write.
  void discard_begins(std::uint64_t first_sector, std::uint32_t count, Version version);
  void write_ends(std::uint64_t first_sector, std::uint32_t count, Version version, bool succeeded);
  // Data has reached the medium. Empty when a read may return it, else what is wrong.
  [[nodiscard]] std::string lands(std::uint64_t first_sector,
                                  std::span<const std::byte> data) const;
  // A read's ticket: when it began.
  [[nodiscard]] std::uint64_t read_begins() { return ++now_; }
  // Empty when the data is allowed, else what is wrong.
  [[nodiscard]] std::string read_ends(std::uint64_t first_sector, std::span<const std::byte> data,
                                      std::uint64_t ticket);

 private:
  static constexpr std::uint64_t kNever = ~std::uint64_t{0};
  static constexpr std::uint64_t kForgetAfter = 100000;  // events; longer than any read takes
  struct Write {
    Version version = 0;
    Version content = 0;  // what it reads as
    std::uint64_t began = 0;
    std::uint64_t ended = kNever;
    bool succeeded = false;
    std::uint64_t overwritten = kNever;  // when it became impossible
  };

  struct Sector {
    std::vector<Write> live;  // not overwritten for good
    std::vector<Write> past;  // nothing of them changes any more
  };

  void begins(std::uint64_t first_sector, std::uint32_t count, Version version, Version content);
  static void overwrite(Sector& sector, const std::function<bool(const Write&)>& which,
                        std::uint64_t now);

  std::vector<Sector> sectors_;
  std::uint64_t now_ = 0;  // counts events
};

}  // namespace iscsi_blkback
