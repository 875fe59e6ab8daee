// An NbdServer in virtual time: right and wrong clients on the simulated network, whose receives are cut
// anywhere, over a disk in memory that fails as a test wants.
#include "blkback/nbd/nbd_server.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "tests/support/fake_nbd_client.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/memory_disk.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

Geometry small_disk() {
  Geometry geometry;
  geometry.sector_count = 65536;
  geometry.discard_granularity_bytes = 512;
  return geometry;
}

class NbdServerTest : public testing::TestWithParam<int>, private SimListener::Owner {
 protected:
  NbdServerTest() {
    reactor_.network().set_split(address_, SimDirection::to_server, 700);
    // As of unix sockets, of which the other end has what was sent.
    reactor_.network().set_reset_policy(address_, SimResetPolicy::everything);
    server_.emplace(reactor_, disk_, UniqueFd(), "xvda of guest 5", true);
  }
  ~NbdServerTest() override {
    clients_.clear();
    if (!closing_) {
      close();
    }
    disk_.set_plan({});
    disk_.release();
    EXPECT_TRUE(reactor_.run_until([&] { return closed_; }));
    server_.reset();
  }

  FakeNbdClient& connect() {
    return *clients_.emplace_back(std::make_unique<FakeNbdClient>(reactor_, address_));
  }
  FakeNbdClient& client() {
    FakeNbdClient& one = connect();
    EXPECT_TRUE(one.go());
    return one;
  }
  void close(NbdServer::End end = NbdServer::End::goes_on) {
    closing_ = true;
    server_->close(
        end, [](void* self) noexcept { static_cast<NbdServerTest*>(self)->closed_ = true; }, this);
  }
  // One command's answers are what the plan says; others pass.
  void plan(BlockOperation operation, FaultyDisk::Action action) {
    disk_.set_plan([operation, action](const BlockRequest& request, std::uint64_t) {
      return request.operation == operation ? action : FaultyDisk::Action{};
    });
  }
  static FaultyDisk::Action fails(IoStatus status) {
    return {FaultyDisk::Action::Kind::fail, status};
  }
  static FaultyDisk::Action holds() { return {FaultyDisk::Action::Kind::hold, IoStatus::ok}; }
  static NbdBytes pattern(std::size_t bytes, int seed = 1) {
    NbdBytes data(bytes);
    for (std::size_t at = 0; at < bytes; ++at) {
      data[at] = static_cast<std::byte>((at / 7 + static_cast<std::size_t>(seed)) & 0xff);
    }
    return data;
  }
  std::uint32_t error_of(FakeNbdClient& one, const NbdBytes& request) {
    one.send(request);
    const auto reply = one.take_reply();
    EXPECT_TRUE(reply);
    return reply ? reply->error : ~0U;
  }

  SimReactor reactor_{static_cast<std::uint64_t>(GetParam())};
  const SocketAddress address_ = SocketAddress::parse("192.0.2.1", 10809).value();
  MemoryDisk memory_{reactor_, small_disk()};
  FaultyDisk disk_{reactor_, memory_};
  std::optional<NbdServer> server_;
  std::unique_ptr<SimListener> listener_ = reactor_.network().listen(address_, *this);
  std::vector<std::unique_ptr<FakeNbdClient>> clients_;
  bool closing_ = false;
  bool closed_ = false;

 private:
  void on_accept(std::unique_ptr<SimStream> stream) noexcept override {
    (void)server_->accept([&](ByteStream::Owner& owner) {
      stream->set_owner(owner);
      return std::move(stream);
    });
  }
};

TEST_P(NbdServerTest, WhatWasWrittenIsRead) {
  FakeNbdClient& one = client();
  const NbdBytes data = pattern(100 * 512);
  EXPECT_EQ(error_of(one, nbd_request(1, 7, 4096, 51200, 0, data)), 0U);
  one.send(nbd_request(0, 0xabcdef0123456789, 4096, 51200));
  const auto reply = one.take_reply(51200);
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->handle, 0xabcdef0123456789U);
  EXPECT_EQ(reply->data, data);
  EXPECT_TRUE(std::equal(data.begin(), data.end(), memory_.contents().begin() + 4096));
}

TEST_P(NbdServerTest, ARequestMayBeAsLargeAsTold) {
  FakeNbdClient& one = client();
  const NbdBytes data = pattern(kMaxNbdRequestBytes);
  EXPECT_EQ(error_of(one, nbd_request(1, 7, 0, kMaxNbdRequestBytes, 0, data)), 0U);
  one.send(nbd_request(0, 8, 0, kMaxNbdRequestBytes));
  const auto reply = one.take_reply(kMaxNbdRequestBytes);
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->data, data);
}

// An operator has made the disk read-only meanwhile.
TEST_P(NbdServerTest, AClientThatIsThereIsRefusedWritesOfAReadOnlyDisk) {
  FakeNbdClient& one = client();
  const NbdBytes data = pattern(512);
  server_->set_read_only(true);
  EXPECT_EQ(error_of(one, nbd_request(1, 7, 0, 512, 0, data)), 1U);
  server_->set_read_only(false);
  EXPECT_EQ(error_of(one, nbd_request(1, 7, 0, 512, 0, data)), 0U);
}

TEST_P(NbdServerTest, ManyRequestsAtOnceAreAllAnswered) {
  memory_.set_delay([this] { return Duration(reactor_.schedule_random().below(1'000'000)); });
  FakeNbdClient& one = client();
  for (std::uint64_t handle = 0; handle < 50; ++handle) {
    one.send(nbd_request(1, handle, handle * 512, 512, 0, pattern(512, static_cast<int>(handle))));
  }
  std::vector<bool> answered(50);
  for (int i = 0; i < 50; ++i) {
    const auto reply = one.take_reply();
    ASSERT_TRUE(reply);
    ASSERT_LT(reply->handle, 50U);
    EXPECT_EQ(reply->error, 0U);
    EXPECT_FALSE(answered[reply->handle]);
    answered[reply->handle] = true;
  }
}

TEST_P(NbdServerTest, WhatOneClientHasUnderWayIsBounded) {
  FakeNbdClient& one = client();
  disk_.set_plan([](const BlockRequest&, std::uint64_t) { return holds(); });
  for (std::uint64_t handle = 0; handle < 50; ++handle) {
    one.send(nbd_request(0, handle, 0, 512));
  }
  reactor_.run_for(1s);
  EXPECT_EQ(disk_.held(), NbdConnection::kRequests);
}

// Nothing but an error or the whole of it: the next client's flush answers for all.
TEST_P(NbdServerTest, AWriteThatIsToBeOnTheMediumIsFlushedBeforeItIsAnswered) {
  FakeNbdClient& one = client();
  plan(BlockOperation::flush, holds());
  one.send(nbd_request(1, 7, 0, 512, 1, pattern(512)));
  reactor_.run_for(1s);
  EXPECT_EQ(disk_.held(), 1U);
  EXPECT_TRUE(one.received.empty());
  disk_.release();
  const auto reply = one.take_reply();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->error, 0U);
}

TEST_P(NbdServerTest, ADiscardThatIsToBeOnTheMediumIsFlushedToo) {
  FakeNbdClient& one = client();
  plan(BlockOperation::flush, fails(IoStatus::target_error));
  EXPECT_EQ(error_of(one, nbd_request(4, 7, 0, 512, 1)), 5U);
  EXPECT_EQ(error_of(one, nbd_request(4, 7, 0, 512, 0)), 0U);
}

TEST_P(NbdServerTest, AReadWithThatFlagIsNotFlushed) {
  FakeNbdClient& one = client();
  plan(BlockOperation::flush, fails(IoStatus::target_error));
  one.send(nbd_request(0, 7, 0, 512, 1));
  const auto reply = one.take_reply(512);
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->error, 0U);
}

TEST_P(NbdServerTest, AFailedFlushIsAnErrorAndTheNextIsTriedAnew) {
  FakeNbdClient& one = client();
  plan(BlockOperation::flush, fails(IoStatus::medium_error));
  EXPECT_EQ(error_of(one, nbd_request(3, 7, 0, 0)), 5U);
  EXPECT_EQ(error_of(one, nbd_request(1, 7, 0, 512, 1, pattern(512))), 5U);
  disk_.set_plan({});
  EXPECT_EQ(error_of(one, nbd_request(3, 7, 0, 0)), 0U);
}

TEST_P(NbdServerTest, AFailedReadHasNoData) {
  FakeNbdClient& one = client();
  plan(BlockOperation::read, fails(IoStatus::medium_error));
  one.send(nbd_request(0, 7, 0, 4096));
  one.send(nbd_request(3, 8, 0, 0));
  const auto read = one.take_reply(4096);
  const auto flush = one.take_reply();
  ASSERT_TRUE(read && flush);
  EXPECT_EQ(read->error + flush->error, 5U);
  EXPECT_EQ(read->handle + flush->handle, 15U);
}

TEST_P(NbdServerTest, AFullLunIsAnErrorOfTheDisk) {
  FakeNbdClient& one = client();
  plan(BlockOperation::write, fails(IoStatus::no_space));
  EXPECT_EQ(error_of(one, nbd_request(1, 7, 0, 512, 0, pattern(512))), 5U);
}

// The payload is read to its end, or it would be taken for requests.
TEST_P(NbdServerTest, ARefusedWriteIsAnsweredAndTheNextRequestIsFound) {
  FakeNbdClient& one = client();
  EXPECT_EQ(error_of(one, nbd_request(1, 7, 1, 512, 0, pattern(512))), 22U);
  EXPECT_EQ(error_of(one, nbd_request(1, 8, 0, kMaxNbdRequestBytes + 512, 0,
                                      pattern(kMaxNbdRequestBytes + 512))),
            22U);
  EXPECT_EQ(error_of(one, nbd_request(6, 9, 0, 512)), 22U);
  EXPECT_EQ(error_of(one, nbd_request(3, 10, 0, 0)), 0U);
  EXPECT_EQ(memory_.submitted(), 1U);
}

TEST_P(NbdServerTest, ADisconnectWaitsForTheAnswers) {
  memory_.set_delay([] { return Duration(5ms); });
  FakeNbdClient& one = client();
  one.send(nbd_request(1, 7, 0, 512, 0, pattern(512)));
  one.send(nbd_request(2, 8, 0, 0));
  const auto reply = one.take_reply();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->handle, 7U);
  EXPECT_TRUE(one.is_dropped());
  EXPECT_TRUE(reactor_.run_until([&] { return server_->connections() == 0; }, 1s));
}

TEST_P(NbdServerTest, AnAbortIsAnsweredAndTheEnd) {
  FakeNbdClient& one = connect();
  ASSERT_FALSE(one.take(18).empty());
  one.send(NbdWriter().u32(3).append(nbd_option(2)).bytes);
  EXPECT_FALSE(one.take(20).empty());
  EXPECT_TRUE(one.is_dropped());
}

TEST_P(NbdServerTest, RefusedOptionsAreFollowedByOthers) {
  FakeNbdClient& one = connect();
  ASSERT_FALSE(one.take(18).empty());
  one.send(NbdWriter().u32(3).append(nbd_option(8)).bytes);
  EXPECT_FALSE(one.take(20).empty());
  one.send(nbd_option(10, NbdBytes(300)));
  EXPECT_FALSE(one.take(20).empty());
  one.send(nbd_option(1));
  EXPECT_FALSE(one.take(10).empty());
  EXPECT_EQ(error_of(one, nbd_request(3, 7, 0, 0)), 0U);
}

// One that does not wait for the greeting.
TEST_P(NbdServerTest, AClientMaySpeakAtOnce) {
  FakeNbdClient& one = connect();
  one.send(NbdWriter().u32(3).append(nbd_option(7, nbd_go_data())).bytes);
  ASSERT_FALSE(one.take(18 + 86).empty());
  EXPECT_EQ(error_of(one, nbd_request(3, 7, 0, 0)), 0U);
}

TEST_P(NbdServerTest, WrongFlagsDropTheConnection) {
  FakeNbdClient& one = connect();
  one.send(NbdWriter().u32(7).bytes);
  EXPECT_TRUE(one.is_dropped());
}

TEST_P(NbdServerTest, WhatIsNoOptionDropsTheConnection) {
  FakeNbdClient& one = connect();
  one.send(NbdWriter().u32(3).text("GET / HTTP/1.1\r\n\r\n").bytes);
  EXPECT_TRUE(one.is_dropped());
}

TEST_P(NbdServerTest, WhatIsNoRequestDropsTheConnectionAndNoOther) {
  FakeNbdClient& other = client();
  FakeNbdClient& one = client();
  one.send(NbdBytes(28));
  EXPECT_TRUE(one.is_dropped());
  EXPECT_EQ(error_of(other, nbd_request(3, 7, 0, 0)), 0U);
}

TEST_P(NbdServerTest, ASilentClientIsDroppedBeforeItsFirstRequestAndNotAfterIt) {
  FakeNbdClient& good = client();
  FakeNbdClient& silent = connect();
  ASSERT_FALSE(silent.take(18).empty());
  reactor_.run_for(NbdConnection::kHandshakeTimeout + 1s);
  EXPECT_TRUE(silent.closed);
  reactor_.run_for(1h);
  EXPECT_EQ(error_of(good, nbd_request(3, 7, 0, 0)), 0U);
}

TEST_P(NbdServerTest, MoreClientsThanThereMayBeAreSentAway) {
  for (std::size_t i = 0; i < NbdServer::kMaxConnections; ++i) {
    (void)client();
  }
  FakeNbdClient& more = connect();
  EXPECT_TRUE(more.is_dropped());
  clients_.front()->leave();
  EXPECT_TRUE(
      reactor_.run_until([&] { return server_->connections() < NbdServer::kMaxConnections; }, 1s));
  EXPECT_EQ(error_of(client(), nbd_request(3, 7, 0, 0)), 0U);
}

TEST_P(NbdServerTest, AClientThatReadsNothingHoldsItsOwnRequestsOnly) {
  reactor_.network().set_buffers(address_, 16384, 16384);
  FakeNbdClient& deaf = client();
  deaf.stop_reading();
  for (std::uint64_t handle = 0; handle < 40; ++handle) {
    deaf.send(nbd_request(0, handle, 0, 65536));
  }
  FakeNbdClient& other = client();
  reactor_.run_for(1s);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(error_of(other, nbd_request(1, 7, 0, 512, 0, pattern(512))), 0U);
  }
  EXPECT_LE(memory_.submitted(), 20U + NbdConnection::kRequests + 1);
}

// Its buffer is its own until the last byte is in the kernel.
TEST_P(NbdServerTest, AnAnswerOnItsWayIsNotOverwrittenByWhatComesAfterIt) {
  reactor_.network().set_buffers(address_, 16384, 16384);
  const NbdBytes data = pattern(kMaxNbdRequestBytes, 3);
  std::copy(data.begin(), data.end(), memory_.contents().begin());
  FakeNbdClient& one = client();
  one.send(nbd_request(0, 1, 0, kMaxNbdRequestBytes));
  for (std::uint64_t handle = 2; handle < 12; ++handle) {
    one.send(nbd_request(1, handle, 16 << 20, 65536, 0, NbdBytes(65536, std::byte{0xee})));
  }
  for (int i = 0; i < 11; ++i) {
    const NbdBytes head = one.take(16);
    ASSERT_FALSE(head.empty());
    EXPECT_EQ(load_be32(head.data() + 4), 0U);
    if (load_be64(head.data() + 8) == 1) {
      EXPECT_EQ(one.take(kMaxNbdRequestBytes), data);
    }
  }
}

// What a client has gone from goes on, in memory that stays.
TEST_P(NbdServerTest, AClientThatLeavesLeavesItsRequestsToTheDevice) {
  FakeNbdClient& one = client();
  plan(BlockOperation::write, holds());
  one.send(nbd_request(1, 7, 0, 512, 0, pattern(512)));
  ASSERT_TRUE(reactor_.run_until([&] { return disk_.held() == 1; }, 1s));
  one.leave();
  reactor_.run_for(1s);
  EXPECT_EQ(server_->connections(), 1U);
  disk_.release();
  EXPECT_TRUE(reactor_.run_until([&] { return server_->connections() == 0; }, 1s));
}

TEST_P(NbdServerTest, ADiskThatIsClosedAnswersNothingAndDropsItsClients) {
  FakeNbdClient& one = client();
  plan(BlockOperation::write, holds());
  one.send(nbd_request(1, 7, 0, 512, 0, pattern(512)));
  ASSERT_TRUE(reactor_.run_until([&] { return disk_.held() == 1; }, 1s));
  close();
  EXPECT_TRUE(one.is_dropped());
  reactor_.run_for(1s);
  EXPECT_FALSE(closed_);
  disk_.fail_held(IoStatus::aborted);
  EXPECT_TRUE(reactor_.run_until([&] { return closed_; }, 1s));
  EXPECT_TRUE(one.received.empty());
}

// QEMU would send it again, and again, to the same disk.
TEST_P(NbdServerTest, WhatAnOpenDiskGivesUpIsAnError) {
  FakeNbdClient& one = client();
  plan(BlockOperation::write, fails(IoStatus::aborted));
  EXPECT_EQ(error_of(one, nbd_request(1, 7, 0, 512, 0, pattern(512))), 5U);
}

TEST_P(NbdServerTest, AfterTheEndOfTheGuestAllIsAnErrorUntilTheClientLeaves) {
  FakeNbdClient& one = client();
  plan(BlockOperation::write, holds());
  one.send(nbd_request(1, 7, 0, 512, 0, pattern(512)));
  ASSERT_TRUE(reactor_.run_until([&] { return disk_.held() == 1; }, 1s));
  close(NbdServer::End::for_good);
  EXPECT_EQ(error_of(one, nbd_request(3, 8, 0, 0)), 5U);
  EXPECT_EQ(error_of(one, nbd_request(1, 9, 0, 512, 0, pattern(512))), 5U);
  disk_.fail_held(IoStatus::aborted);
  const auto held = one.take_reply();
  ASSERT_TRUE(held);
  EXPECT_EQ(held->handle, 7U);
  EXPECT_EQ(held->error, 5U);
  EXPECT_FALSE(closed_);
  one.send(nbd_request(2, 10, 0, 0));
  EXPECT_TRUE(reactor_.run_until([&] { return closed_; }, 1s));
  EXPECT_EQ(memory_.submitted(), 0U);
}

TEST_P(NbdServerTest, AClientThatStaysAfterTheEndOfTheGuestIsDropped) {
  FakeNbdClient& one = client();
  close(NbdServer::End::for_good);
  reactor_.run_for(NbdServer::kFarewell - 1s);
  EXPECT_FALSE(closed_);
  EXPECT_TRUE(reactor_.run_until([&] { return closed_; }, 2s));
  EXPECT_TRUE(one.is_dropped());
}

TEST_P(NbdServerTest, ADiscardThatTheTargetHasNotIsNotAnErrorOfTheDisk) {
  FakeNbdClient& one = client();
  plan(BlockOperation::discard, fails(IoStatus::not_supported));
  EXPECT_EQ(error_of(one, nbd_request(4, 7, 0, 512)), 95U);
}

TEST_P(NbdServerTest, AClientThatLeavesInTheMiddleOfAPayloadLeavesNothing) {
  FakeNbdClient& one = client();
  NbdBytes half = nbd_request(1, 7, 0, 4096, 0, pattern(2000));
  one.send(half);
  reactor_.run_for(1s);
  one.leave();
  EXPECT_TRUE(reactor_.run_until([&] { return server_->connections() == 0; }, 1s));
  EXPECT_EQ(memory_.submitted(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, NbdServerTest, testing::Range(1, 6));

}  // namespace
}  // namespace iscsi_blkback
