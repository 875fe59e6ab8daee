// A disk over two portals of a real target, each behind a proxy that stalls one of them: nothing
// that the network kept for later overwrites what is newer, and reads do not wait for it.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "base/log.h"
#include "base/uring_reactor.h"
#include "initiator/pdu/pdu.h"
#include "multipath/fencing/shared_fencing.h"
#include "multipath/multipath_device.h"
#include "tests/support/real_target_test.h"
#include "tests/support/tcp_proxy.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Way = TcpProxy::Way;

constexpr std::size_t kPaths = 2;

struct Request {
  BlockRequest block;
  std::vector<std::byte> data;
  std::optional<IoStatus> status;
};

class FailoverTarget : public RealTargetTest, public MultipathDevice::Observer {
 protected:
  void SetUp() override {
    RealTargetTest::SetUp();
    if (IsSkipped()) {
      return;
    }
    set_log_level(LogLevel::error);
    const auto started = tgt.start({.disk_bytes = std::uint64_t{16} << 20, .portals = kPaths});
    ASSERT_TRUE(started) << started.error().message;
    MultipathOptions options;
    options.alias = "disk";
    options.marginal.double_failed_time = {};  // a path that is lost again and again is used again
    fencing.emplace(*reactor);
    device = std::make_unique<MultipathDevice>(*reactor, *fencing, options, *this);
    for (std::size_t path = 0; path < kPaths; ++path) {
      auto proxy = TcpProxy::start(tgt.port(path));
      ASSERT_TRUE(proxy) << proxy.error().message;
      proxies.push_back(std::move(*proxy));
      SessionOptions session;
      session.portal = SocketAddress::parse("127.0.0.1", proxies.back()->port()).value();
      session.portal_name = session.portal.to_string();
      session.initiator_name = "iqn.2026-01.test:initiator";
      session.target_name = TgtProcess::kTargetName;
      session.isid = {0x80, 0, 0, 1, 0, static_cast<std::uint8_t>(path + 1)};
      session.path_timeout = path_timeout;
      session.noop_out_timeout = std::max(session.noop_out_timeout, path_timeout);
      sessions.push_back(std::make_unique<Session>(*reactor, session));
      ASSERT_TRUE(device->add_path(*sessions.back(), TgtProcess::kLun));
      sessions.back()->start();
    }
    ASSERT_TRUE(run_until([this] { return device->snapshot().paths_up() == kPaths; }));
  }

  void TearDown() override {
    bool closed = device == nullptr;
    if (device) {
      device->close(
          true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
    }
    EXPECT_TRUE(run_until([&] { return closed; }));
    device.reset();
    std::size_t stopped = 0;
    for (const auto& session : sessions) {
      session->stop([](void* count) noexcept { ++*static_cast<std::size_t*>(count); }, &stopped);
    }
    EXPECT_TRUE(run_until([&] { return stopped == sessions.size(); }));
  }

  void on_ready(MultipathDevice&) noexcept override {}
  void on_paths_changed(MultipathDevice&) noexcept override {}
  void on_path_removed(MultipathDevice&, Session&) noexcept override { ++removed; }

  Request& submit(BlockOperation operation, std::uint64_t sector, std::uint32_t count,
                  int fill = 0) {
    Request& request = requests.emplace_back();
    request.data.assign(std::size_t{count} * kSectorBytes, static_cast<std::byte>(fill));
    request.block.operation = operation;
    request.block.sector = sector;
    request.block.sector_count = count;
    request.block.data = request.data.data();
    request.block.owner = &request;
    request.block.on_complete = [](BlockRequest& block, IoStatus status) noexcept {
      static_cast<Request*>(block.owner)->status = status;
    };
    device->submit(request.block);
    return request;
  }
  [[nodiscard]] IoStatus answer(const Request& request) {
    EXPECT_TRUE(run_until([&] { return request.status.has_value(); }));
    return request.status.value_or(IoStatus::aborted);
  }
  void expect_contents(std::uint64_t sector, std::uint32_t count, int fill) {
    Request& read = submit(BlockOperation::read, sector, count);
    ASSERT_EQ(answer(read), IoStatus::ok);
    EXPECT_EQ(read.data, std::vector<std::byte>(read.data.size(), static_cast<std::byte>(fill)));
  }
  // Writes to one place until one of the writes is in the proxy, which keeps it.
  Request& write_stalled_at(std::size_t path, std::uint64_t sector, int fill) {
    while (true) {
      const std::uint32_t before = device->snapshot().paths[path].in_flight;
      Request& request = submit(BlockOperation::write, sector, 8, fill);
      if (device->snapshot().paths[path].in_flight != before) {
        EXPECT_TRUE(
            run_until([&] { return proxies[path]->stalled(Way::to_target) >= kBhsBytes + 4096; }));
        return request;
      }
      EXPECT_EQ(answer(request), IoStatus::ok);
    }
  }

  milliseconds path_timeout{1000};  // bounds only how long the tests take
  TgtProcess tgt;
  std::vector<std::unique_ptr<TcpProxy>> proxies;
  std::optional<SharedFencing> fencing;            // outlives sessions
  std::vector<std::unique_ptr<Session>> sessions;  // outlive device
  std::deque<Request> requests;
  std::unique_ptr<MultipathDevice> device;
  int removed = 0;
};

// A path that is silent stays so, however slow the machine is.
class SilentTarget : public FailoverTarget {
 protected:
  SilentTarget() { path_timeout = std::chrono::duration_cast<milliseconds>(kDeadline); }
};

TEST_F(FailoverTarget, AStaleWriteThatIsReleasedAfterAFailoverDoesNoHarm) {
  for (int round = 1; round <= 3; ++round) {
    proxies[0]->stall(Way::to_target);
    Request& stale = write_stalled_at(0, 512, round);
    EXPECT_EQ(answer(stale), IoStatus::ok) << "by the other path";
    Request& newer = submit(BlockOperation::write, 512, 8, round + 100);
    EXPECT_EQ(answer(newer), IoStatus::ok);
    proxies[0]->release();
    ASSERT_TRUE(run_until([this] { return device->snapshot().paths_up() == kPaths; }));
    ASSERT_TRUE(run_until([this] { return proxies[0]->open() == 1; })) << "the old one has ended";
    for (int look = 0; look < 10; ++look) {
      expect_contents(512, 8, round + 100);
    }
  }
}

TEST_F(FailoverTarget, PathsAreRemovedAndAddedUnderLoad) {
  for (int round = 1; round <= 10; ++round) {
    const std::size_t at = static_cast<std::size_t>(round) % kPaths;
    std::vector<Request*> asked;
    for (std::uint64_t i = 0; i < 16; ++i) {
      asked.push_back(&submit(BlockOperation::write, i * 64, 64, round));
      asked.push_back(&submit(BlockOperation::read, 1024 + i * 8, 8));
    }
    const std::uint64_t losses = sessions[at]->statistics().connection_losses;
    ASSERT_TRUE(device->remove_path(*sessions[at], TgtProcess::kLun));
    for (const Request* request : asked) {
      EXPECT_EQ(answer(*request), IoStatus::ok);
    }
    ASSERT_TRUE(run_until([&] { return removed == round; }));
    EXPECT_EQ(sessions[at]->statistics().connection_losses, losses) << "nothing was dropped";
    bool stopped = false;
    sessions[at]->stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
    ASSERT_TRUE(run_until([&] { return stopped; }));
    expect_contents(0, 128, round);
    sessions[at]->start();
    ASSERT_TRUE(device->add_path(*sessions[at], TgtProcess::kLun));
    ASSERT_TRUE(run_until([this] { return device->snapshot().paths_up() == kPaths; }));
  }
}

TEST_F(FailoverTarget, AStaleWriteOfAPathThatWasRemovedDoesNoHarm) {
  proxies[0]->stall(Way::to_target);
  Request& stale = write_stalled_at(0, 512, 1);
  ASSERT_TRUE(device->remove_path(*sessions[0], TgtProcess::kLun));
  EXPECT_EQ(answer(stale), IoStatus::ok) << "by the other path, when this one was given up";
  Request& newer = submit(BlockOperation::write, 512, 8, 2);
  EXPECT_EQ(answer(newer), IoStatus::ok);
  ASSERT_TRUE(run_until([this] { return removed == 1; })) << "after the fence";
  EXPECT_TRUE(device->snapshot().paths.size() == 1);
  proxies[0]->release();
  for (int look = 0; look < 10; ++look) {
    expect_contents(512, 8, 2);
  }
}

TEST_F(SilentTarget, ReadsDoNotWaitForAStalledPath) {
  ASSERT_EQ(answer(submit(BlockOperation::write, 0, 128, 7)), IoStatus::ok);
  proxies[0]->stall(Way::to_initiator);
  std::vector<Request*> reads;
  for (std::uint64_t i = 0; i < 16; ++i) {
    reads.push_back(&submit(BlockOperation::read, i * 8, 8));
  }
  ASSERT_TRUE(run_until([&] { return device->snapshot().hedged != 0; }));
  for (const Request* read : reads) {
    EXPECT_EQ(answer(*read), IoStatus::ok);
    EXPECT_EQ(read->data, std::vector<std::byte>(read->data.size(), std::byte{7}));
  }
  EXPECT_NE(device->snapshot().in_flight, 0U) << "the stalled path still has its half of them";
  // What arrives now is for nobody.
  for (Request* read : reads) {
    std::fill(read->data.begin(), read->data.end(), std::byte{9});
  }
  proxies[0]->release();
  ASSERT_TRUE(run_until([this] { return device->snapshot().in_flight == 0; }));
  for (const Request* read : reads) {
    EXPECT_EQ(read->data, std::vector<std::byte>(read->data.size(), std::byte{9}));
  }
}

}  // namespace
}  // namespace iscsi_blkback
