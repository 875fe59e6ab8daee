// The helper of a guest's process: this test's process is the one that it helps, libxenstore its client, and a
// xenstored of the wire protocol is behind it.
#include "blkback/process/guest_helper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "blkback/control/control_protocol.h"
#include "tests/support/fake_xenstored.h"
#include "tests/support/mem_faults.h"
#include "tests/support/temporary_folder.h"

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__
#endif
#endif

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

const std::string kNode = "/local/domain/0/backend/qdisk/5/51712";

class GuestHelper : public testing::Test {
 protected:
  void SetUp() override {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "the helper of this test comes from a process with several threads";
#endif
    auto toolstack = tree_.connect(0);
    for (const char* path : {"/state", "/params"}) {
      ASSERT_TRUE(toolstack->write(kNode + path, "1"));
    }
    ASSERT_TRUE(toolstack->write("/local/domain/6/secret", "of another guest"));
    auto lock = ProcessLock::acquire(lock_path(), lock_purpose(5));
    ASSERT_TRUE(lock) << lock.error().message;
    lock_ = std::make_unique<ProcessLock>(std::move(*lock));
    ::setenv("XENSTORED_PATH", xenstored_.path().c_str(), 1);
    GuestPlace place{.run_directory = run_, .own_domain = 0, .guest = 5, .user = {}};
    auto doors = start_guest_helper(place);
    ASSERT_TRUE(doors) << doors.error().message;
    doors_ = std::move(*doors);
  }
  void TearDown() override {
    ::unsetenv("XENSTORED_PATH");
    if (doors_ != nullptr) {
      doors_.reset();
      EXPECT_TRUE(!helper_lives_ || helper_ends());
    }
  }

  [[nodiscard]] std::string lock_path() const {
    return guest_lock_path(run_, 5);
  }

  // This process has no other children.
  static bool helper_ends() {
    int status = 0;
    return ::waitpid(-1, &status, 0) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

  // As a guest's process opens it, again where xenstored has just come back.
  std::unique_ptr<XenStore> open_store() {
    for (int tries = 0; tries < 1000; ++tries) {
      auto store = open_xenstore(doors_->xenstore_times());
      if (store && (*store)->read(kNode + "/state")) {
        return std::move(*store);
      }
      std::this_thread::sleep_for(5ms);
    }
    ADD_FAILURE() << "no xenstored";
    return nullptr;
  }

  static bool becomes_readable(const XenStore& store) {
    pollfd at{store.fd(), POLLIN, 0};
    return ::poll(&at, 1, 60000) == 1;
  }

  TemporaryFolder folder_;
  std::string run_ = folder_ / "run";
  MemFaults faults_;
  MemXenStoreTree tree_{faults_};
  FakeXenstored xenstored_{tree_};
  std::unique_ptr<ProcessLock> lock_;
  std::unique_ptr<GuestDoors> doors_;
  bool helper_lives_ = true;
};

TEST_F(GuestHelper, LibxenstoreReadsWritesAndWatchesThroughIt) {
  const auto store = open_store();
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->watch(kNode, "token"));
  EXPECT_TRUE(store->transaction(
      [](XenStoreAccess& access) { return access.write(kNode + "/hotplug-status", "connected"); }));
  EXPECT_EQ(store->read(kNode + "/hotplug-status").value_or(""), "connected");
  EXPECT_THAT(store->list(kNode).value(), testing::Contains("hotplug-status"));
  bool seen = false;
  while (!seen && becomes_readable(*store)) {
    const auto event = store->next_event();
    ASSERT_TRUE(event) << event.error().message;
    seen = *event && (*event)->path == kNode + "/hotplug-status";
  }
  EXPECT_TRUE(seen);
}

TEST_F(GuestHelper, WhatIsNotTheGuestsEndsTheConnectionAndDoesNotHappen) {
  for (const auto& forbidden : std::vector<std::function<Result<void>(XenStore&)>>{
           [](XenStore& store) { return store.write(kNode + "/script", "/tmp/evil"); },
           [](XenStore& store) { return store.write("/local/domain/6/secret", "changed"); },
           [](XenStore& store) { return store.remove(kNode); },
           [](XenStore& store) -> Result<void> {
             auto value = store.read("/local/domain/6/secret");
             return value ? Result<void>() : tl::unexpected(value.error());
           },
           [](XenStore& store) { return store.watch("/local", "token"); }}) {
    const auto store = open_store();
    ASSERT_NE(store, nullptr);
    const auto done = forbidden(*store);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::unavailable) << done.error().message;
    EXPECT_TRUE(becomes_readable(*store));
    EXPECT_FALSE(store->next_event());
  }
  EXPECT_THAT(tree_.dump(), testing::Not(HasSubstr("script")));
  EXPECT_THAT(tree_.dump(), HasSubstr("/local/domain/6/secret = of another guest"));
  EXPECT_THAT(tree_.dump(), HasSubstr(kNode + "/params = 1"));
  EXPECT_NE(open_store(), nullptr) << "another one is as good as before";
}

TEST_F(GuestHelper, ADeathOfXenstoredIsSeenThroughItAndItComesBack) {
  const auto store = open_store();
  ASSERT_NE(store, nullptr);
  xenstored_.kill();
  EXPECT_TRUE(becomes_readable(*store));
  EXPECT_FALSE(store->next_event());
  xenstored_.start();
  EXPECT_NE(open_store(), nullptr);
}

// The disks of a guest that is suspended meanwhile must stop.
TEST_F(GuestHelper, SaysWhatXenSaysWhileXenstoredHangs) {
  const auto domains = doors_->open_domain_info();
  const auto other = doors_->open_domain_info();
  xenstored_.set_hung(true);
  std::thread waiting([&] { (void)open_xenstore(doors_->xenstore_times()); });
  for (DomainInfo* asked : {domains.get(), other.get(), domains.get()}) {
    const auto status = asked->status(5);
    if (::access("/dev/xen/privcmd", F_OK) != 0) {
      ASSERT_FALSE(status);
      EXPECT_THAT(status.error().message, HasSubstr("/dev/xen/privcmd"));
    }
  }
  xenstored_.set_hung(false);
  waiting.join();
}

TEST_F(GuestHelper, MakesTheFilesAnewAndThisProcessHoldsTheLock) {
  std::filesystem::remove_all(run_);
  EXPECT_FALSE(lock_->is_in_place());
  const auto restored = doors_->restore(*lock_);
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_TRUE(*restored);
  EXPECT_TRUE(lock_->is_in_place());
  EXPECT_EQ(ProcessLock::holder(lock_path()).value(), ::getpid());
  EXPECT_TRUE(std::filesystem::is_directory(barrier_directory(run_)));
  EXPECT_NE(open_store(), nullptr) << "it is found where it was";
  lock_.reset();
  EXPECT_FALSE(ProcessLock::holder(lock_path()).value()) << "nobody but this process holds it";
}

TEST_F(GuestHelper, WhatIsInPlaceIsLeftAlone) {
  const auto restored = doors_->restore(*lock_);
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_FALSE(*restored);
  EXPECT_TRUE(lock_->is_in_place());
}

TEST_F(GuestHelper, MakesTheControlSocketAndRemovesAllInTheEnd) {
  const auto socket = doors_->open_control_socket();
  ASSERT_TRUE(socket) << socket.error().message;
  struct stat status {};
  ASSERT_EQ(::stat(guest_socket_path(run_, 5).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  int listening = 0;
  socklen_t size = sizeof listening;
  ASSERT_EQ(::getsockopt(socket->get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &size), 0);
  EXPECT_EQ(listening, 1);
  doors_->remove_files();
  for (const auto& entry : std::filesystem::directory_iterator(run_)) {
    EXPECT_EQ(entry.path(), barrier_directory(run_));
  }
}

TEST_F(GuestHelper, MakesTheSocketsOfTheFirmwareAndRemovesThem) {
  FirmwareSockets& sockets = doors_->firmware_sockets();
  const auto socket = sockets.open({51712, 1});
  ASSERT_TRUE(socket) << socket.error().message;
  struct stat status {};
  const std::string path = run_ + "/nbd-5-51712-00000001.sock";
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  int listening = 0;
  socklen_t size = sizeof listening;
  ASSERT_EQ(::getsockopt(socket->get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &size), 0);
  EXPECT_EQ(listening, 1);
  sockets.remove({51712, 1});
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(GuestHelper, RemovesWhatAFormerProcessHasLeftToTheFirmwareInTheEnd) {
  for (const char* name : {"/nbd-5-768.sock", "/nbd-55-768.sock"}) {
    const std::ofstream left(run_ + name);
  }
  ASSERT_TRUE(doors_->firmware_sockets().open({51712, 1}));
  doors_->remove_files();
  EXPECT_FALSE(std::filesystem::exists(run_ + "/nbd-5-768.sock"));
  EXPECT_FALSE(std::filesystem::exists(run_ + "/nbd-5-51712-00000001.sock"));
  EXPECT_TRUE(std::filesystem::exists(run_ + "/nbd-55-768.sock"));
}

// A process that a guest has taken over cannot fill the run directory.
TEST_F(GuestHelper, MakesSoManySocketsOfTheFirmwareAndNoMore) {
  FirmwareSockets& sockets = doors_->firmware_sockets();
  for (std::uint32_t device_id = 0; device_id < FirmwareSockets::kMost; ++device_id) {
    ASSERT_TRUE(sockets.open({device_id, 1}));
  }
  const auto more = sockets.open({51712, 1});
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, ErrorCode::conflict);
  EXPECT_TRUE(sockets.open({0, 1})) << "again";
  sockets.remove({0, 1});
  EXPECT_TRUE(sockets.open({51712, 1}));
}

TEST_F(GuestHelper, TheLockIsTheProcessesAlone) {
  { const UniqueFd closed = lock_->release(); }
  EXPECT_FALSE(ProcessLock::holder(lock_path()).value());
}

// A process of another number has come to the file meanwhile.
TEST_F(GuestHelper, ALockThatAnotherOneHasIsNotTaken) {
  ASSERT_EQ(::unlink(lock_path().c_str()), 0);
  const auto others = ProcessLock::acquire(lock_path(), lock_purpose(5), 1);
  ASSERT_TRUE(others);
  const auto restored = doors_->restore(*lock_);
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code, ErrorCode::conflict);
  EXPECT_FALSE(doors_->firmware_sockets().open({51712, 1}));
  const std::ofstream others_socket(run_ + "/nbd-5-51712-00000001.sock");
  doors_->firmware_sockets().remove({51712, 1});
  doors_->remove_files();
  EXPECT_TRUE(std::filesystem::exists(run_ + "/nbd-5-51712-00000001.sock"));
  EXPECT_TRUE(others->is_in_place());
  EXPECT_TRUE(std::filesystem::exists(guest_xenstore_path(run_, 5))) << "it may be the other's";
}

TEST_F(GuestHelper, OneThatHasGoneIsAnErrorOfWhatIsAsked) {
  const auto domains = doors_->open_domain_info();
  const std::string own = std::to_string(::getpid());
  std::ifstream children("/proc/" + own + "/task/" + own + "/children");
  pid_t helper = 0;
  children >> helper;
  ASSERT_GT(helper, 1);
  ASSERT_EQ(::kill(helper, SIGTERM), 0);
  EXPECT_TRUE(doors_->open_control_socket()) << "it does not go for what ends the service";
  ASSERT_EQ(::kill(helper, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(helper, &status, 0), helper);
  const auto asked = domains->status(5);
  ASSERT_FALSE(asked);
  EXPECT_FALSE(is_refusal(asked.error().code)) << "the guest's state is in doubt";
  EXPECT_FALSE(doors_->open_control_socket());
  EXPECT_FALSE(doors_->restore(*lock_));
  helper_lives_ = false;
}

}  // namespace
}  // namespace iscsi_blkback
