// What every ByteStream does, the real one and the simulated one.
#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "base/byte_stream.h"
#include "tests/base/contract_world.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

Bytes pattern(std::size_t count, std::uint64_t seed = 1) {
  SimRandom random(seed);
  Bytes bytes(count);
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(random.next() & 0xff);
  }
  return bytes;
}

// Our end: records what comes and sees to it that nothing comes from inside a call.
class Client final : public ByteStream::Owner {
 public:
  Client(ContractWorld& world, const SocketAddress& address, std::string interface_name = {})
      : world_(world) {
    ConnectOptions options;
    options.address = address;
    options.interface_binding.name = std::move(interface_name);
    call([&] { stream = world.reactor().connect(options, *this); });
  }

  void send(const std::vector<Bytes*>& parts) {
    call([&] { stream->send(vectors(parts)); });
  }
  void receive(const std::vector<Bytes*>& parts) {
    call([&] { stream->receive(vectors(parts)); });
  }
  void set_low_water(std::size_t bytes) {
    call([&] { stream->set_low_water(bytes); });
  }
  void reset() {
    call([&] { stream->reset(); });
  }
  [[nodiscard]] bool connect() {
    return world_.run_until([&] { return connected || closed; }) && connected;
  }
  [[nodiscard]] bool wait_closed() {
    return world_.run_until([&] { return closed.has_value(); });
  }

  void on_connected() noexcept override {
    check();
    EXPECT_FALSE(connected);
    connected = true;
  }
  void on_sent() noexcept override {
    check();
    ++sent;
  }
  void on_received(std::size_t count) noexcept override {
    check();
    EXPECT_GT(count, 0U);
    received.push_back(count);
    if (then_received) {
      then_received(count);
    }
  }
  void on_closed(const Error& error) noexcept override {
    check();
    closed = error;
    if (then_closed) {
      then_closed();
    }
  }

  std::unique_ptr<ByteStream> stream;
  bool connected = false;
  int sent = 0;
  std::vector<std::size_t> received;  // what each on_received said
  std::optional<Error> closed;
  std::function<void(std::size_t)> then_received;
  std::function<void()> then_closed;

 private:
  static std::vector<iovec> vectors(const std::vector<Bytes*>& parts) {
    std::vector<iovec> result;
    for (Bytes* part : parts) {
      result.push_back({part->data(), part->size()});
    }
    return result;
  }
  template <class Call>
  void call(Call&& make) {
    const bool outer = std::exchange(in_call_, true);
    make();
    in_call_ = outer;
  }
  void check() const {
    EXPECT_FALSE(in_call_);
    EXPECT_FALSE(closed) << "on_closed was not the last callback";
  }

  ContractWorld& world_;
  bool in_call_ = false;
};

class ByteStreamContract : public testing::TestWithParam<ContractWorldKind> {
 protected:
  // A connected client, or none (and the test has failed).
  std::unique_ptr<Client> connected_client() {
    auto client = std::make_unique<Client>(*world, peer->address());
    EXPECT_TRUE(client->connect());
    EXPECT_TRUE(world->run_until([&] { return peer->accepted(); }));
    return client;
  }
  void close(Client& client) {
    client.reset();
    EXPECT_TRUE(client.wait_closed());
  }
  [[nodiscard]] bool run_until(const std::function<bool()>& predicate) {
    return world->run_until(predicate);
  }

  std::unique_ptr<ContractWorld> world = GetParam().make();
  std::unique_ptr<ContractPeer> peer = world->make_peer();
};

TEST_P(ByteStreamContract, SendsAllPartsInOrder) {
  auto client = connected_client();
  peer->set_reading(true);
  Bytes first = pattern(48, 1), empty, second = pattern(4096, 2), third = pattern(3, 3);
  client->send({&first, &empty, &second, &third});
  Bytes expected = first;
  expected.insert(expected.end(), second.begin(), second.end());
  expected.insert(expected.end(), third.begin(), third.end());
  ASSERT_TRUE(
      run_until([&] { return client->sent == 1 && peer->received().size() == expected.size(); }));
  EXPECT_EQ(peer->received(), expected);
  client->send({&first});
  ASSERT_TRUE(run_until([&] {
    return client->sent == 2 && peer->received().size() == expected.size() + first.size();
  }));
  close(*client);
}

TEST_P(ByteStreamContract, SendsAsManyPartsAsAllowed) {
  auto client = connected_client();
  peer->set_reading(true);
  std::vector<Bytes> storage;
  std::vector<Bytes*> parts;
  Bytes expected;
  storage.reserve(ByteStream::kMaxParts);
  for (std::size_t i = 0; i < ByteStream::kMaxParts; ++i) {
    storage.push_back(pattern(i + 1, i));
    expected.insert(expected.end(), storage.back().begin(), storage.back().end());
    parts.push_back(&storage.back());
  }
  client->send(parts);
  ASSERT_TRUE(run_until([&] { return peer->received().size() == expected.size(); }));
  EXPECT_EQ(peer->received(), expected);
  close(*client);
}

TEST_P(ByteStreamContract, ASendIsDoneOnlyWhenTheKernelHasAllOfIt) {
  auto client = connected_client();
  Bytes big = pattern(world->more_than_buffered_bytes());
  client->send({&big});
  world->settle();
  EXPECT_EQ(client->sent, 0);
  peer->set_reading(true);
  ASSERT_TRUE(
      run_until([&] { return client->sent == 1 && peer->received().size() == big.size(); }));
  EXPECT_TRUE(peer->received() == big);
  close(*client);
}

TEST_P(ByteStreamContract, SendsGoOnWhereAFullBufferStoppedThem) {
  auto client = connected_client();
  Bytes expected;
  Bytes chunk;
  int begun = 0;
  while (client->sent == begun) {
    ASSERT_LT(expected.size(), 2 * world->more_than_buffered_bytes());
    chunk = pattern(100001, static_cast<std::uint64_t>(begun));
    expected.insert(expected.end(), chunk.begin(), chunk.end());
    client->send({&chunk});
    ++begun;
    world->settle();
  }
  EXPECT_EQ(client->sent, begun - 1);
  peer->set_reading(true);
  ASSERT_TRUE(run_until(
      [&] { return client->sent == begun && peer->received().size() == expected.size(); }));
  EXPECT_TRUE(peer->received() == expected);
  close(*client);
}

TEST_P(ByteStreamContract, ReceivesIntoThePartsInOrder) {
  auto client = connected_client();
  const Bytes sent = pattern(1000);
  Bytes all, head(10), body(300);
  client->then_received = [&](std::size_t count) {
    const std::size_t from_head = std::min(count, head.size());
    all.insert(all.end(), head.begin(), head.begin() + static_cast<std::ptrdiff_t>(from_head));
    all.insert(all.end(), body.begin(),
               body.begin() + static_cast<std::ptrdiff_t>(count - from_head));
    if (all.size() < sent.size()) {
      client->receive({&head, &body});
    }
  };
  client->receive({&head, &body});
  world->settle();
  EXPECT_EQ(client->received.size(), 0U);
  peer->send(sent);
  ASSERT_TRUE(run_until([&] { return all.size() == sent.size(); }));
  EXPECT_EQ(all, sent);
  EXPECT_GT(client->received.size(), 3U);  // 310 bytes at a time at most
  close(*client);
}

TEST_P(ByteStreamContract, AReceiveWaitsForTheLowWaterMark) {
  auto client = connected_client();
  const Bytes sent = pattern(3000);
  Bytes room(4000);
  client->set_low_water(sent.size());
  client->receive({&room});
  peer->send(Bytes(sent.begin(), sent.end() - 1));
  world->settle();
  EXPECT_EQ(client->received.size(), 0U);
  peer->send({sent.back()});
  EXPECT_TRUE(run_until([&] { return !client->received.empty(); }));
  close(*client);
}

TEST_P(ByteStreamContract, ALowerMarkEndsTheWaitOfAReceive) {
  auto client = connected_client();
  Bytes room(4000);
  client->set_low_water(3000);
  client->receive({&room});
  peer->send(pattern(100));
  world->settle();
  EXPECT_EQ(client->received.size(), 0U);
  client->set_low_water(1);
  EXPECT_TRUE(run_until([&] { return !client->received.empty(); }));
  close(*client);
}

TEST_P(ByteStreamContract, BelowTheMarkTheEndOfTheStreamEndsTheWait) {
  auto client = connected_client();
  Bytes room(4000);
  std::size_t count = 0;
  client->then_received = [&](std::size_t more) {
    count += more;
    client->receive({&room});
  };
  client->set_low_water(3000);
  client->receive({&room});
  peer->send(pattern(100));
  peer->finish();
  EXPECT_TRUE(client->wait_closed());
  EXPECT_EQ(count, 100U);
}

TEST_P(ByteStreamContract, SendsWhileAReceiveIsOutstanding) {
  auto client = connected_client();
  peer->set_reading(true);
  Bytes in(100), out = pattern(100);
  client->receive({&in});
  client->send({&out});
  ASSERT_TRUE(run_until([&] { return peer->received().size() == out.size(); }));
  EXPECT_TRUE(client->received.empty());
  peer->send(out);
  ASSERT_TRUE(run_until([&] { return client->received.size() == 1; }));
  close(*client);
}

// Its program sleeps, its kernel does not.
TEST_P(ByteStreamContract, APeerThatReadsNothingIsNotSilentAsLongAsItsKernelAnswers) {
  auto client = connected_client();
  Bytes data = pattern(100, 1);
  client->send({&data});
  ASSERT_TRUE(run_until([&] { return client->sent == 1; }));
  static_cast<void>(client->stream->peer_silence());
  bool over = false;
  Timer timer(
      world->reactor(), [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &over);
  timer.start_after(std::chrono::seconds(4));
  ASSERT_TRUE(run_until([&] { return over; }));
  EXPECT_LT(client->stream->peer_silence(), std::chrono::seconds(3));
  close(*client);
  EXPECT_EQ(client->stream->peer_silence(), Duration::zero());
}

TEST_P(ByteStreamContract, ARefusedConnectionIsReported) {
  Client client(*world, world->refusing_address());
  ASSERT_TRUE(client.wait_closed());
  EXPECT_FALSE(client.connected);
  EXPECT_EQ(client.closed->code, ErrorCode::unavailable);
  EXPECT_NE(client.closed->message.find("Connection refused"), std::string::npos)
      << client.closed->message;
}

TEST_P(ByteStreamContract, TheEndOfTheStreamComesAfterItsLastByte) {
  auto client = connected_client();
  const Bytes sent = pattern(1000);
  peer->send(sent);
  peer->finish();
  Bytes in(300);
  std::size_t count = 0;
  client->then_received = [&](std::size_t more) {
    count += more;
    client->receive({&in});
  };
  client->receive({&in});
  ASSERT_TRUE(client->wait_closed());
  EXPECT_EQ(count, sent.size());
  EXPECT_NE(client->closed->message.find("end of stream"), std::string::npos)
      << client->closed->message;
}

TEST_P(ByteStreamContract, AResetByThePeerEndsAReceive) {
  auto client = connected_client();
  Bytes in(300);
  client->receive({&in});
  world->settle();
  peer->reset();
  ASSERT_TRUE(client->wait_closed());
  EXPECT_NE(client->closed->message.find("reset by peer"), std::string::npos)
      << client->closed->message;
  EXPECT_TRUE(client->received.empty());
}

TEST_P(ByteStreamContract, AResetByThePeerEndsASend) {
  auto client = connected_client();
  Bytes big = pattern(world->more_than_buffered_bytes());
  client->send({&big});
  world->settle();
  peer->reset();
  ASSERT_TRUE(client->wait_closed());
  EXPECT_EQ(client->sent, 0);
}

TEST_P(ByteStreamContract, AnIdleStreamLearnsOfTheResetWithItsNextCall) {
  auto client = connected_client();
  peer->reset();
  world->settle();
  EXPECT_FALSE(client->closed);
  Bytes out = pattern(10);
  client->send({&out});
  ASSERT_TRUE(client->wait_closed());
  EXPECT_EQ(client->sent, 0);
}

TEST_P(ByteStreamContract, ResetIsSeenByThePeerAsReset) {
  auto client = connected_client();
  peer->set_reading(true);
  client->reset();
  EXPECT_FALSE(client->closed);
  ASSERT_TRUE(client->wait_closed());
  EXPECT_NE(client->closed->message.find("reset by this side"), std::string::npos);
  ASSERT_TRUE(run_until([&] { return peer->end() != ContractPeer::End::none; }));
  EXPECT_EQ(peer->end(), ContractPeer::End::reset);
}

TEST_P(ByteStreamContract, ResetMayBeCalledMoreThanOnce) {
  auto client = connected_client();
  Bytes in(10);
  client->receive({&in});
  client->reset();
  client->reset();
  ASSERT_TRUE(client->wait_closed());
  client->reset();
  world->settle();  // check(): no second on_closed
}

TEST_P(ByteStreamContract, ResetWhileConnecting) {
  Client silent(*world, world->silent_address());
  world->settle();
  EXPECT_FALSE(silent.connected);
  silent.reset();
  ASSERT_TRUE(silent.wait_closed());
  EXPECT_FALSE(silent.connected);

  Client at_once(*world, peer->address());
  at_once.reset();
  ASSERT_TRUE(at_once.wait_closed());
  EXPECT_FALSE(at_once.connected);
}

TEST_P(ByteStreamContract, AfterOnClosedTheBuffersAreTheCallersAgain) {
  auto client = connected_client();
  auto big = std::make_unique<Bytes>(pattern(world->more_than_buffered_bytes()));
  const Bytes sent = *big;
  auto in = std::make_unique<Bytes>(4096);
  client->send({big.get()});
  client->receive({in.get()});
  world->settle();
  client->then_closed = [&] {
    // Whoever still read or wrote these would be found out by the peer, or by AddressSanitizer.
    std::fill(big->begin(), big->end(), std::byte{0xee});
    big.reset();
    in.reset();
    client->stream.reset();
  };
  client->reset();
  ASSERT_TRUE(client->wait_closed());
  peer->set_reading(true);
  ASSERT_TRUE(run_until([&] { return peer->end() != ContractPeer::End::none; }));
  EXPECT_EQ(peer->end(), ContractPeer::End::reset);
  const Bytes& arrived = peer->received();
  ASSERT_LT(arrived.size(), sent.size());
  EXPECT_TRUE(std::equal(arrived.begin(), arrived.end(), sent.begin()));
}

TEST_P(ByteStreamContract, ResetFromACallback) {
  auto client = connected_client();
  Bytes in(10), out = pattern(10);
  client->then_received = [&](std::size_t) {
    client->send({&out});
    client->receive({&in});
    client->reset();
    EXPECT_FALSE(client->closed);
  };
  client->receive({&in});
  peer->send(pattern(100));
  ASSERT_TRUE(client->wait_closed());
  EXPECT_EQ(client->received.size(), 1U);
  EXPECT_EQ(client->sent, 0);
}

TEST_P(ByteStreamContract, CallsBetweenResetAndOnClosedDoNothing) {
  auto client = connected_client();
  peer->set_reading(true);
  Bytes in(10), out = pattern(10);
  client->reset();
  client->send({&out});
  client->receive({&in});
  ASSERT_TRUE(client->wait_closed());
  ASSERT_TRUE(run_until([&] { return peer->end() != ContractPeer::End::none; }));
  EXPECT_TRUE(peer->received().empty());
  EXPECT_EQ(client->sent, 0);
}

TEST_P(ByteStreamContract, ManyConnectionsOneAfterTheOther) {
  for (int i = 0; i < 20; ++i) {
    peer = world->make_peer();
    auto client = connected_client();
    Bytes in(10), out = pattern(1000, static_cast<std::uint64_t>(i));
    peer->set_reading(true);
    client->receive({&in});
    client->send({&out});
    if (i % 2 == 0) {
      ASSERT_TRUE(run_until([&] { return client->sent == 1; }));
    }
    client->then_closed = [&] { client->stream.reset(); };
    close(*client);
  }
}

TEST_P(ByteStreamContract, AStreamIsNotDeletedBeforeOnClosed) {
  testing::GTEST_FLAG(death_test_style) = "fast";
  auto client = connected_client();
  EXPECT_DEATH(client->stream.reset(), "assertion failed");
  client->reset();
  EXPECT_DEATH(client->stream.reset(), "assertion failed");
  ASSERT_TRUE(client->wait_closed());
  client->stream.reset();
}

TEST_P(ByteStreamContract, OnlyOneSendAndOneReceiveAtATime) {
  testing::GTEST_FLAG(death_test_style) = "fast";
  auto client = connected_client();
  Bytes bytes(10);
  client->receive({&bytes});
  client->send({&bytes});
  EXPECT_DEATH(client->receive({&bytes}), "assertion failed");
  EXPECT_DEATH(client->send({&bytes}), "assertion failed");
  close(*client);
}

INSTANTIATE_TEST_SUITE_P(All, ByteStreamContract, testing::ValuesIn(contract_worlds()),
                         [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace iscsi_blkback
