// EventChannels on libxenevtchn (/dev/xen/evtchn).
#include <fmt/format.h>
#include <poll.h>

#include <cerrno>

#include "blkback/xen/event_channel.h"

extern "C" {
#include <xenevtchn.h>
}

namespace iscsi_blkback {
namespace {

class LibxenEventChannels final : public EventChannels {
 public:
  explicit LibxenEventChannels(xenevtchn_handle* handle) : handle_(handle) {}
  ~LibxenEventChannels() override { xenevtchn_close(handle_); }

  int fd() const override { return xenevtchn_fd(handle_); }

  Result<LocalPort> bind_interdomain(DomainId domain, std::uint32_t remote_port) override {
    const xenevtchn_port_or_error_t port = xenevtchn_bind_interdomain(handle_, domain, remote_port);
    if (port < 0) {
      return tl::unexpected(system_error(
          fmt::format("binding event channel {} of domain {}", remote_port, domain), errno));
    }
    return static_cast<LocalPort>(port);
  }

  void unbind(LocalPort port) override { (void)xenevtchn_unbind(handle_, port); }

  Result<LocalPort> next_pending() override {
    // xenevtchn_pending() blocks when nothing is there.
    pollfd readable{fd(), POLLIN, 0};
    if (poll(&readable, 1, 0) <= 0) {
      return fail(ErrorCode::not_found, "no event channel is pending");
    }
    const xenevtchn_port_or_error_t port = xenevtchn_pending(handle_);
    if (port < 0 && (errno == EINTR || errno == EAGAIN)) {
      return fail(ErrorCode::not_found, "no event channel is pending yet");  // the fd says it again
    }
    if (port < 0) {
      return tl::unexpected(system_error("reading event channels", errno));
    }
    return static_cast<LocalPort>(port);
  }

  Result<void> unmask(LocalPort port) override {
    return checked(xenevtchn_unmask(handle_, port), "unmasking", port);
  }
  Result<void> notify(LocalPort port) override {
    return checked(xenevtchn_notify(handle_, port), "notifying", port);
  }

 private:
  static Result<void> checked(int returned, const char* what, LocalPort port) {
    if (returned < 0) {
      return tl::unexpected(system_error(fmt::format("{} event channel {}", what, port), errno));
    }
    return {};
  }

  xenevtchn_handle* handle_;
};

}  // namespace

Result<std::unique_ptr<EventChannels>> open_event_channels(std::optional<DomainId> only) {
  xenevtchn_handle* handle = xenevtchn_open(nullptr, 0);
  if (handle == nullptr) {
    return tl::unexpected(
        system_error("cannot open Xen's event channels (/dev/xen/evtchn)", errno));
  }
  auto channels = std::make_unique<LibxenEventChannels>(handle);
  if (only && xenevtchn_restrict(handle, *only) != 0) {
    return tl::unexpected(system_error(
        fmt::format("Xen's event channels cannot be restricted to domain {}", *only), errno));
  }
  return channels;
}

}  // namespace iscsi_blkback
