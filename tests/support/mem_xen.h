// MemXen: a Xen host in memory: grants, event channels, xenstore and domains, with one set of
// faults for all of them. What the twins found wrong (a leak, a page freed while mapped) and nobody
// took with faults().take_violations() aborts the test program at the end. Any thread.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "blkback/xen/domain_info.h"
#include "tests/support/mem_event_channels.h"
#include "tests/support/mem_faults.h"
#include "tests/support/mem_grant_table.h"
#include "tests/support/mem_xenstore.h"

namespace iscsi_blkback {

class MemXen {
 public:
  MemXen();
  ~MemXen();
  MemXen(const MemXen&) = delete;
  MemXen& operator=(const MemXen&) = delete;

  [[nodiscard]] MemFaults& faults() { return faults_; }
  [[nodiscard]] MemGrants& grants() { return *grants_; }
  [[nodiscard]] MemEvents& events() { return events_; }
  [[nodiscard]] MemXenStoreTree& store() { return store_; }

  // Domains as libxenctrl sees them. Setting one fires @introduceDomain or @releaseDomain as
  // xenstored does (released: at shutdown and when the domain is gone). A domain without a handle
  // keeps the one that it has, and gets one when it is new.
  void set_domain(DomainId domain, DomainStatus status);
  // The same, and nobody tells.
  void set_domain_silently(DomainId domain, DomainStatus status);
  [[nodiscard]] std::unique_ptr<DomainInfo> open_domain_info();

 private:
  friend class MemDomainInfo;
  bool change_domain(DomainId domain, DomainStatus status);  // true: it is a new one

  MemFaults faults_;
  std::unique_ptr<MemGrants> grants_;
  MemEvents events_;
  MemXenStoreTree store_;
  std::mutex mutex_;
  std::map<DomainId, DomainStatus> domains_;
  std::uint8_t domains_made_ = 0;
};

}  // namespace iscsi_blkback
