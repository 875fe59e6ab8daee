#include "multipath/disk_identity.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "multipath/fencing/barrier_names.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kMaxDiscardUnitBytes = std::uint32_t{1} << 30;

// With one command of the form; 0: the LUN does not say, by this path.
std::uint32_t most_discarded_sectors(const LogicalUnitIdentity& told, DiscardForm form) {
  std::uint64_t blocks = 0;
  switch (form) {
    case DiscardForm::none:
      break;
    case DiscardForm::unmap:
      blocks = told.limits.max_unmap_blocks;
      break;
    case DiscardForm::write_same:
      // As Linux has it where the LUN does not say: some refuse what the CDB could say.
      blocks =
          told.limits.max_write_same_blocks != 0 ? told.limits.max_write_same_blocks : 0x7fffff;
      break;
  }
  const std::uint32_t block_sectors = told.logical_block_bytes / kSectorBytes;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(blocks, 0xffffffffU / block_sectors) *
                                    block_sectors);
}

}  // namespace

Result<void> DiskIdentity::check(const Source& source, const LogicalUnitIdentity& told,
                                 SerialNumberIs serial) {
  if (wanted_.same_lun) {
    if (const auto other = difference(*wanted_.same_lun, told.names, serial)) {
      return fail(ErrorCode::conflict, "leads to another LUN: " + *other);
    }
  }
  if (wanted_.wwid && !is_called(told.names, *wanted_.wwid)) {
    return fail(
        ErrorCode::conflict,
        fmt::format("leads to another LUN: its identity is \"{}\", the disk's wwid is \"{}\"",
                    told.wwid, *wanted_.wwid));
  }
  if (told.block_count == 0 && !known_) {
    return {};  // not served here now, so that it can be no measure for others; nor is it used
  }
  Result<void> checked = known_ ? compare(source, told, serial) : adopt(source, told);
  if (checked) {
    add_names(lun_.names, told.names, serial);
    if (told.block_count != 0) {
      limit_pieces(told);
      limit_discards(told);
    }
  }
  if (known_ && !in_use_ && conflict_.empty()) {
    conflict_ = conflict_of(source, told, checked, serial);
  }
  return checked;
}

// What a path that answers together with the first one tells otherwise than that; empty: nothing. A
// LUN that is larger there is no other one, and yet nobody knows which size is meant.
std::string DiskIdentity::conflict_of(const Source& source, const LogicalUnitIdentity& told,
                                      const Result<void>& checked, SerialNumberIs serial) const {
  const std::string& portal = source.portal_name;
  if (difference(lun_.names, told.names, serial)) {
    return fmt::format("portal {} {}", portal, checked.error().message);
  }
  if (told.block_count == 0) {
    return {};
  }
  if (told.logical_block_bytes != lun_.logical_block_bytes) {
    return fmt::format("by portal {} the LUN has logical blocks of {} bytes, by portal {} of {}",
                       portal, told.logical_block_bytes, portal_name_, lun_.logical_block_bytes);
  }
  if (told.block_count != lun_.block_count) {
    return fmt::format("by portal {} the LUN has {} blocks, by portal {} it has {}", portal,
                       told.block_count, portal_name_, lun_.block_count);
  }
  return {};
}

// The least that any path has told: a request may go any way.
void DiskIdentity::limit_pieces(const LogicalUnitIdentity& told) {
  const std::uint32_t block_sectors = told.logical_block_bytes / kSectorBytes;
  // The expected data transfer length of a command has 32 bits.
  std::uint64_t blocks = 0xffffffffU / told.logical_block_bytes;
  if (told.max_transfer_blocks != 0) {
    blocks = std::min<std::uint64_t>(blocks, told.max_transfer_blocks);
  }
  const auto sectors = static_cast<std::uint32_t>(blocks * block_sectors);
  piece_sectors_ = piece_sectors_ == 0 ? sectors : std::min(piece_sectors_, sectors);
}

// The form and the units are those of the first path that tells them, as long as no guest has been
// told: a path in trouble may not have said. The rest is as of other pieces.
void DiskIdentity::limit_discards(const LogicalUnitIdentity& told) {
  if (geometry_.read_only) {
    return;
  }
  if (discards_.form == DiscardForm::none && !in_use_) {
    discards_.form = told.discard_form();
    if (discards_.form == DiscardForm::none) {
      return;
    }
    // Of a unit that no guest could be told, the blocks are the units.
    const std::uint32_t told_blocks = told.limits.unmap_granularity_blocks;
    const std::uint32_t most_blocks = kMaxDiscardUnitBytes / told.logical_block_bytes;
    const std::uint32_t unit_blocks =
        told_blocks == 0 || told_blocks > most_blocks ? 1 : told_blocks;
    const std::uint32_t block_sectors = told.logical_block_bytes / kSectorBytes;
    discards_.granularity_sectors = unit_blocks * block_sectors;
    discards_.alignment_sectors = told.limits.unmap_alignment_blocks % unit_blocks * block_sectors;
    geometry_.discard_granularity_bytes = discards_.granularity_sectors * kSectorBytes;
    geometry_.discard_alignment_bytes = discards_.alignment_sectors * kSectorBytes;
  }
  if (const std::uint32_t most = most_discarded_sectors(told, discards_.form); most != 0) {
    discards_.most_sectors =
        discards_.most_sectors == 0 ? most : std::min(discards_.most_sectors, most);
  }
}

Result<void> DiskIdentity::adopt(const Source& source, const LogicalUnitIdentity& told) {
  const std::uint32_t block_bytes = told.logical_block_bytes;
  if (!std::has_single_bit(block_bytes) || block_bytes < 512 || block_bytes > 4096) {
    return fail(ErrorCode::unsupported,
                fmt::format("its logical blocks are {} bytes; 512, 1024, 2048 and 4096 can be "
                            "served",
                            block_bytes));
  }
  if (told.block_count == 0 || told.block_count > kMaxCapacityBytes / block_bytes) {
    return fail(ErrorCode::unsupported,
                fmt::format("its capacity of {} blocks cannot be right", told.block_count));
  }
  const std::uint32_t block_sectors = block_bytes / kSectorBytes;
  geometry_.sector_count = told.block_count * block_sectors;
  geometry_.logical_block_bytes = block_bytes;
  geometry_.physical_block_bytes = std::max(told.physical_block_bytes, block_bytes);
  geometry_.max_transfer_sectors = 0;  // larger requests go in pieces
  geometry_.read_only = wanted_.read_only || told.write_protected;
  lun_ = told;
  portal_name_ = source.portal_name;
  target_name_ = source.target_name;
  lun_number_ = source.lun;
  known_ = true;
  return {};
}

Result<void> DiskIdentity::compare(const Source& source, const LogicalUnitIdentity& told,
                                   SerialNumberIs serial) const {
  if (const auto other = difference(lun_.names, told.names, serial)) {
    return fail(ErrorCode::conflict,
                fmt::format("leads to another LUN than portal {}: {}", portal_name_, *other));
  }
  // A LUN without any identity can be recognized by its place only.
  if (lun_.wwid.empty() && (source.target_name != target_name_ || source.lun != lun_number_)) {
    return fail(ErrorCode::conflict,
                "the LUN reports no identity, so that paths through another target or LUN number "
                "cannot be known to lead to it");
  }
  if (source.target_name != target_name_ && (!is_unique_in_the_world(barrier_name_of(lun_.names)) ||
                                             !share_a_unique_name(lun_.names, told.names))) {
    return fail(ErrorCode::conflict,
                fmt::format("the LUN's identity \"{}\" is none that is unlike all others in the "
                            "world, so that a path through the target {} cannot be known to lead "
                            "to the LUN of {}",
                            lun_.wwid, source.target_name, target_name_));
  }
  if (told.block_count == 0) {
    return {};  // not served here now; the rest is compared before it is used
  }
  if (told.logical_block_bytes != lun_.logical_block_bytes) {
    return fail(ErrorCode::conflict,
                fmt::format("its logical blocks are {} bytes, the disk's (by portal {}) are {}",
                            told.logical_block_bytes, portal_name_, lun_.logical_block_bytes));
  }
  // A LUN that is known to be the same and has grown serves the disk as before; see
  // grow_if_all_agree().
  if (told.block_count < lun_.block_count) {
    return fail(
        ErrorCode::conflict,
        fmt::format("the LUN is smaller than the disk, whose guest may have data behind its "
                    "end: its capacity is {} blocks, the disk's (by portal {}) is {}",
                    told.block_count, portal_name_, lun_.block_count));
  }
  if (lun_.wwid.empty() && told.block_count != lun_.block_count) {
    return fail(ErrorCode::conflict,
                fmt::format("its capacity is {} blocks, the disk's (by portal {}) is {}",
                            told.block_count, portal_name_, lun_.block_count));
  }
  return {};
}

bool DiskIdentity::grow_to(std::uint64_t block_count) {
  if (block_count <= lun_.block_count) {
    return false;
  }
  lun_.block_count = block_count;
  geometry_.sector_count = block_count * (geometry_.logical_block_bytes / kSectorBytes);
  grown_ = true;
  return true;
}

}  // namespace iscsi_blkback
