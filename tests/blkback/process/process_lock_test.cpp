#include "blkback/process/process_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

class ProcessLockTest : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::string path_ = guest_lock_path(folder_.path() + "/run", 5);
};

TEST_F(ProcessLockTest, NamesItsHolder) {
  EXPECT_EQ(ProcessLock::holder(path_).value(), std::nullopt);
  {
    const auto lock = ProcessLock::acquire(path_, "domain 5 is served");
    ASSERT_TRUE(lock) << lock.error().message;
    EXPECT_EQ(ProcessLock::holder(path_).value(), ::getpid());
  }
  EXPECT_EQ(ProcessLock::holder(path_).value(), std::nullopt);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ProcessLockTest, RefusesASecondHolder) {
  const auto lock = ProcessLock::acquire(path_, "domain 5 is served");
  ASSERT_TRUE(lock);
  const auto second = ProcessLock::acquire(path_, "domain 5 is served");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::conflict);
  EXPECT_THAT(second.error().message, testing::StartsWith("domain 5 is served by another process"));
}

TEST_F(ProcessLockTest, EndsWithItsHolder) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = ProcessLock::acquire(path_, "");
    (void)!::write(ready[1], lock ? "y" : "n", 1);
    ::pause();
    ::_exit(0);
  }
  char got = 0;
  ASSERT_EQ(::read(ready[0], &got, 1), 1);
  EXPECT_EQ(got, 'y');
  EXPECT_EQ(ProcessLock::holder(path_).value(), child);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(ProcessLock::holder(path_).value(), std::nullopt);
  EXPECT_TRUE(ProcessLock::acquire(path_, ""));
  ::close(ready[0]);
  ::close(ready[1]);
}

// A service that cleans folders, or an operator.
TEST_F(ProcessLockTest, IsKeptWhenSomebodyRemovesTheFile) {
  auto lock = ProcessLock::acquire(path_, "domain 5 is served");
  ASSERT_TRUE(lock);
  EXPECT_FALSE(lock->restore().value());
  std::filesystem::remove_all(folder_.path() + "/run");
  EXPECT_TRUE(lock->restore().value());
  EXPECT_EQ(ProcessLock::holder(path_).value(), ::getpid());
  EXPECT_FALSE(ProcessLock::acquire(path_, "domain 5 is served"));
  EXPECT_FALSE(lock->restore().value());
}

TEST_F(ProcessLockTest, OfAnotherProcessIsLeftAlone) {
  std::optional<Result<ProcessLock>> lock = ProcessLock::acquire(path_, "domain 5 is served");
  ASSERT_TRUE(*lock);
  std::filesystem::remove(path_);
  const auto other = ProcessLock::acquire(path_, "domain 5 is served");
  ASSERT_TRUE(other);
  EXPECT_EQ((*lock)->restore().error().code, ErrorCode::conflict);
  lock.reset();
  EXPECT_TRUE(std::filesystem::exists(path_)) << "it is not the one that has ended here";
}

TEST_F(ProcessLockTest, AStaleFileLocksNobodyOut) {
  std::filesystem::create_directories(folder_.path() + "/run");
  std::ofstream(path_) << "12345\n and more that was in it before";
  EXPECT_EQ(ProcessLock::holder(path_).value(), std::nullopt);
  const auto lock = ProcessLock::acquire(path_, "");
  ASSERT_TRUE(lock);
  EXPECT_EQ(ProcessLock::holder(path_).value(), ::getpid());
}

}  // namespace
}  // namespace iscsi_blkback
