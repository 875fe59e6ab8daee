// DomainInfo on libxenctrl, whose ABI changes with every Xen release: this file is the only one
// that depends on it.
#include <fmt/format.h>

#include <cerrno>

#include "blkback/xen/domain_info.h"

extern "C" {
#include <xenctrl.h>
}

namespace iscsi_blkback {
namespace {

class LibxenDomainInfo final : public DomainInfo {
 public:
  explicit LibxenDomainInfo(xc_interface* handle) : handle_(handle) {}
  ~LibxenDomainInfo() override { xc_interface_close(handle_); }

  Result<DomainStatus> status(DomainId domain) override {
    bool dying = false;
    bool shut_down = false;
    unsigned int reason = 0;
#ifdef ISCSI_BLKBACK_HAVE_GETINFO_SINGLE
    xc_domaininfo_t info{};
    if (xc_domain_getinfo_single(handle_, domain, &info) != 0) {
      if (errno == ESRCH) {
        return DomainStatus{};
      }
      return tl::unexpected(error(domain));
    }
    dying = (info.flags & XEN_DOMINF_dying) != 0;
    shut_down = (info.flags & XEN_DOMINF_shutdown) != 0;
    reason = (info.flags >> XEN_DOMINF_shutdownshift) & XEN_DOMINF_shutdownmask;
#else
    // It answers with the first domain from this number on.
    xc_dominfo_t info{};
    const int found = xc_domain_getinfo(handle_, domain, 1, &info);
    if (found < 0 && errno != ESRCH) {
      return tl::unexpected(error(domain));
    }
    if (found != 1 || info.domid != domain) {
      return DomainStatus{};
    }
    dying = info.dying != 0;
    // libxenctrl reports a crash as "crashed", not as a shutdown.
    shut_down = info.shutdown != 0 || info.crashed != 0;
    reason = info.crashed != 0 ? unsigned{SHUTDOWN_crash} : info.shutdown_reason;
#endif
    if (dying) {
      return DomainStatus{DomainLife::dying, ShutdownReason::poweroff};
    }
    if (shut_down) {
      const auto known = reason <= SHUTDOWN_soft_reset ? static_cast<ShutdownReason>(reason)
                                                       : ShutdownReason::crash;
      return DomainStatus{DomainLife::shut_down, known};
    }
    return DomainStatus{DomainLife::running, ShutdownReason::poweroff};
  }

 private:
  static Error error(DomainId domain) {
    return system_error(fmt::format("asking Xen for the state of domain {}", domain), errno);
  }

  xc_interface* handle_;
};

static_assert(SHUTDOWN_suspend == static_cast<int>(ShutdownReason::suspend) &&
              SHUTDOWN_soft_reset == static_cast<int>(ShutdownReason::soft_reset));

}  // namespace

Result<std::unique_ptr<DomainInfo>> open_domain_info() {
  xc_interface* handle = xc_interface_open(nullptr, nullptr, 0);
  if (handle == nullptr) {
    return tl::unexpected(
        system_error("cannot open Xen's control interface (/dev/xen/privcmd)", errno));
  }
  return std::make_unique<LibxenDomainInfo>(handle);
}

}  // namespace iscsi_blkback
