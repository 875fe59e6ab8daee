// SyscallFilter: which system calls this process may make (seccomp(2)), as a list of rules of which the
// first that fits decides. What no rule names fails with EPERM. A value; install() is for good, for all
// threads and for what they start.
//
// The numbers of system calls are this processor's (SYS_...): calls by another one's numbers (of 32-bit
// programs, of x32) end the process.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

// The value of an argument of a system call, as far as the mask goes. The kernel takes most arguments as
// 32 bits (int, unsigned int); upper: the other half of one that is longer.
struct SyscallArgument {
  std::uint32_t number = 0;  // 0 to 5
  std::uint32_t value = 0;
  std::uint32_t mask = ~std::uint32_t{0};
  bool upper = false;
};

class SyscallFilter {
 public:
  void allow(std::initializer_list<int> calls);
  // Where all of the arguments are so; else the next rule decides.
  void allow(int call, const std::vector<SyscallArgument>& arguments);
  // Where the argument is one of values.
  void allow(int call, std::uint32_t argument, const std::vector<std::uint32_t>& values);
  void refuse(int call, int errno_value);
  // The same without a note of the kernel's, for what a library tries each time; before all other rules.
  void refuse_quietly(int call, int errno_value);
  // The whole process ends (SIGSYS): nothing of it that is right makes such a call.
  void kill(std::initializer_list<int> calls);

  // Calls that fail are noted by the kernel (audit(8); its log, where there is no auditd), as are those
  // that kill. Errors: unsupported (a kernel without seccomp filters, another processor).
  [[nodiscard]] Result<void> install() const;

 private:
  using Rules = std::vector<sock_filter>;
  static void add(Rules& rules, int call, const std::vector<SyscallArgument>& arguments,
                  std::uint32_t action);
  [[nodiscard]] static Result<void> install(const Rules& rules, std::uint32_t otherwise,
                                            unsigned flags);

  Rules rules_;
  Rules quiet_;  // of a filter of their own: the kernel notes what one refuses, or nothing of it
};

}  // namespace iscsi_blkback
