#include "blkback/process/xenstore_gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "base/decimal.h"
#include "blkback/guest/firmware_socket.h"
#include "blkback/guest/xenbus_node.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace iscsi_blkback {
namespace {

// XenbusNode's: what it is not written for, it must not be able to write.
constexpr std::string_view kPublished[] = {
    "state",
    "hotplug-status",
    "hotplug-error",
    "sectors",
    "info",
    "sector-size",
    "physical-sector-size",
    "feature-flush-cache",
    "feature-barrier",
    "feature-persistent",
    "feature-max-indirect-segments",
    "feature-discard",
    "discard-granularity",
    "discard-alignment",
    "discard-secure",
    "max-ring-page-order",
    "multi-queue-max-queues",
    "sm-data/scsi/0x12/0x80",
    "sm-data/scsi/0x12/0x83",
    "kthread-pid",
    "physical-device-path",
};

bool is_number(std::string_view text) {
  return parse_decimal<std::uint32_t>(text).has_value();
}

// A path ends with a null byte, behind which may be more.
std::string_view path_in(std::string_view payload) {
  return payload.substr(0, payload.find('\0'));
}

}  // namespace

std::string_view XenStoreGate::in_backend(std::string_view path) const {
  for (const BackendKind kind : kBackendKinds) {
    const std::string folder = backend_guest_path(own_domain_, kind, guest_) + "/";
    if (path.starts_with(folder)) {
      return path.substr(folder.size());
    }
  }
  return {};
}

bool XenStoreGate::is_of_guest(std::string_view path) const {
  return std::any_of(std::begin(kBackendKinds), std::end(kBackendKinds),
                     [&](BackendKind kind) {
                       return is_at_or_below(path, backend_guest_path(own_domain_, kind, guest_));
                     }) ||
         is_at_or_below(path, fmt::format("/local/domain/{}/device/vbd", guest_));
}

bool XenStoreGate::may_read(std::string_view path) const {
  const std::string home = fmt::format("/local/domain/{}", guest_);
  return is_of_guest(path) || path == home || path == home + "/vm" ||
         path == fmt::format("/libxl/{}/type", guest_) || path == "domid";
}

bool XenStoreGate::may_watch(std::string_view path) const {
  return is_of_guest(path) || path == "@releaseDomain";
}

bool XenStoreGate::is_published(std::string_view path) const {
  const std::string_view node = in_backend(path);
  const std::size_t slash = node.find('/');
  if (slash == std::string_view::npos || !is_number(node.substr(0, slash))) {
    return false;
  }
  const std::string_view key = node.substr(slash + 1);
  return std::find(std::begin(kPublished), std::end(kPublished), key) != std::end(kPublished);
}

bool XenStoreGate::may_write(std::string_view path, std::string_view value) const {
  if (!is_published(path)) {
    return false;
  }
  const std::string_view node = in_backend(path);
  if (node.ends_with("/kthread-pid")) {  // xentop makes a path of it
    return is_number(value);
  }
  // The guest's device model, which is root's, opens it.
  if (node.ends_with("/physical-device-path")) {
    const auto device_id = parse_decimal<std::uint32_t>(node.substr(0, node.find('/')));
    return device_id &&
           is_at_or_below(path, backend_guest_path(own_domain_, BackendKind::vbd3, guest_)) &&
           is_firmware_device_path(value, run_directory_, guest_, *device_id);
  }
  return true;
}

bool XenStoreGate::may_remove(std::string_view path) const {
  return is_published(path) || (own_domain_ != 0 && is_number(in_backend(path)));
}

bool XenStoreGate::lets_pass(std::uint32_t type, std::string_view payload) const {
  switch (type) {
    case XS_TRANSACTION_START:
    case XS_TRANSACTION_END:
      return true;
    case XS_READ:
    case XS_DIRECTORY:
    case XS_DIRECTORY_PART:
      return may_read(path_in(payload));
    case XS_WATCH:
    case XS_UNWATCH:
      return may_watch(path_in(payload));
    case XS_WRITE: {
      const std::string_view path = path_in(payload);
      // Without the null byte there is no value, and no write.
      return path.size() < payload.size() && may_write(path, payload.substr(path.size() + 1));
    }
    case XS_RM:
      return may_remove(path_in(payload));
    default:
      return false;
  }
}

}  // namespace iscsi_blkback
