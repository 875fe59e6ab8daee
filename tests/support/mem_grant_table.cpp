#include "tests/support/mem_grant_table.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace iscsi_blkback {
namespace {

// ThreadSanitizer knows memory by its virtual address: it would see neither the synchronisation nor
// the races of two addresses for one page. Under it, a mapping is the guest's own address.
#if defined(__SANITIZE_THREAD__)
constexpr bool kAliasMappings = false;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool kAliasMappings = false;
#else
constexpr bool kAliasMappings = true;
#endif
#else
constexpr bool kAliasMappings = true;
#endif

constexpr GrantReference kReservedReferences = 8;  // as in Linux: never handed out

}  // namespace

GuestMemory::GuestMemory(std::size_t pages)
    : pages_(pages), fd_(memfd_create("guest", MFD_CLOEXEC)), base_(nullptr) {
  ISCSI_BLKBACK_ASSERT(fd_ >= 0);
  ISCSI_BLKBACK_ASSERT(ftruncate(fd_, static_cast<off_t>(pages * kXenPageBytes)) == 0);
  void* mapped = mmap(nullptr, pages * kXenPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  ISCSI_BLKBACK_ASSERT(mapped != MAP_FAILED);
  base_ = static_cast<std::byte*>(mapped);
}

GuestMemory::~GuestMemory() {
  munmap(base_, pages_ * kXenPageBytes);
  close(fd_);
}

std::span<std::byte> GuestMemory::page(std::size_t index) const {
  return pages(index, 1);
}

std::span<std::byte> GuestMemory::pages(std::size_t first, std::size_t count) const {
  ISCSI_BLKBACK_ASSERT(count <= pages_ && first <= pages_ - count);
  return {base_ + first * kXenPageBytes, count * kXenPageBytes};
}

class MemMappedGrants final : public MappedGrants {
 public:
  // of_table: all mappings of the table, which has it as long as it is mapped.
  MemMappedGrants(MemGrants& grants, DomainId domain, std::span<const GrantReference> references,
                  std::byte* base, bool alias, std::vector<MemMappedGrants*>& of_table)
      : grants_(grants),
        domain_(domain),
        references_(references.begin(), references.end()),
        base_(base),
        alias_(alias),
        of_table_(of_table) {
    of_table_.push_back(this);
  }

  ~MemMappedGrants() override {
    const std::lock_guard lock(grants_.mutex_);
    unmap();
  }

  std::span<std::byte> bytes() override { return {base_, references_.size() * kXenPageBytes}; }

  [[nodiscard]] std::size_t page_count() const { return references_.size(); }

  // With the lock.
  void unmap() {
    if (std::erase(of_table_, this) == 0) {
      return;
    }
    if (alias_) {
      munmap(base_, references_.size() * kXenPageBytes);
    }
    grants_.mapped_pages_ -= references_.size();
    for (const GrantReference reference : references_) {
      MemGrants::Entry* entry = grants_.find(domain_, reference);
      if (entry != nullptr && entry->mappings > 0) {
        --entry->mappings;
      }
    }
  }

 private:
  MemGrants& grants_;
  DomainId domain_;
  std::vector<GrantReference> references_;
  std::byte* base_;
  bool alias_;
  std::vector<MemMappedGrants*>& of_table_;
};

class MemGrantTable final : public GrantTable {
 public:
  MemGrantTable(MemGrants& grants, DomainId self) : grants_(grants), self_(self) {}

  ~MemGrantTable() override {
    std::size_t pages = 0;
    for (const MemMappedGrants* mapping : mappings_) {
      pages += mapping->page_count();
    }
    if (pages != 0) {
      grants_.faults_.report(
          fmt::format("a grant table was closed with {} pages still mapped", pages));
    }
  }

  // With the lock.
  void unmap_all() {
    while (!mappings_.empty()) {
      mappings_.back()->unmap();
    }
  }

  Result<std::unique_ptr<MappedGrants>> map(DomainId domain,
                                            std::span<const GrantReference> references) override {
    const std::lock_guard lock(grants_.mutex_);
    ++grants_.counters_.map_calls;
    if (references.empty()) {
      return fail(ErrorCode::invalid_argument, "no grant references to map");
    }
    if (grants_.faults_.hit("grant map")) {
      return fail(ErrorCode::io, "mapping grants failed (injected)");
    }
    if (references.size() > grants_.max_mapped_pages_ - grants_.mapped_pages_) {
      return fail(ErrorCode::exhausted, "no free grant map handles");
    }
    bool contiguous = true;
    const MemGrants::Entry* first = nullptr;
    for (std::size_t i = 0; i < references.size(); ++i) {
      const MemGrants::Entry* entry = grants_.find(domain, references[i]);
      if (entry == nullptr || entry->to != self_ || entry->read_only) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("domain {} has not granted page {} to domain {} for writing",
                                domain, references[i], self_));
      }
      first = i == 0 ? entry : first;
      contiguous = contiguous && entry->memory == first->memory && entry->page == first->page + i;
    }
    const bool alias = kAliasMappings || !contiguous;
    std::byte* base =
        alias ? map_alias(domain, references) : first->memory->page(first->page).data();
    for (const GrantReference reference : references) {
      ++grants_.find(domain, reference)->mappings;
    }
    grants_.mapped_pages_ += references.size();
    return std::make_unique<MemMappedGrants>(grants_, domain, references, base, alias, mappings_);
  }

  Result<void> copy(std::span<GrantCopySegment> segments) override {
    std::unique_lock lock(grants_.mutex_);
    ++grants_.counters_.copy_calls;
    for (GrantCopySegment& segment : segments) {
      segment.ok = false;
      if (segment.offset_bytes + segment.length_bytes > static_cast<int>(kXenPageBytes)) {
        return fail(ErrorCode::invalid_argument, "a grant copy crosses the end of the page");
      }
    }
    if (grants_.faults_.hit("grant copy")) {
      // "Nothing is known of any segment": who looks at ok all the same is misled.
      for (GrantCopySegment& segment : segments) {
        segment.ok = true;
      }
      return fail(ErrorCode::io, "grant copy failed (injected)");
    }
    for (GrantCopySegment& segment : segments) {
      if (grants_.before_copied_segment_) {
        lock.unlock();
        grants_.before_copied_segment_();
        lock.lock();
      }
      if (grants_.faults_.hit("grant copy segment")) {
        continue;
      }
      const MemGrants::Entry* entry = grants_.find(segment.domain, segment.reference);
      const bool writes = segment.direction == GrantCopyDirection::to_guest;
      if (entry == nullptr || entry->to != self_ || (writes && entry->read_only)) {
        ++grants_.counters_.refused_segments;
        continue;
      }
      std::byte* guest = entry->memory->page(entry->page).data() + segment.offset_bytes;
      std::memcpy(writes ? guest : segment.local, writes ? segment.local : guest,
                  segment.length_bytes);
      ++grants_.counters_.copied_segments;
      segment.ok = true;
    }
    return {};
  }

 private:
  std::byte* map_alias(DomainId domain, std::span<const GrantReference> references) {
    void* reserved = mmap(nullptr, references.size() * kXenPageBytes, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ISCSI_BLKBACK_ASSERT(reserved != MAP_FAILED);
    std::byte* base = static_cast<std::byte*>(reserved);
    for (std::size_t i = 0; i < references.size(); ++i) {
      const MemGrants::Entry* entry = grants_.find(domain, references[i]);
      void* page = mmap(base + i * kXenPageBytes, kXenPageBytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_FIXED, entry->memory->fd(),
                        static_cast<off_t>(entry->page * kXenPageBytes));
      ISCSI_BLKBACK_ASSERT(page != MAP_FAILED);
    }
    return base;
  }

  MemGrants& grants_;
  DomainId self_;
  std::vector<MemMappedGrants*> mappings_;
};

MemGrants::~MemGrants() {
  if (mapped_pages_ != 0) {
    faults_.report(fmt::format("{} granted pages are still mapped at the end", mapped_pages_));
  }
}

GrantReference MemGrants::grant(DomainId owner, GuestMemory& memory, std::size_t page, DomainId to,
                                bool read_only) {
  ISCSI_BLKBACK_ASSERT(page < memory.page_count());
  const std::lock_guard lock(mutex_);
  DomainTable& table = tables_[owner];
  if (table.entries.empty()) {
    table.entries.resize(kReservedReferences);
  }
  if (table.free.empty()) {
    table.free.push_back(static_cast<GrantReference>(table.entries.size()));
    table.entries.emplace_back();
  }
  const GrantReference reference = table.free.back();
  table.free.pop_back();
  table.entries[reference] = Entry{&memory, page, to, read_only, 0};
  ++granted_pages_;
  return reference;
}

void MemGrants::release(DomainTable& table, GrantReference reference) {
  table.entries[reference] = Entry{};
  table.free.push_back(reference);
  --granted_pages_;
}

bool MemGrants::end_access(DomainId owner, GrantReference reference) {
  const std::lock_guard lock(mutex_);
  Entry* entry = find(owner, reference);
  ISCSI_BLKBACK_ASSERT(entry != nullptr);
  if (entry->mappings > 0) {
    return false;
  }
  release(tables_[owner], reference);
  return true;
}

bool MemGrants::in_use(DomainId owner, GrantReference reference) const {
  const std::lock_guard lock(mutex_);
  const Entry* entry = find(owner, reference);
  return entry != nullptr && entry->mappings > 0;
}

void MemGrants::revoke(DomainId owner, GrantReference reference) {
  const std::lock_guard lock(mutex_);
  if (find(owner, reference) != nullptr) {
    release(tables_[owner], reference);
  }
}

std::unique_ptr<GrantTable> MemGrants::open(DomainId self) {
  return std::make_unique<MemGrantTable>(*this, self);
}

void MemGrants::process_died(GrantTable& table) {
  const std::lock_guard lock(mutex_);
  static_cast<MemGrantTable&>(table).unmap_all();
}

MemGrants::Counters MemGrants::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

std::size_t MemGrants::mapped_pages() const {
  const std::lock_guard lock(mutex_);
  return mapped_pages_;
}

std::size_t MemGrants::granted_pages() const {
  const std::lock_guard lock(mutex_);
  return granted_pages_;
}

const MemGrants::Entry* MemGrants::find(DomainId owner, GrantReference reference) const {
  const auto table = tables_.find(owner);
  if (table == tables_.end() || reference >= table->second.entries.size() ||
      table->second.entries[reference].memory == nullptr) {
    return nullptr;
  }
  return &table->second.entries[reference];
}

MemGrants::Entry* MemGrants::find(DomainId owner, GrantReference reference) {
  return const_cast<Entry*>(static_cast<const MemGrants*>(this)->find(owner, reference));
}

}  // namespace iscsi_blkback
