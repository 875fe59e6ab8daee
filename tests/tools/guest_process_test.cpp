// The program as the process of a guest, in its sandbox and without: with a xenstored of the wire protocol, a real
// target, and Xen's devices that open and do nothing (xen_devices_stub.c).
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>

#include "tests/support/child_process.h"
#include "tests/support/fake_xenstored.h"
#include "tests/support/mem_faults.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tgt_process.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr uid_t kUser = 1879048198;  // of domain 5
constexpr gid_t kGroup = 1879048192;
const std::string kDisk = "/local/domain/0/backend/qdisk/5/51712";

bool eventually(const std::function<bool()>& holds) {
  const auto patience = std::chrono::steady_clock::now() + 60s;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > patience) {
      return false;
    }
    std::this_thread::sleep_for(10ms);
  }
  return true;
}

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

struct Way {
  const char* name;
  const char* settings;
  bool sandbox;
};

class WholeGuestProcess : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a sanitizer's library must be the first";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    GTEST_SKIP() << "a sanitizer's library must be the first";
#endif
#endif
    if (!TgtProcess::available()) {
      GTEST_SKIP() << "no tgtd, or not root";
    }
    if (in_child([] { return std::string(::setuid(kUser) == 0 ? "" : "none"); }).said == "none") {
      GTEST_SKIP() << "this container has no such users";
    }
    ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
    ASSERT_TRUE(target_.start({}));
    const auto write = [this](const std::string& path, const std::string& value) {
      ASSERT_TRUE(toolstack_->write(path, value));
    };
    write("/local/domain/5/device/vbd/51712/state", "1");
    write(kDisk + "/frontend", "/local/domain/5/device/vbd/51712");
    write(kDisk + "/online", "1");
    write(kDisk + "/dev", "xvda");
    write(kDisk + "/mode", "w");
    write(kDisk + "/params", fmt::format("aio:iscsi:{}/1", TgtProcess::kTargetName));
    write(kDisk + "/state", "1");
    // The portal is asked (SendTargets), by a name.
    std::ofstream(configuration_) << "initiator_name = 'iqn.2026-01.test:host'\n"
                                  << "state_directory = '" << folder_ / "state"
                                  << "'\n"
                                  << "portals = ['localhost:" << target_.port() << "']\n"
                                  << GetParam().settings << "\n[defaults]\nquiesce_time = 1\n";
    ASSERT_EQ(::chmod(configuration_.c_str(), 0600), 0);
    start();
  }

  void TearDown() override {
    if (process_ > 0) {
      ::kill(process_, SIGKILL);
      ::waitpid(process_, nullptr, 0);
    }
    if (HasFailure()) {
      std::fprintf(stderr, "%s\n", text_of(log_).c_str());
    }
  }

  void start() {
    process_ = ::fork();
    if (process_ == 0) {
      ::setenv("XENSTORED_PATH", xenstored_.path().c_str(), 1);
      ::setenv("LD_PRELOAD", ISCSI_BLKBACK_XEN_DEVICES_STUB, 1);
      const int log = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      ::dup2(log, STDERR_FILENO);
      ::dup2(::open("/etc/shadow", O_RDONLY), 77);  // left open by who started it
      ::execl(ISCSI_BLKBACK_DAEMON, ISCSI_BLKBACK_DAEMON, "--guest", "5", "--config",
              configuration_.c_str(), "--run-directory", run_.c_str(), nullptr);
      ::_exit(127);
    }
  }

  [[nodiscard]] std::string node(const std::string& key) const {
    return toolstack_->read(kDisk + "/" + key).value_or("");
  }
  [[nodiscard]] bool is_served() const {
    return node("state") == "2" && node("hotplug-status") == "connected";
  }
  [[nodiscard]] std::string status() const {
    return text_of(fmt::format("/proc/{}/status", process_));
  }
  [[nodiscard]] pid_t helper() const {
    std::istringstream children(text_of(fmt::format("/proc/{0}/task/{0}/children", process_)));
    pid_t child = 0;
    children >> child;
    return child;
  }
  // Where its descriptors lead to.
  [[nodiscard]] std::vector<std::string> descriptors() const {
    std::vector<std::string> all;
    for (const auto& entry :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", process_))) {
      std::error_code closed;
      all.push_back(std::filesystem::read_symlink(entry.path(), closed).string());
    }
    return all;
  }
  static std::string descriptor_of_test(int fd) {
    std::error_code closed;
    return std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", fd), closed).string();
  }
  [[nodiscard]] bool answers() const {
    return std::filesystem::exists(run_ + "/guest-5.sock") &&
           std::filesystem::exists(run_ + "/guest-5.lock");
  }
  // In order, with nothing left but what disks still tell each other.
  void expect_end(pid_t its_helper) {
    int ended = 0;
    ASSERT_EQ(::waitpid(process_, &ended, 0), process_);
    process_ = -1;
    EXPECT_TRUE(WIFEXITED(ended) && WEXITSTATUS(ended) == 0) << ended;
    EXPECT_TRUE(its_helper == 0 || eventually([&] { return ::kill(its_helper, 0) != 0; }));
    for (const auto& entry : std::filesystem::directory_iterator(run_)) {
      EXPECT_EQ(entry.path(), run_ + "/barrier");
    }
    EXPECT_THAT(text_of(log_), testing::Not(HasSubstr("not let through")));
  }

  TemporaryFolder folder_;
  const std::string run_ = folder_ / "run";
  const std::string configuration_ = folder_ / "c.toml";
  const std::string log_ = folder_ / "log";
  MemFaults faults_;
  MemXenStoreTree tree_{faults_};
  std::unique_ptr<MemXenStore> toolstack_ = tree_.connect(0);
  FakeXenstored xenstored_{tree_};
  TgtProcess target_;
  pid_t process_ = -1;
};

TEST_P(WholeGuestProcess, ServesADiskSurvivesXenstoredAndCleanersAndEnds) {
  ASSERT_TRUE(eventually([&] { return is_served(); })) << tree_.dump();
  const std::string user = std::to_string(GetParam().sandbox ? kUser : 0);
  EXPECT_THAT(status(), HasSubstr(fmt::format("Uid:\t{0}\t{0}\t{0}\t{0}\n", user)));
  EXPECT_THAT(status(), HasSubstr(fmt::format("Seccomp:\t{}\n", GetParam().sandbox ? 2 : 0)));
  EXPECT_EQ(helper() != 0, GetParam().sandbox);
  const std::string barriers = run_ + "/barrier";
  EXPECT_THAT(descriptors(),
              testing::Each(testing::AnyOf(
                  "", testing::StartsWith("anon_inode:"), testing::StartsWith("socket:"),
                  testing::StartsWith("pipe:"), testing::StartsWith(barriers),
                  run_ + "/guest-5.lock", log_, descriptor_of_test(0), descriptor_of_test(1))));
  // Of every guest's process, whether this one has a sandbox or not.
  struct stat file {};
  for (const auto& entry : std::filesystem::directory_iterator(barriers)) {
    ASSERT_EQ(::stat(entry.path().c_str(), &file), 0);
    EXPECT_EQ(file.st_gid, kGroup) << entry.path();
    EXPECT_EQ(file.st_mode & 0777, 0660U) << entry.path();
  }

  xenstored_.kill();
  ASSERT_TRUE(eventually([&] {
    return text_of(log_).find("the connection to xenstore is lost") != std::string::npos;
  }));
  xenstored_.start();
  ASSERT_TRUE(eventually(
      [&] { return text_of(log_).find("xenstore is reached again") != std::string::npos; }));

  std::filesystem::remove_all(run_);
  ASSERT_TRUE(eventually([&] { return answers(); }));
  xenstored_.kill();
  xenstored_.start();
  // What the toolstack asks for now comes by way of the files that were made anew.
  ASSERT_TRUE(toolstack_->write(kDisk + "/online", "0"));
  ASSERT_TRUE(toolstack_->write(kDisk + "/state", "5"));
  ASSERT_TRUE(eventually([&] { return node("state") == "6"; })) << tree_.dump();
  const pid_t its_helper = helper();
  ASSERT_TRUE(toolstack_->remove(kDisk));
  expect_end(its_helper);
}

TEST_P(WholeGuestProcess, OneThatIsKilledTakesItsHelperAlongAndTheNextOneServes) {
  ASSERT_TRUE(eventually([&] { return is_served(); })) << tree_.dump();
  const pid_t its_helper = helper();
  ASSERT_EQ(::kill(process_, SIGKILL), 0);
  ASSERT_EQ(::waitpid(process_, nullptr, 0), process_);
  EXPECT_TRUE(its_helper == 0 || eventually([&] { return ::kill(its_helper, 0) != 0; }));
  ASSERT_TRUE(toolstack_->remove(kDisk + "/hotplug-status"));
  start();
  ASSERT_TRUE(eventually([&] { return is_served(); })) << tree_.dump();
  const pid_t next_helper = helper();
  ASSERT_EQ(::kill(process_, SIGTERM), 0);
  expect_end(next_helper);
}

INSTANTIATE_TEST_SUITE_P(Ways, WholeGuestProcess,
                         testing::Values(Way{"Sandboxed", "", true},
                                         Way{"SandboxedWithCoreDumps", "core_dumps = true", true},
                                         Way{"SandboxedOnThreeReactors", "reactors = 3", true},
                                         Way{"AsRoot", "sandbox = false", false}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace iscsi_blkback
