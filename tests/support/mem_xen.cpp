#include "tests/support/mem_xen.h"

#include <cstdio>
#include <cstdlib>

namespace iscsi_blkback {

class MemDomainInfo final : public DomainInfo {
 public:
  explicit MemDomainInfo(MemXen& xen) : xen_(xen) {}

  Result<DomainStatus> status(DomainId domain) override {
    if (xen_.faults_.hit("domain status")) {
      return fail(ErrorCode::io, "asking for the domain's status failed (injected)");
    }
    const std::lock_guard lock(xen_.mutex_);
    const auto at = xen_.domains_.find(domain);
    return at == xen_.domains_.end() ? DomainStatus{} : at->second;
  }

 private:
  MemXen& xen_;
};

MemXen::MemXen()
    : grants_(std::make_unique<MemGrants>(faults_)), events_(faults_), store_(faults_) {
  domains_[0] = DomainStatus{DomainLife::running, ShutdownReason::poweroff};
}

MemXen::~MemXen() {
  grants_.reset();
  const std::vector<std::string> violations = faults_.take_violations();
  for (const std::string& violation : violations) {
    std::fprintf(stderr, "in-memory Xen: %s\n", violation.c_str());
  }
  if (!violations.empty()) {
    std::abort();
  }
}

void MemXen::set_domain(DomainId domain, DomainStatus status) {
  const bool is_new = change_domain(domain, status);
  if (status.life == DomainLife::shut_down || status.life == DomainLife::gone) {
    store_.fire_special("@releaseDomain");
  } else if (is_new) {
    store_.fire_special("@introduceDomain");
  }
}

void MemXen::set_domain_silently(DomainId domain, DomainStatus status) {
  (void)change_domain(domain, status);
}

bool MemXen::change_domain(DomainId domain, DomainStatus status) {
  const std::lock_guard lock(mutex_);
  const auto at = domains_.find(domain);
  const bool is_new = at == domains_.end() || at->second.life == DomainLife::gone;
  if (status.handle == DomainHandle{} && status.life != DomainLife::gone) {
    if (is_new) {
      status.handle.fill(++domains_made_);
    } else {
      status.handle = at->second.handle;
    }
  }
  domains_[domain] = status;
  return is_new;
}

std::unique_ptr<DomainInfo> MemXen::open_domain_info() {
  return std::make_unique<MemDomainInfo>(*this);
}

}  // namespace iscsi_blkback
