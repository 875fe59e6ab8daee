#include "blkback/guest/guest_run_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace iscsi_blkback {
namespace {

bool is_suspended(const DomainStatus& status) {
  return status.shutdown_reason == ShutdownReason::suspend &&
         (status.life == DomainLife::shut_down || status.life == DomainLife::dying);
}

bool resets(const DomainStatus& status) {
  return status.life == DomainLife::shut_down &&
         status.shutdown_reason == ShutdownReason::soft_reset;
}

bool is_alive(const DomainStatus& status) {
  return status.life == DomainLife::running || resets(status) ||
         (status.life == DomainLife::shut_down &&
          status.shutdown_reason == ShutdownReason::suspend);
}

bool is_known(const DomainHandle& handle) {
  return handle != DomainHandle{};
}

bool is_another(const DomainStatus& before, const DomainStatus& now) {
  // More than the processors' clocks may differ by.
  constexpr std::uint64_t kLess_ns = 1'000'000'000;
  if (before.life == DomainLife::gone || now.life == DomainLife::gone) {
    return false;
  }
  return (is_known(before.handle) && is_known(now.handle) && before.handle != now.handle) ||
         now.cpu_time_ns + kLess_ns < before.cpu_time_ns;
}

std::string folder_of(DomainId guest) {
  return fmt::format("/local/domain/{}", guest);
}

// "/vm/6c9dbf50-1d3e-4c0f-9b8e-2f5a5c1d2e3f"; anything else is no handle.
DomainHandle parse_vm_path(std::string_view path) {
  constexpr std::string_view kFolder = "/vm/";
  DomainHandle handle{};
  if (!path.starts_with(kFolder)) {
    return handle;
  }
  std::string digits(path.substr(kFolder.size()));
  std::erase(digits, '-');
  if (digits.size() != 2 * handle.size()) {
    return handle;
  }
  for (std::size_t at = 0; at < handle.size(); ++at) {
    const char* const first = digits.data() + 2 * at;
    if (std::from_chars(first, first + 2, handle[at], 16).ptr != first + 2) {
      return DomainHandle{};
    }
  }
  return handle;
}

}  // namespace

GuestRunState life_after(const GuestRunState& life, const std::optional<DomainStatus>& before,
                         const DomainStatus& status, bool maps_pages) {
  GuestRunState after = life;
  after.resets = resets(status);
  const bool alive = is_alive(status);
  const bool another = before && !maps_pages && is_another(*before, status);
  if (another || (!life.runs && alive)) {
    ++after.incarnation;
    after.runs = alive;
    after.suspended = is_suspended(status);
    return after;
  }
  after.runs = life.runs && alive;
  if (alive) {
    after.suspended = is_suspended(status);
  } else if (life.runs) {
    // Of one that has gone altogether since it ran nobody can say how it ended.
    after.suspended =
        life.suspended || is_suspended(status) || (before && status.life == DomainLife::gone);
  }
  return after;
}

std::uint64_t vm_of(const DomainHandle& handle) {
  static_assert(sizeof(handle) == 2 * sizeof(std::uint64_t));
  std::array<std::uint64_t, 2> halves{};
  std::memcpy(halves.data(), handle.data(), sizeof(handle));
  const std::uint64_t mixed = halves[0] * 0x9e3779b97f4a7c15 ^ halves[1];
  return is_known(handle) ? std::max<std::uint64_t>(mixed, 1) : 0;
}

Result<bool> xenstore_has_guest(XenStoreAccess& store, DomainId guest) {
  // Read, not listed: this answer is as short as ever, however many nodes the guest has.
  const auto folder = store.read(folder_of(guest));
  if (folder || folder.error().code == ErrorCode::permission_denied) {
    return true;
  }
  if (folder.error().code == ErrorCode::not_found) {
    return false;
  }
  return tl::unexpected(folder.error());
}

Result<DomainStatus> status_in_xenstore(XenStoreAccess& store, DomainId guest) {
  DomainStatus status;
  const auto there = xenstore_has_guest(store, guest);
  if (!there) {
    return tl::unexpected(there.error());
  }
  if (!*there) {
    return status;  // gone
  }
  status.life = DomainLife::running;
  if (const auto path = store.read(folder_of(guest) + "/vm")) {
    status.handle = parse_vm_path(*path);
  } else if (path.error().code != ErrorCode::not_found &&
             path.error().code != ErrorCode::permission_denied) {
    return tl::unexpected(path.error());
  }
  return status;
}

}  // namespace iscsi_blkback
