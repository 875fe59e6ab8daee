// What xentop finds of a disk of kind vbd3, read as its library does (xen,
// tools/libs/stat/xenstat_linux.c): a file's first 96 bytes, by fread(3), numbers in the host's order.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

namespace iscsi_blkback {

struct XentopDisk {
  std::uint64_t out_of_requests = 0;
  std::uint64_t reads = 0;
  std::uint64_t writes = 0;
  std::uint64_t read_sectors = 0;
  std::uint64_t written_sectors = 0;
  // Which tapdisk's other readers find there.
  std::uint64_t reads_completed = 0;
  std::uint64_t read_microseconds = 0;
  std::uint64_t writes_completed = 0;
  std::uint64_t write_microseconds = 0;
  std::uint64_t errors = 0;
  std::uint64_t flags = 0;
};

// nullopt: xentop shows dashes.
inline std::optional<XentopDisk> read_as_xentop(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return std::nullopt;
  }
  std::array<unsigned char, 96> bytes{};
  const std::size_t complete = std::fread(bytes.data(), bytes.size(), 1, file);
  (void)std::fclose(file);
  std::uint32_t version = 0;
  std::memcpy(&version, bytes.data(), sizeof version);
  if (complete != 1 || version != 1) {
    return std::nullopt;
  }
  const auto number = [&](std::size_t offset) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
  };
  return XentopDisk{.out_of_requests = number(8),
                    .reads = number(16),
                    .writes = number(48),
                    .read_sectors = number(32),
                    .written_sectors = number(64),
                    .reads_completed = number(24),
                    .read_microseconds = number(40),
                    .writes_completed = number(56),
                    .write_microseconds = number(72),
                    .errors = number(80),
                    .flags = number(88)};
}

}  // namespace iscsi_blkback
