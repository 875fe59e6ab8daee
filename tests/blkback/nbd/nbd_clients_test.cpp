// The NBD clients that there are (QEMU's, libnbd's) at a server on a real reactor and a real socket: one
// disk in memory, served by a thread of the test.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/uring_reactor.h"
#include "blkback/nbd/nbd_server.h"
#include "blkback/nbd/nbd_socket.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/memory_disk.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kDiskBytes = 64 << 20;

Geometry disk_in_memory(std::uint32_t block_bytes) {
  Geometry geometry;
  geometry.sector_count = kDiskBytes / kSectorBytes;
  geometry.logical_block_bytes = block_bytes;
  geometry.physical_block_bytes = 4096;
  geometry.discard_granularity_bytes = 4096;
  return geometry;
}

struct Ended {
  int status = -1;
  std::string output;
};

// A client that hangs fails.
Ended run_client(const std::string& command) {
  Ended ended;
  std::FILE* pipe = popen(("timeout 60 " + command + " 2>&1").c_str(), "r");
  std::array<char, 4096> buffer;
  std::size_t count = 0;
  while (pipe != nullptr && (count = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
    ended.output.append(buffer.data(), count);
  }
  ended.status = pipe != nullptr ? pclose(pipe) : -1;
  return ended;
}

class NbdClients : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* program : {"/usr/bin/qemu-io", "/usr/bin/nbdinfo", "/usr/bin/nbdcopy"}) {
      if (access(program, X_OK) != 0) {
        GTEST_SKIP() << program << " is not installed (tools/setup test)";
      }
    }
    serve(512);
  }
  void TearDown() override { stop(); }

  void serve(std::uint32_t block_bytes) {
    auto reactor = UringReactor::create();
    ASSERT_TRUE(reactor) << reactor.error().message;
    reactor_ = std::move(*reactor);
    memory_ = std::make_unique<MemoryDisk>(*reactor_, disk_in_memory(block_bytes));
    disk_ = std::make_unique<FaultyDisk>(*reactor_, *memory_);
    auto socket = listen_nbd(path_);
    ASSERT_TRUE(socket) << socket.error().message;
    server_ = std::make_unique<NbdServer>(*reactor_, *disk_, std::move(*socket), "test", true);
    thread_ = std::thread([this] { reactor_->run(); });
  }
  // On the thread of the server.
  void close(NbdServer::End end) {
    closing_ = true;
    server_->close(
        end, [](void* self) noexcept { static_cast<NbdClients*>(self)->closed_.set_value(); },
        this);
    disk_->fail_held(IoStatus::aborted);
  }
  void stop() {
    if (!thread_.joinable()) {
      return;
    }
    reactor_->post([this] {
      if (!closing_) {
        close(NbdServer::End::goes_on);
      }
    });
    closed_.get_future().wait();
    closed_ = {};
    reactor_->stop();
    thread_.join();
    closing_ = false;
    server_.reset();
    disk_.reset();
    memory_.reset();
    reactor_.reset();
  }
  std::size_t held() {
    std::promise<std::size_t> count;
    reactor_->post([&] { count.set_value(disk_->held()); });
    return count.get_future().get();
  }
  void plan(FaultyDisk::Plan plan) {
    std::promise<void> set;
    reactor_->post([&] {
      disk_->set_plan(std::move(plan));
      set.set_value();
    });
    set.get_future().wait();
  }
  [[nodiscard]] std::string uri() const { return "'nbd+unix:///?socket=" + path_ + "'"; }
  // What -drive makes of libxl's file=nbd+unix:///?socket=PATH,file.reconnect-delay=SECONDS.
  [[nodiscard]] std::string qemu_drive() const {
    return "--image-opts driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=" +
           path_ + ",file.reconnect-delay=60";
  }
  [[nodiscard]] std::vector<std::byte>& contents() { return memory_->contents(); }
  [[nodiscard]] bool holds(std::size_t at, std::size_t bytes, int value) {
    return std::all_of(contents().begin() + static_cast<std::ptrdiff_t>(at),
                       contents().begin() + static_cast<std::ptrdiff_t>(at + bytes),
                       [value](std::byte one) { return one == static_cast<std::byte>(value); });
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_ / "nbd-5-51712.sock";
  std::unique_ptr<UringReactor> reactor_;
  std::unique_ptr<MemoryDisk> memory_;
  std::unique_ptr<FaultyDisk> disk_;
  std::unique_ptr<NbdServer> server_;
  bool closing_ = false;  // of the server's thread, while there is one
  std::promise<void> closed_;
  std::thread thread_;
};

TEST_F(NbdClients, NbdinfoIsToldOfSizeBlocksAndFlushes) {
  const Ended info = run_client("nbdinfo --json " + uri());
  ASSERT_EQ(info.status, 0) << info.output;
  for (const char* word :
       {"\"export-size\": 67108864", "\"can_flush\": true", "\"can_fua\": true",
        "\"can_trim\": true", "\"is_read_only\": false", "\"block_size_minimum\": 512",
        "\"block_size_preferred\": 4096", "\"block_size_maximum\": 1048576"}) {
    EXPECT_NE(info.output.find(word), std::string::npos) << word << " is not in\n" << info.output;
  }
}

TEST_F(NbdClients, NbdinfoListsTheOneExport) {
  const Ended list = run_client("nbdinfo --list --json " + uri());
  EXPECT_EQ(list.status, 0) << list.output;
  EXPECT_NE(list.output.find("\"export-name\": \"\""), std::string::npos) << list.output;
}

TEST_F(NbdClients, NbdcopyBringsADiskThereAndBack) {
  std::vector<char> data(kDiskBytes);
  for (std::size_t at = 0; at < data.size(); ++at) {
    data[at] = static_cast<char>((at * 31 + at / 4096) & 0xff);
  }
  const std::string there = folder_ / "there";
  const std::string back = folder_ / "back";
  std::ofstream(there, std::ios::binary).write(data.data(), std::ssize(data));
  const Ended to = run_client("nbdcopy --flush " + there + " " + uri());
  ASSERT_EQ(to.status, 0) << to.output;
  EXPECT_EQ(std::memcmp(contents().data(), data.data(), data.size()), 0);
  const Ended from = run_client("nbdcopy " + uri() + " " + back);
  ASSERT_EQ(from.status, 0) << from.output;
  std::ifstream file(back, std::ios::binary);
  EXPECT_EQ(std::vector<char>(std::istreambuf_iterator<char>(file), {}), data);
}

TEST_F(NbdClients, QemuReadsWhatItHasWritten) {
  const Ended io = run_client("qemu-io " + qemu_drive() +
                              " -c 'write -P 0x5a 1M 3M' -c 'read -P 0x5a 1M 3M'"
                              " -c 'write -f -P 0x11 512 512' -c flush -c 'read -P 0x11 512 512'"
                              " -c 'write -z 2M 1M' -c 'read -P 0 2M 1M'");
  EXPECT_EQ(io.status, 0) << io.output;
  EXPECT_EQ(io.output.find("failed"), std::string::npos) << io.output;
  EXPECT_TRUE(holds(1 << 20, 1 << 20, 0x5a));
  EXPECT_TRUE(holds(2 << 20, 1 << 20, 0));
  EXPECT_TRUE(holds(512, 512, 0x11));
}

TEST_F(NbdClients, QemuKeepsToTheBlocksThatItIsTold) {
  stop();
  serve(4096);
  const Ended io = run_client("qemu-io " + qemu_drive() +
                              " -c 'write -P 0x5a 0 64k' -c 'write -P 0x11 512 512'"
                              " -c 'read -P 0x11 512 512' -c 'read -P 0x5a 1024 3072'");
  EXPECT_EQ(io.status, 0) << io.output;
  EXPECT_TRUE(holds(512, 512, 0x11));
  EXPECT_TRUE(holds(1024, 60000, 0x5a));
}

TEST_F(NbdClients, QemuHearsOfAFailedFlush) {
  plan([](const BlockRequest& request, std::uint64_t) {
    const bool fails = request.operation == BlockOperation::flush;
    return FaultyDisk::Action{
        fails ? FaultyDisk::Action::Kind::fail : FaultyDisk::Action::Kind::pass,
        IoStatus::target_error};
  });
  const Ended io = run_client("qemu-io " + qemu_drive() + " -c 'write -P 1 0 512' -c flush");
  EXPECT_NE(io.output.find("Input/output error"), std::string::npos) << io.output;
}

// The process of the guest ends while it has the first write, and the next one listens at the same path: QEMU
// connects again and sends it once more.
TEST_F(NbdClients, QemuSendsAgainWhatWasNotAnswered) {
  plan([](const BlockRequest& request, std::uint64_t) {
    return FaultyDisk::Action{request.operation == BlockOperation::write
                                  ? FaultyDisk::Action::Kind::hold
                                  : FaultyDisk::Action::Kind::pass,
                              IoStatus::ok};
  });
  auto io = std::async(std::launch::async, [this] {
    return run_client("qemu-io " + qemu_drive() +
                      " -c 'write -P 0x5a 4096 4096' -c 'read -P 0x5a 4096 4096'");
  });
  while (held() == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  stop();
  serve(512);
  const Ended ended = io.get();
  EXPECT_EQ(ended.status, 0) << ended.output;
  EXPECT_EQ(ended.output.find("failed"), std::string::npos) << ended.output;
  EXPECT_TRUE(holds(4096, 4096, 0x5a));
}

// QEMU flushes when it ends, and would wait for the next server.
TEST_F(NbdClients, QemuEndsAfterTheGuestHas) {
  plan([this](const BlockRequest&, std::uint64_t) {
    if (!closing_) {
      reactor_->post([this] { close(NbdServer::End::for_good); });
    }
    return FaultyDisk::Action{FaultyDisk::Action::Kind::hold, IoStatus::ok};
  });
  const Ended io = run_client("qemu-io " + qemu_drive() + " -c 'write -P 0x5a 4096 4096'");
  EXPECT_NE(io.output.find("Input/output error"), std::string::npos) << io.output;
  EXPECT_FALSE(WIFEXITED(io.status) && WEXITSTATUS(io.status) == 124) << "timeout(1) has ended it";
}

}  // namespace
}  // namespace iscsi_blkback
