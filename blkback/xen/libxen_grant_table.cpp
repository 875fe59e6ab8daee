// GrantTable on libxengnttab (/dev/xen/gntdev).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "blkback/xen/grant_table.h"

extern "C" {
#include <sys/mman.h>
#include <xengnttab.h>
}

namespace iscsi_blkback {
namespace {

class LibxenMappedGrants final : public MappedGrants {
 public:
  LibxenMappedGrants(xengnttab_handle* handle, std::byte* base, std::uint32_t count)
      : handle_(handle), base_(base), count_(count) {}
  // The count must be that of the map call; the kernel refuses any other.
  ~LibxenMappedGrants() override { (void)xengnttab_unmap(handle_, base_, count_); }

  std::span<std::byte> bytes() override { return {base_, count_ * kXenPageBytes}; }

 private:
  xengnttab_handle* handle_;
  std::byte* base_;
  std::uint32_t count_;
};

class LibxenGrantTable final : public GrantTable {
 public:
  explicit LibxenGrantTable(xengnttab_handle* handle) : handle_(handle) {}
  ~LibxenGrantTable() override { xengnttab_close(handle_); }

  Result<std::unique_ptr<MappedGrants>> map(DomainId domain,
                                            std::span<const GrantReference> references) override {
    if (references.empty() || references.size() > kMaxMapped) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("{} grant references to map at once; 1 to {} are possible",
                              references.size(), kMaxMapped));
    }
    std::array<std::uint32_t, kMaxMapped> copied{};
    std::copy(references.begin(), references.end(), copied.begin());
    const auto count = static_cast<std::uint32_t>(references.size());
    void* base = xengnttab_map_domain_grant_refs(handle_, count, domain, copied.data(),
                                                 PROT_READ | PROT_WRITE);
    if (base == nullptr) {
      return tl::unexpected(
          system_error(fmt::format("mapping {} granted pages of domain {}", count, domain), errno));
    }
    return std::make_unique<LibxenMappedGrants>(handle_, static_cast<std::byte*>(base), count);
  }

  Result<void> copy(std::span<GrantCopySegment> segments) override {
    for (GrantCopySegment& segment : segments) {
      segment.ok = false;
    }
    while (!segments.empty()) {
      const std::size_t count = std::min(segments.size(), batch_.size());
      if (Result<void> copied = copy_batch(segments.first(count)); !copied) {
        return copied;
      }
      segments = segments.subspan(count);
    }
    return {};
  }

 private:
  // A ring has at most 16 pages, and nothing else is mapped.
  static constexpr std::size_t kMaxMapped = 64;
  // Bounds the table below; the kernel issues hypercalls of 16 segments anyway.
  static constexpr std::size_t kBatchSegments = 1024;

  Result<void> copy_batch(std::span<GrantCopySegment> segments) {
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const GrantCopySegment& from = segments[i];
      xengnttab_grant_copy_segment_t& to = batch_[i];
      to = {};
      const bool reads = from.direction == GrantCopyDirection::from_guest;
      auto& foreign = reads ? to.source.foreign : to.dest.foreign;
      foreign.ref = from.reference;
      foreign.offset = from.offset_bytes;
      foreign.domid = from.domain;
      (reads ? to.dest.virt : to.source.virt) = from.local;
      to.len = from.length_bytes;
      to.flags = reads ? GNTCOPY_source_gref : GNTCOPY_dest_gref;
      to.status = GNTST_general_error;
    }
    if (xengnttab_grant_copy(handle_, static_cast<std::uint32_t>(segments.size()), batch_.data()) !=
        0) {
      return tl::unexpected(system_error(
          fmt::format("copying {} segments of granted pages", segments.size()), errno));
    }
    for (std::size_t i = 0; i < segments.size(); ++i) {
      segments[i].ok = batch_[i].status == GNTST_okay;
    }
    return {};
  }

  xengnttab_handle* handle_;
  std::array<xengnttab_grant_copy_segment_t, kBatchSegments> batch_;
};

}  // namespace

Result<std::unique_ptr<GrantTable>> open_grant_table() {
  xengnttab_handle* handle = xengnttab_open(nullptr, 0);
  if (handle == nullptr) {
    return tl::unexpected(system_error("cannot open Xen's grant device (/dev/xen/gntdev)", errno));
  }
  return std::make_unique<LibxenGrantTable>(handle);
}

}  // namespace iscsi_blkback
