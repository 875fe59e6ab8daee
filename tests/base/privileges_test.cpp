// Rights that are given up, by processes that have some.
#include "base/privileges.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/core_dumps.h"
#include "tests/support/child_process.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

constexpr ProcessUser kUser{.user = 1879048198, .group = 1879048192};

// What the kernel says of the calling thread.
std::string status_text() {
  std::ostringstream text;
  text << std::ifstream("/proc/thread-self/status").rdbuf();
  return text.str();
}

class Privileges : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "only root has rights to give up";
    }
    const ChildEnd end = in_child(
        [] { return ::setresuid(kUser.user, kUser.user, kUser.user) == 0 ? "" : "no such user"; });
    if (!end.said.empty()) {
      GTEST_SKIP() << "this container has no such users";
    }
  }
};

TEST_F(Privileges, AnotherUserHasNoneLeft) {
  const ChildEnd end = in_child([]() -> std::string {
    constexpr std::array<gid_t, 2> kGroups = {4, 0};
    if (::setgroups(kGroups.size(), kGroups.data()) != 0) {
      return "no groups";
    }
    const auto became = become_user(kUser);
    return became ? status_text() : became.error().message;
  });
  EXPECT_THAT(end.said, HasSubstr(fmt::format("Uid:\t{0}\t{0}\t{0}\t{0}\n", kUser.user)));
  EXPECT_THAT(end.said, HasSubstr(fmt::format("Gid:\t{0}\t{0}\t{0}\t{0}\n", kUser.group)));
  EXPECT_THAT(end.said, HasSubstr("Groups:\t \n"));
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_THAT(end.said, HasSubstr(fmt::format("{}:\t0000000000000000\n", set)));
  }
  EXPECT_THAT(end.said, HasSubstr("NoNewPrivs:\t1\n"));
}

TEST_F(Privileges, ThereIsNoWayBack) {
  const ChildEnd end = in_child([]() -> std::string {
    if (!become_user(kUser)) {
      return "not another";
    }
    return ::setuid(0) != 0 && ::setgid(0) != 0 && ::setresuid(0, 0, 0) != 0 ? "none" : "there is";
  });
  EXPECT_EQ(end.said, "none");
}

TEST_F(Privileges, AThreadThatIsThereBeforeChangesItsUserToo) {
  const ChildEnd end = in_child([]() -> std::string {
    std::string said = "nothing";
    int go[2];
    if (::pipe(go) != 0) {
      return "no pipe";
    }
    std::thread other([&] {
      char byte = 0;
      said = ::read(go[0], &byte, 1) == 1 ? status_text() : "not told";
    });
    const auto became = become_user(kUser);
    const bool told = ::write(go[1], "x", 1) == 1;
    other.join();
    return became && told ? said : "not another";
  });
  EXPECT_THAT(end.said, HasSubstr(fmt::format("Uid:\t{0}\t{0}\t{0}\t{0}\n", kUser.user)));
  EXPECT_THAT(end.said, HasSubstr("CapEff:\t0000000000000000\n"));
}

// Others of the same user could look into its memory, and so they are told apart from those that allow dumps.
TEST_F(Privileges, AnotherUserIsAsDumpableAsItWas) {
  const ChildEnd end = in_child([] {
    forbid_core_dumps();
    return std::string(become_user(kUser) && ::prctl(PR_GET_DUMPABLE) == 0 ? "not" : "it is");
  });
  EXPECT_EQ(end.said, "not");
  const ChildEnd allowed = in_child([] {
    return std::string(allow_core_dumps() && become_user(kUser) && ::prctl(PR_GET_DUMPABLE) == 1
                           ? "it is"
                           : "not");
  });
  EXPECT_EQ(allowed.said, "it is");
}

TEST_F(Privileges, OfCapabilitiesOnlyThoseNamedAreKept) {
  const ChildEnd end = in_child([] {
    const auto kept = keep_capabilities(1U << CAP_CHOWN);
    return kept ? status_text() : kept.error().message;
  });
  EXPECT_THAT(end.said, HasSubstr("CapEff:\t0000000000000001\n"));
  EXPECT_THAT(end.said, HasSubstr("CapBnd:\t0000000000000001\n"));
}

TEST(Descriptors, AllAreClosedButTheStandardStreamsAndThoseNamed) {
  const ChildEnd end = in_child([] {
    const int source = ::open("/dev/null", O_RDONLY);
    for (const int fd : {40, 41, 42, 900}) {
      ::dup2(source, fd);
    }
    // The pipe by which a child says something has low numbers.
    std::vector<int> kept = {41};
    for (int fd = 3; fd < 40; ++fd) {
      kept.push_back(fd);
    }
    close_descriptors_but(kept);
    std::string open;
    for (const int fd : {0, 2, source, 40, 41, 42, 900}) {
      open += ::fcntl(fd, F_GETFD) >= 0 ? '1' : '0';
    }
    return open;
  });
  EXPECT_EQ(end.said, "1110100");
}

}  // namespace
}  // namespace iscsi_blkback
