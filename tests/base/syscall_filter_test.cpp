// System call filters, by the calls of processes that have them. The calls are harmless ones.
#include "base/syscall_filter.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/child_process.h"

namespace iscsi_blkback {
namespace {

// What each of the calls gave, with a filter that also allows what the child itself needs.
ChildEnd results_with(const std::function<void(SyscallFilter&)>& rules,
                      const std::vector<std::array<long, 4>>& calls) {
  return in_child([&]() -> std::string {
    std::string said;
    said.reserve(256);  // a sanitizer makes more calls than these for memory
    SyscallFilter filter;
    rules(filter);
    filter.allow({SYS_write, SYS_exit_group, SYS_brk, SYS_mmap, SYS_munmap, SYS_futex});
    if (const auto installed = filter.install(); !installed) {
      return installed.error().message;
    }
    for (const auto& [number, first, second, third] : calls) {
      const long result = ::syscall(number, first, second, third);
      said += result >= 0 ? "ok " : fmt::format("{} ", strerrorname_np(errno));
    }
    return said;
  });
}

TEST(SyscallFilter, WhatIsAllowedIsDoneAndAllElseFails) {
  EXPECT_EQ(results_with(
                [](SyscallFilter& filter) {
                  filter.allow({SYS_getpid, SYS_getuid});
                },
                {{SYS_getpid}, {SYS_getuid}, {SYS_getppid}})
                .said,
            "ok ok EPERM ");
}

TEST(SyscallFilter, WhatIsRefusedFailsAsSaid) {
  EXPECT_EQ(
      results_with([](SyscallFilter& filter) { filter.refuse(SYS_getpid, ENOSYS); }, {{SYS_getpid}})
          .said,
      "ENOSYS ");
}

TEST(SyscallFilter, WhatIsRefusedQuietlyFailsAsSaid) {
  EXPECT_EQ(results_with(
                [](SyscallFilter& filter) {
                  filter.refuse_quietly(SYS_getpid, ENOSYS);
                  filter.allow({SYS_getuid});
                },
                {{SYS_getpid}, {SYS_getuid}, {SYS_getppid}})
                .said,
            "ENOSYS ok EPERM ");
}

TEST(SyscallFilter, WhatKillsEndsTheProcess) {
  const ChildEnd end = results_with([](SyscallFilter& filter) { filter.kill({SYS_getpid}); },
                                    {{SYS_getppid}, {SYS_getpid}});
  EXPECT_EQ(end.signal, SIGSYS);
  EXPECT_EQ(end.said, "");
}

TEST(SyscallFilter, TheFirstRuleThatFitsDecides) {
  EXPECT_EQ(results_with(
                [](SyscallFilter& filter) {
                  filter.allow(SYS_lseek, {{.number = 2, .value = SEEK_CUR}});
                  filter.refuse(SYS_lseek, ERANGE);
                  filter.kill({SYS_lseek});
                },
                {{SYS_lseek, 0, 0, SEEK_END}})
                .said,
            "ERANGE ");
}

// getpid() looks at none of its arguments.
TEST(SyscallFilter, AnArgumentIsOneOfTheValues) {
  EXPECT_EQ(results_with(
                [](SyscallFilter& filter) {
                  filter.allow(SYS_getpid, 1, {7, 9});
                },
                {{SYS_getpid, 7, 9}, {SYS_getpid, 7, 7}, {SYS_getpid, 7, 8}})
                .said,
            "ok ok EPERM ");
}

TEST(SyscallFilter, ArgumentsAreLookedAtTogetherAndThroughTheirMasks) {
  const auto rules = [](SyscallFilter& filter) {
    filter.allow(SYS_getpid,
                 {{.number = 0, .value = 2}, {.number = 2, .value = 0x10, .mask = 0xf0}});
    filter.allow({SYS_getuid});
  };
  EXPECT_EQ(results_with(rules, {{SYS_getpid, 2, 5, 0x1f},
                                 {SYS_getpid, 3, 5, 0x1f},
                                 {SYS_getpid, 2, 5, 0x2f},
                                 {SYS_getuid, 2, 5, 0x2f}})
                .said,
            "ok EPERM EPERM ok ");
}

TEST(SyscallFilter, ALongArgumentHasTwoHalves) {
  const auto rules = [](SyscallFilter& filter) {
    filter.allow(SYS_getpid, {{.number = 0, .value = 0}, {.number = 0, .value = 0, .upper = true}});
    filter.allow(SYS_getuid, {{.number = 0, .value = 0}});
  };
  constexpr long kUpper = 1L << 40;
  EXPECT_EQ(results_with(rules, {{SYS_getpid, 0}, {SYS_getpid, kUpper}, {SYS_getuid, kUpper}}).said,
            "ok EPERM ok ");
}

#ifdef __x86_64__
TEST(SyscallFilter, NumbersOfAnotherKindOfProgramEndTheProcess) {
  constexpr long kX32 = 0x40000000;
  EXPECT_EQ(
      results_with([](SyscallFilter& filter) { filter.allow({SYS_getpid}); }, {{kX32 | SYS_getpid}})
          .signal,
      SIGSYS);
  const ChildEnd end = in_child([]() -> std::string {
    SyscallFilter filter;
    filter.allow({SYS_write, SYS_exit_group, SYS_getpid});
    if (!filter.install()) {
      return "no filter";
    }
    long result = 20;  // getpid(), as 32-bit programs call it
    asm volatile("int $0x80" : "+a"(result) : : "memory");
    return "gone on";
  });
  // Where the kernel has no calls of 32-bit programs, that is a fault.
  EXPECT_THAT(end.signal, testing::AnyOf(SIGSYS, SIGSEGV)) << end.said;
}
#endif

}  // namespace
}  // namespace iscsi_blkback
