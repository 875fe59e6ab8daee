// GrantTable: access to pages that a guest has granted to us. Real: libxengnttab. In memory: tests.
// One per reactor thread. Everything that a guest hands over (references, offsets) is hostile:
// calls fail as values and leave nothing mapped behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/domain_id.h"
#include "base/result.h"

namespace iscsi_blkback {

using GrantReference = std::uint32_t;

inline constexpr std::size_t kXenPageBytes = 4096;

// Pages mapped into our address space, contiguous; unmapped when destroyed. Must not outlive the
// GrantTable that made it.
class MappedGrants {
 public:
  virtual ~MappedGrants() = default;
  [[nodiscard]] virtual std::span<std::byte> bytes() = 0;
};

enum class GrantCopyDirection : std::uint8_t { from_guest, to_guest };

// One copy between our memory and one granted page. On the guest's side offset_bytes + length_bytes
// is at most kXenPageBytes. status is filled by copy(): every segment has its own (XSA-316: a good
// return code of the call says nothing about the segments).
struct GrantCopySegment {
  GrantCopyDirection direction = GrantCopyDirection::from_guest;
  DomainId domain = 0;
  GrantReference reference = 0;
  std::uint16_t offset_bytes = 0;
  std::uint16_t length_bytes = 0;
  std::byte* local = nullptr;
  bool ok = false;
};

class GrantTable {
 public:
  virtual ~GrantTable() = default;

  // Maps all references of one domain, read-write, as one contiguous range (a ring of several
  // pages). All or nothing. Errors: invalid_argument (none, or too many); the hypercall's, mostly for a reference
  // that the guest has not granted.
  [[nodiscard]] virtual Result<std::unique_ptr<MappedGrants>> map(
      DomainId domain, std::span<const GrantReference> references) = 0;

  // One hypercall batch. An error means that nothing is known of any segment (all count as failed);
  // otherwise each segment's ok says whether it was copied.
  [[nodiscard]] virtual Result<void> copy(std::span<GrantCopySegment> segments) = 0;
};

// /dev/xen/gntdev; the error says what is missing (not a Xen domain, no permission).
[[nodiscard]] Result<std::unique_ptr<GrantTable>> open_grant_table();

}  // namespace iscsi_blkback
