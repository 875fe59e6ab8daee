// The in-memory twin of Xen's grant tables: guests' memory, what they granted to whom, and
// GrantTables that map and copy it under the hypervisor's rules. Any thread; the guest's side and
// the backend's may be on different ones.
//
// Enforced: only the domain that a page was granted to may use it, read-only grants are not
// written, a copy stays inside one page, a page that is mapped cannot be taken back, nothing stays
// mapped when a GrantTable is closed, and no more pages are mapped than max_mapped_pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "base/domain_id.h"
#include "blkback/xen/grant_table.h"
#include "tests/support/mem_faults.h"

namespace iscsi_blkback {

// A guest's pages, in a memfd so that the backend's mapping is another address of the same memory:
// a use after unmap is then a fault and not luck.
class GuestMemory {
 public:
  explicit GuestMemory(std::size_t pages);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  [[nodiscard]] std::size_t page_count() const { return pages_; }
  [[nodiscard]] std::span<std::byte> page(std::size_t index) const;
  [[nodiscard]] std::span<std::byte> pages(std::size_t first, std::size_t count) const;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  std::size_t pages_;
  int fd_;
  std::byte* base_;
};

class MemGrants {
 public:
  explicit MemGrants(MemFaults& faults) : faults_(faults) {}
  ~MemGrants();

  // The guest's side. memory must stay until the grant has ended.
  [[nodiscard]] GrantReference grant(DomainId owner, GuestMemory& memory, std::size_t page,
                                     DomainId to, bool read_only);
  // False: the page is mapped by the other domain; the grant stays ("grant still in use").
  [[nodiscard]] bool end_access(DomainId owner, GrantReference reference);
  [[nodiscard]] bool in_use(DomainId owner, GrantReference reference) const;
  // Takes the grant away although it may be mapped, as a dying guest's would be.
  void revoke(DomainId owner, GrantReference reference);

  // What the guest does between two segments of a grant copy, and before the first: changes its
  // memory, takes grants back. On the copying thread.
  void before_copied_segment(std::function<void()> action) {
    before_copied_segment_ = std::move(action);
  }

  // The backend's side: the GrantTable of domain self.
  [[nodiscard]] std::unique_ptr<GrantTable> open(DomainId self);

  // The process that had opened it has died: nothing stays mapped, whatever still refers to it. The
  // table needs not be destroyed then.
  void process_died(GrantTable& table);

  void set_max_mapped_pages(std::size_t pages) { max_mapped_pages_ = pages; }

  // What the backend did, for tests of batching.
  struct Counters {
    std::uint64_t map_calls = 0;
    std::uint64_t copy_calls = 0;
    std::uint64_t copied_segments = 0;
    std::uint64_t refused_segments = 0;
  };
  [[nodiscard]] Counters counters() const;
  [[nodiscard]] std::size_t mapped_pages() const;
  // Grants given and not ended.
  [[nodiscard]] std::size_t granted_pages() const;

 private:
  friend class MemGrantTable;
  friend class MemMappedGrants;

  struct Entry {
    GuestMemory* memory = nullptr;  // null: free
    std::size_t page = 0;
    DomainId to = 0;
    bool read_only = false;
    std::uint32_t mappings = 0;
  };
  struct DomainTable {
    std::vector<Entry> entries;
    std::vector<GrantReference> free;
  };

  [[nodiscard]] Entry* find(DomainId owner, GrantReference reference);
  [[nodiscard]] const Entry* find(DomainId owner, GrantReference reference) const;
  void release(DomainTable& table, GrantReference reference);

  MemFaults& faults_;
  mutable std::mutex mutex_;
  std::map<DomainId, DomainTable> tables_;
  std::size_t mapped_pages_ = 0;
  std::size_t granted_pages_ = 0;
  std::size_t max_mapped_pages_ = 65536;
  std::function<void()> before_copied_segment_;
  Counters counters_;
};

}  // namespace iscsi_blkback
