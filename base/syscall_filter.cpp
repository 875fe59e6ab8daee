#include "base/syscall_filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace iscsi_blkback {
namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kProcessor = AUDIT_ARCH_X86_64;
constexpr std::uint32_t kFirstOfX32 = 0x40000000;
#elif defined(__aarch64__) && defined(__AARCH64EL__)
constexpr std::uint32_t kProcessor = AUDIT_ARCH_AARCH64;
#else
constexpr std::uint32_t kProcessor = 0;
#endif

// Both processors have the lower half of a register first in memory.
constexpr std::uint32_t offset_of(const SyscallArgument& argument) {
  return static_cast<std::uint32_t>(offsetof(seccomp_data, args) + 8 * argument.number +
                                    (argument.upper ? 4 : 0));
}

constexpr sock_filter statement(unsigned code, std::uint32_t value) {
  return {static_cast<std::uint16_t>(code), 0, 0, value};
}

constexpr sock_filter load(std::uint32_t offset) {
  return statement(BPF_LD | BPF_W | BPF_ABS, offset);
}

constexpr sock_filter decide(std::uint32_t action) {
  return statement(BPF_RET | BPF_K, action);
}

// Leaves out that many of the next ones where the value is another.
constexpr sock_filter unless_equal_leave_out(std::uint32_t value, std::size_t count) {
  return {static_cast<std::uint16_t>(BPF_JMP | BPF_JEQ | BPF_K), 0,
          static_cast<std::uint8_t>(count), value};
}

constexpr std::uint32_t failure(int errno_value) {
  return SECCOMP_RET_ERRNO | (static_cast<std::uint32_t>(errno_value) & SECCOMP_RET_DATA);
}

}  // namespace

void SyscallFilter::allow(std::initializer_list<int> calls) {
  for (const int call : calls) {
    add(rules_, call, {}, SECCOMP_RET_ALLOW);
  }
}

void SyscallFilter::allow(int call, const std::vector<SyscallArgument>& arguments) {
  add(rules_, call, arguments, SECCOMP_RET_ALLOW);
}

void SyscallFilter::allow(int call, std::uint32_t argument,
                          const std::vector<std::uint32_t>& values) {
  for (const std::uint32_t value : values) {
    add(rules_, call, {{.number = argument, .value = value}}, SECCOMP_RET_ALLOW);
  }
}

void SyscallFilter::refuse(int call, int errno_value) {
  add(rules_, call, {}, failure(errno_value));
}

void SyscallFilter::refuse_quietly(int call, int errno_value) {
  add(quiet_, call, {}, failure(errno_value));
  allow({call});  // of two filters the stricter one counts
}

void SyscallFilter::kill(std::initializer_list<int> calls) {
  for (const int call : calls) {
    add(rules_, call, {}, SECCOMP_RET_KILL_PROCESS);
  }
}

// The number of the call is in the accumulator before each rule. One with arguments puts it there again.
void SyscallFilter::add(Rules& rules, int call, const std::vector<SyscallArgument>& arguments,
                        std::uint32_t action) {
  std::vector<sock_filter> checks;
  const std::size_t length = 3 * arguments.size();
  for (const SyscallArgument& argument : arguments) {
    checks.push_back(load(offset_of(argument)));
    checks.push_back(statement(BPF_ALU | BPF_AND | BPF_K, argument.mask));
    checks.push_back(unless_equal_leave_out(argument.value, length - checks.size()));
  }
  checks.push_back(decide(action));
  if (!arguments.empty()) {
    checks.push_back(load(offsetof(seccomp_data, nr)));
  }
  rules.push_back(unless_equal_leave_out(static_cast<std::uint32_t>(call), checks.size()));
  rules.insert(rules.end(), checks.begin(), checks.end());
}

Result<void> SyscallFilter::install() const {
  if (kProcessor == 0) {
    return fail(ErrorCode::unsupported, "there is no seccomp filter for this processor");
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return tl::unexpected(system_error("no_new_privs cannot be set", errno));
  }
  if (auto quiet = install(quiet_, SECCOMP_RET_ALLOW, SECCOMP_FILTER_FLAG_TSYNC); !quiet) {
    return quiet;
  }
  return install(rules_, failure(EPERM), SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG);
}

Result<void> SyscallFilter::install(const Rules& rules, std::uint32_t otherwise, unsigned flags) {
  Rules program = {
      load(offsetof(seccomp_data, arch)),
      {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, kProcessor},
      decide(SECCOMP_RET_KILL_PROCESS),
      load(offsetof(seccomp_data, nr)),
  };
#if defined(__x86_64__)
  program.push_back({BPF_JMP | BPF_JGE | BPF_K, 0, 1, kFirstOfX32});
  program.push_back(decide(SECCOMP_RET_KILL_PROCESS));
#endif
  program.insert(program.end(), rules.begin(), rules.end());
  program.push_back(decide(otherwise));
  const sock_fprog filter{static_cast<std::uint16_t>(program.size()), program.data()};
  const long failed = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
  if (failed > 0) {
    return fail(ErrorCode::conflict, "another thread has a seccomp filter of its own");
  }
  if (failed < 0) {
    return tl::unexpected(system_error(
        "the seccomp filter cannot be set (CONFIG_SECCOMP_FILTER of the kernel)", errno));
  }
  return {};
}

}  // namespace iscsi_blkback
