#include "base/privileges.h"

#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "base/core_dumps.h"

namespace iscsi_blkback {
namespace {

using CapabilitySets = std::array<__user_cap_data_struct, 2>;  // the lower 32, the upper

Result<CapabilitySets> capability_sets() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  CapabilitySets sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) {
    return tl::unexpected(system_error("the capabilities cannot be read", errno));
  }
  return sets;
}

// Only who may change the bounding set has to: for others no_new_privs does the same.
Result<void> bound_capabilities(std::uint64_t which) {
  auto sets = capability_sets();
  if (!sets) {
    return tl::unexpected(sets.error());
  }
  if (((*sets)[0].effective & (1U << CAP_SETPCAP)) == 0) {
    return {};
  }
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability) {
    if ((which >> capability & 1) == 0 && ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) {
      return tl::unexpected(system_error("the capabilities cannot be bounded", errno));
    }
  }
  return {};
}

Result<void> set_capabilities(std::uint64_t which) {
  auto before = capability_sets();
  if (!before) {
    return tl::unexpected(before.error());
  }
  CapabilitySets kept{};
  for (std::size_t half = 0; half < kept.size(); ++half) {
    const auto wanted = static_cast<std::uint32_t>(which >> (32 * half));
    kept[half].permitted = kept[half].effective = wanted & (*before)[half].permitted;
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 ||
      ::syscall(SYS_capset, &header, kept.data()) != 0) {
    return tl::unexpected(system_error("the capabilities cannot be given up", errno));
  }
  return {};
}

bool is_root_again() {
  return ::setresuid(0, 0, 0) == 0 || ::setresgid(0, 0, 0) == 0 || ::geteuid() == 0 ||
         ::getegid() == 0;
}

}  // namespace

Result<void> keep_capabilities(std::uint64_t which) {
  if (auto bounded = bound_capabilities(which); !bounded) {
    return bounded;
  }
  return set_capabilities(which);
}

Result<void> become_user(const ProcessUser& user) {
  // While it still has the capability that this takes.
  if (auto bounded = bound_capabilities(0); !bounded) {
    return bounded;
  }
  // glibc has all threads do it.
  if (::setgroups(0, nullptr) != 0 || ::setresgid(user.group, user.group, user.group) != 0 ||
      ::setresuid(user.user, user.user, user.user) != 0) {
    return tl::unexpected(system_error(
        fmt::format("it cannot run as user {} of group {}", user.user, user.group), errno));
  }
  if (auto none = set_capabilities(0); !none) {
    return none;
  }
  if (is_root_again()) {
    return fail(ErrorCode::conflict, "root's rights cannot be given up");
  }
  keep_core_dumps_as_they_are();
  return {};
}

void close_descriptors_but(std::vector<int> which) {
  which.push_back(STDERR_FILENO);
  std::sort(which.begin(), which.end());
  for (std::size_t i = 0; i < which.size(); ++i) {
    const auto first = static_cast<unsigned>(which[i]) + 1;
    const auto last = i + 1 < which.size() ? static_cast<unsigned>(which[i + 1]) - 1
                                           : std::numeric_limits<unsigned>::max();
    if (which[i] >= STDERR_FILENO && first <= last) {
      (void)::syscall(SYS_close_range, first, last, 0U);
    }
  }
}

}  // namespace iscsi_blkback
