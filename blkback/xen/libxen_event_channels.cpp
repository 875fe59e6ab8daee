// EventChannels on libxenevtchn (/dev/xen/evtchn).
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

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

  // xenevtchn_pending() takes one and blocks when there is none. The device gives all in one go.
  Result<std::size_t> take_pending(std::span<LocalPort> into) override {
    const ssize_t got = read(fd(), into.data(), into.size_bytes());
    if (got < 0 && errno != EINTR && errno != EAGAIN) {
      return tl::unexpected(system_error("reading event channels", errno));
    }
    return got < 0 ? 0 : static_cast<std::size_t>(got) / sizeof(LocalPort);
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
  const int flags = fcntl(channels->fd(), F_GETFL);
  if (flags < 0 || fcntl(channels->fd(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return tl::unexpected(
        system_error("Xen's event channels cannot be read without waiting", errno));
  }
  if (only && xenevtchn_restrict(handle, *only) != 0) {
    return tl::unexpected(system_error(
        fmt::format("Xen's event channels cannot be restricted to domain {}", *only), errno));
  }
  return channels;
}

}  // namespace iscsi_blkback
