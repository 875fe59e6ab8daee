// Vbd3Statistics: what xentop shows of a disk of kind vbd3, laid out as it reads it: struct vbd3_stats,
// version 1, of Xen's tools/libs/stat/xenstat_priv.h, which is tapdisk's struct stats (blktap,
// drivers/tapdisk-metrics-stats.h). It has no place for flushes and discards. A sector is 512 bytes. Reactor thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace iscsi_blkback {

struct Vbd3Statistics {
  static constexpr std::uint32_t kVersion = 1;

  std::uint32_t version = kVersion;
  std::uint32_t padding = 0;
  std::uint64_t waits_for_room = 0;  // xentop's OO
  std::uint64_t reads_submitted = 0;
  std::uint64_t reads_completed = 0;
  std::uint64_t read_sectors = 0;
  std::uint64_t read_microseconds = 0;  // of all that are completed, together
  std::uint64_t writes_submitted = 0;
  std::uint64_t writes_completed = 0;
  std::uint64_t written_sectors = 0;
  std::uint64_t write_microseconds = 0;
  std::uint64_t errors = 0;
  std::uint64_t flags = 0;  // 1: tapdisk is short of memory; never here

  // All but version and flags.
  Vbd3Statistics& operator+=(const Vbd3Statistics& other) {
    waits_for_room += other.waits_for_room;
    reads_submitted += other.reads_submitted;
    reads_completed += other.reads_completed;
    read_sectors += other.read_sectors;
    read_microseconds += other.read_microseconds;
    writes_submitted += other.writes_submitted;
    writes_completed += other.writes_completed;
    written_sectors += other.written_sectors;
    write_microseconds += other.write_microseconds;
    errors += other.errors;
    return *this;
  }
};

static_assert(sizeof(Vbd3Statistics) == 96);
static_assert(offsetof(Vbd3Statistics, waits_for_room) == 8);
static_assert(offsetof(Vbd3Statistics, reads_submitted) == 16);
static_assert(offsetof(Vbd3Statistics, reads_completed) == 24);
static_assert(offsetof(Vbd3Statistics, read_sectors) == 32);
static_assert(offsetof(Vbd3Statistics, read_microseconds) == 40);
static_assert(offsetof(Vbd3Statistics, writes_submitted) == 48);
static_assert(offsetof(Vbd3Statistics, writes_completed) == 56);
static_assert(offsetof(Vbd3Statistics, written_sectors) == 64);
static_assert(offsetof(Vbd3Statistics, write_microseconds) == 72);
static_assert(offsetof(Vbd3Statistics, errors) == 80);
static_assert(offsetof(Vbd3Statistics, flags) == 88);

}  // namespace iscsi_blkback
