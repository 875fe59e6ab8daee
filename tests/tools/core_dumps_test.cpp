// What core dumps hold: of processes that really die.
#include "base/core_dumps.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "base/buffer_pool.h"
#include "base/secret.h"
#include "initiator/login/chap.h"
#include "tests/support/fake_xenstored.h"
#include "tests/support/mem_faults.h"
#include "tests/support/temporary_folder.h"
#include "tools/config/config.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

// Made while the test runs, so that the program's file does not have them. The shorter one is the
// shortest that CHAP takes, which a std::string would keep inside of itself.
std::string scattered(const char* text) {
  std::string result;
  for (const char* at = text; *at != '\0'; ++at) {
    result += static_cast<char>(*at - 1);
  }
  return result;
}
const std::string kLongSecret = scattered("uif!mpoh!tfdsfu!pg!uif!jojujbups");
const std::string kShortSecret = scattered("btipsufspof2");
const std::string kMarker = scattered("xibu!uif!tubdl!ipmet");
const std::string kData = scattered("uif!hvftu(t!ebub");

// Where the kernel writes cores into the folder of the process, and nobody takes them from there.
bool cores_are_files() {
  std::ifstream file("/proc/sys/kernel/core_pattern");
  std::string pattern;
  std::getline(file, pattern);
  return pattern == "core";
}

struct Death {
  bool dumped = false;
  std::string core;

  [[nodiscard]] bool holds(const std::string& text) const {
    return core.find(text) != std::string::npos;
  }
};

class CoreDumps : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers forbid core dumps themselves";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    GTEST_SKIP() << "sanitizers forbid core dumps themselves";
#endif
#endif
    if (!cores_are_files() || !dies([] { std::abort(); }).dumped) {
      GTEST_SKIP() << "no core dumps here";
    }
  }

  // As a child of ours; run does not return.
  Death dies(const std::function<void()>& run) {
    return ends(start(run), 0);
  }
  pid_t start(const std::function<void()>& run) {
    const pid_t child = ::fork();
    if (child == 0) {
      const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
      if (::chdir(folder_.path().c_str()) != 0 || ::setrlimit(RLIMIT_CORE, &unlimited) != 0) {
        ::_exit(1);
      }
      run();
      ::_exit(2);
    }
    return child;
  }
  Death ends(pid_t child, int signal) {
    if (signal != 0) {
      EXPECT_EQ(::kill(child, signal), 0);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << "it ended with " << WEXITSTATUS(status);
    Death death;
    death.dumped = WIFSIGNALED(status) && WCOREDUMP(status);
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      if (entry.path().filename().string().starts_with("core")) {
        std::ostringstream core;
        core << std::ifstream(entry.path(), std::ios::binary).rdbuf();
        death.core = core.str();
        std::filesystem::remove(entry.path());
      }
    }
    EXPECT_EQ(death.dumped, !death.core.empty());
    return death;
  }

  std::string write_configuration(const std::string& more) {
    const std::string path = folder_.path() + "/iscsi-blkback.toml";
    std::ofstream(path) << more << "initiator_name = 'iqn.2026-01.test:host'\n[defaults]\n"
                        << "authmethod = 'CHAP'\nusername = 'host'\npassword = '" << kLongSecret
                        << "'\nusername_in = 'array'\npassword_in = '" << kShortSecret << "'\n";
    EXPECT_EQ(::chmod(path.c_str(), S_IRUSR | S_IWUSR), 0);
    return path;
  }

  // The program as a guest's process that waits for xenstored, with its configuration read.
  pid_t start_program(const std::string& configuration) {
    xenstored_.set_hung(true);
    const pid_t child = start([&] {
      ::setenv("XENSTORED_PATH", xenstored_.path().c_str(), 1);
      const std::string run = folder_.path() + "/run";
      ::execl(ISCSI_BLKBACK_DAEMON, ISCSI_BLKBACK_DAEMON, "--guest", "5", "--config",
              configuration.c_str(), "--run-directory", run.c_str(), nullptr);
    });
    const auto patience = std::chrono::steady_clock::now() + 60s;
    while (!std::filesystem::exists(folder_.path() + "/run/guest-5.lock") &&
           std::chrono::steady_clock::now() < patience) {
      std::this_thread::sleep_for(1ms);
    }
    std::this_thread::sleep_for(50ms);
    return child;
  }

  TemporaryFolder folder_;
  MemFaults faults_;
  MemXenStoreTree tree_{faults_};
  FakeXenstored xenstored_{tree_};
};

TEST_F(CoreDumps, AProcessThatForbidsThemLeavesNone) {
  EXPECT_FALSE(dies([] {
                 forbid_core_dumps();
                 std::abort();
               }).dumped);
}

TEST_F(CoreDumps, ThoseThatAreAllowedHoldStacksAndNeitherSecretsNorData) {
  const std::string path = write_configuration("");
  const Death death = dies([&] {
    forbid_core_dumps();
    ConfigurationFiles files;
    files.configuration = path;
    const auto configuration = load_configuration(files);
    const auto pool = BufferPool::create(BufferPool::kPageBytes, 4);
    if (!configuration || !pool || !allow_core_dumps()) {
      ::_exit(3);
    }
    std::memcpy((*pool)->acquire(), kData.data(), kData.size());
    const auto thread = OwnStackThread::start([&] {
      const SessionOptions copy = configuration->session;
      const auto response = chap_response(ChapAlgorithm::sha256, 1, copy.chap.password_in, {});
      char marker[64] = {};
      std::memcpy(marker, kMarker.data(), kMarker.size());
      if (response.empty() || marker[0] == '\0') {
        ::_exit(4);
      }
      std::abort();
    });
  });
  ASSERT_TRUE(death.dumped);
  EXPECT_TRUE(death.holds(kMarker)) << "it says where it happened";
  EXPECT_FALSE(death.holds(kLongSecret));
  EXPECT_FALSE(death.holds(kShortSecret));
  EXPECT_FALSE(death.holds(kData));
}

// So that the tests above see something: they are in an ordinary dump.
TEST_F(CoreDumps, OtherwiseTheyHoldAll) {
  const std::string path = write_configuration("");
  const Death death = dies([&] {
    ConfigurationFiles files;
    files.configuration = path;
    const auto configuration = load_configuration(files);
    if (!configuration) {
      ::_exit(3);
    }
    std::abort();
  });
  EXPECT_TRUE(death.holds(kLongSecret));
  EXPECT_TRUE(death.holds(kShortSecret));
}

TEST_F(CoreDumps, TheProgramLeavesNone) {
  const Death death = ends(start_program(write_configuration("")), SIGABRT);
  EXPECT_FALSE(death.dumped);
}

TEST_F(CoreDumps, TheProgramLeavesOneWithoutSecretsWhereTheConfigurationAllowsIt) {
  const Death death = ends(start_program(write_configuration("core_dumps = true\n")), SIGABRT);
  EXPECT_TRUE(death.dumped);
  EXPECT_FALSE(death.holds(kLongSecret));
  EXPECT_FALSE(death.holds(kShortSecret));
}

TEST(SecretText, IsComparedAndCopiedLikeAString) {
  const Secret one = "the secret";
  Secret other = one;
  EXPECT_EQ(one, other);
  EXPECT_EQ(one, "the secret");
  EXPECT_EQ(one, std::string("the secret"));
  EXPECT_NE(one, "another secret");
  EXPECT_EQ(one.size(), 10U);
  EXPECT_STREQ(one.c_str(), "the secret");
  other.clear();
  EXPECT_TRUE(other.empty());
  EXPECT_EQ(other, "");
  EXPECT_EQ(other, Secret(std::string()));
  EXPECT_STREQ(other.c_str(), "");
  EXPECT_FALSE(one.empty());
}

}  // namespace
}  // namespace iscsi_blkback
