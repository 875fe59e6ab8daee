// DomainInfo on libxenctrl, whose ABI changes with every Xen release: this file is the only one
// that depends on it.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "blkback/xen/domain_info.h"

extern "C" {
#include <xenctrl.h>
}

namespace iscsi_blkback {
namespace {

class DomainInfoWhenAsked final : public DomainInfo {
 public:
  Result<DomainStatus> status(DomainId domain) override {
    if (info_ == nullptr) {
      auto opened = open_domain_info();
      if (!opened) {
        return tl::unexpected(opened.error());
      }
      info_ = std::move(*opened);
    }
    return info_->status(domain);
  }

 private:
  std::unique_ptr<DomainInfo> info_;
};

class LibxenDomainInfo final : public DomainInfo {
 public:
  explicit LibxenDomainInfo(xc_interface* handle) : handle_(handle) {}
  ~LibxenDomainInfo() override { xc_interface_close(handle_); }

  Result<DomainStatus> status(DomainId domain) override {
    bool dying = false;
    bool shut_down = false;
    unsigned int reason = 0;
    DomainStatus status;
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
    status.cpu_time_ns = info.cpu_time;
    std::copy(std::begin(info.handle), std::end(info.handle), status.handle.begin());
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
    status.cpu_time_ns = info.cpu_time;
    std::copy(std::begin(info.handle), std::end(info.handle), status.handle.begin());
#endif
    status.life = dying       ? DomainLife::dying
                  : shut_down ? DomainLife::shut_down
                              : DomainLife::running;
    if (shut_down) {
      status.shutdown_reason = reason <= SHUTDOWN_soft_reset ? static_cast<ShutdownReason>(reason)
                                                             : ShutdownReason::crash;
    }
    return status;
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

std::unique_ptr<DomainInfo> open_domain_info_when_asked() {
  return std::make_unique<DomainInfoWhenAsked>();
}

}  // namespace iscsi_blkback
