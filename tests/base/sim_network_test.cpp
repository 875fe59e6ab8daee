// The simulated network's faults: tests elsewhere rely on each of them.
#include "tests/support/sim_network.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>

#include "tests/support/sim_stream.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using Bytes = std::vector<std::byte>;

// Either end: sends what it is told to and reads all the time.
struct End final : ByteStream::Owner {
  void on_connected() noexcept override {
    connected = true;
    receive();
  }
  void on_sent() noexcept override { ++sent; }
  void on_received(std::size_t count) noexcept override {
    chunks.push_back(count);
    received.insert(received.end(), buffer.begin(),
                    buffer.begin() + static_cast<std::ptrdiff_t>(count));
    if (reading) {
      receive();
    }
  }
  void on_closed(const Error& error) noexcept override { closed = error; }

  void receive() {
    const iovec part{buffer.data(), buffer.size()};
    stream->receive({&part, 1});
  }
  void send(Bytes bytes) {
    sending = std::move(bytes);
    const iovec part{sending.data(), sending.size()};
    stream->send({&part, 1});
  }
  [[nodiscard]] bool closed_with(const char* text) const {
    return closed && closed->message.find(text) != std::string::npos;
  }

  std::unique_ptr<ByteStream> stream;
  std::array<std::byte, 65536> buffer{};
  Bytes sending;
  bool reading = true;
  bool connected = false;
  int sent = 0;
  std::vector<std::size_t> chunks;
  Bytes received;
  std::optional<Error> closed;
};

class SimNetworkTest : public testing::TestWithParam<std::uint64_t>, public SimListener::Owner {
 protected:
  ~SimNetworkTest() override {
    if (client.stream != nullptr && !client.closed) {
      client.stream->reset();
      EXPECT_TRUE(reactor.run_until([&] { return client.closed.has_value(); }));
    }
  }

  void on_accept(std::unique_ptr<SimStream> stream) noexcept override {
    stream->set_owner(server);
    server.stream = std::move(stream);
    server.connected = true;
    server.receive();
  }
  void start_connecting() {
    client.stream = reactor.connect(
        {.address = address, .interface_binding = {}, .tcp_user_timeout = 10s}, client);
  }
  void connect() {
    start_connecting();
    ASSERT_TRUE(reactor.run_until([&] { return client.connected; }));
  }
  SimNetwork& network() { return reactor.network(); }
  SimStream& server_stream() { return static_cast<SimStream&>(*server.stream); }

  static Bytes pattern(std::size_t count) {
    Bytes bytes(count);
    for (std::size_t i = 0; i < count; ++i) {
      bytes[i] = static_cast<std::byte>(i * 7 >> 3 & 0xff);
    }
    return bytes;
  }

  SimReactor reactor{GetParam()};
  SocketAddress address = SocketAddress::parse("192.0.2.1", 3260).value();
  End client;
  End server;
  std::unique_ptr<SimListener> listener = network().listen(address, *this);
};

TEST_P(SimNetworkTest, ConnectingTakesARoundTrip) {
  network().set_latency(address, 3ms);
  const TimePoint start = reactor.now();
  connect();
  EXPECT_EQ(reactor.now() - start, 6ms);
  EXPECT_EQ(network().open_connections(address), 1U);
}

TEST_P(SimNetworkTest, RefusesWithoutListenerAndWhenTold) {
  network().set_refusing(address, true);
  start_connecting();
  reactor.run_until_idle();
  EXPECT_TRUE(client.closed_with("Connection refused"));
  EXPECT_FALSE(server.connected);
  client = End();
  network().set_refusing(address, false);
  listener.reset();
  start_connecting();
  reactor.run_until_idle();
  EXPECT_TRUE(client.closed_with("Connection refused"));
  client = End();
  listener = network().listen(address, *this);
  connect();
}

TEST_P(SimNetworkTest, SplitsAtMostSoManyBytes) {
  network().set_split(address, SimDirection::to_server, 10);
  connect();
  const Bytes bytes = pattern(1000);
  client.send(bytes);
  reactor.run_until_idle();
  EXPECT_EQ(server.received, bytes);
  EXPECT_LE(*std::max_element(server.chunks.begin(), server.chunks.end()), 10U);
  EXPECT_GT(server.chunks.size(), 110U);
}

TEST_P(SimNetworkTest, SplitsAtTheGivenOffsets) {
  network().set_boundaries(address, SimDirection::to_client, {1, 48, 100});
  connect();
  server.send(pattern(150));
  reactor.run_until_idle();
  EXPECT_EQ(client.chunks, (std::vector<std::size_t>{1, 47, 52, 50}));
}

TEST_P(SimNetworkTest, ASendWaitsForAPeerThatDoesNotRead) {
  network().set_buffers(address, 1000, 500);
  server.reading = false;
  connect();
  const Bytes bytes = pattern(70'000);
  client.send(bytes);
  reactor.run_for(1s);
  EXPECT_EQ(client.sent, 0);
  server.reading = true;
  server.receive();
  EXPECT_TRUE(reactor.run_until([&] { return server.received.size() == bytes.size(); }, 5s));
  EXPECT_EQ(client.sent, 1);
  EXPECT_EQ(server.received, bytes);
}

TEST_P(SimNetworkTest, ResetConnectionsEndsBothEnds) {
  connect();
  network().reset_connections(address);
  reactor.run_until_idle();
  EXPECT_TRUE(client.closed_with("reset by peer"));
  EXPECT_TRUE(server.closed_with("reset by peer"));
  EXPECT_EQ(network().open_connections(address), 0U);
}

TEST_P(SimNetworkTest, ADropDelaysWhatBothEndsSurvive) {
  connect();
  network().set_dropping(address, true);
  const Bytes bytes = pattern(1000);
  client.send(bytes);
  reactor.run_for(9s);
  EXPECT_EQ(client.sent, 1);  // the send buffer has it
  EXPECT_TRUE(server.received.empty());
  EXPECT_FALSE(client.closed);
  network().set_dropping(address, false);
  reactor.run_for(1s);
  EXPECT_EQ(server.received, bytes);
  reactor.run_for(20s);
  EXPECT_FALSE(client.closed);
}

TEST_P(SimNetworkTest, UserTimeoutEndsAConnectionThatIsNotAcknowledged) {
  for (const SimDirection direction : {SimDirection::to_server, SimDirection::to_client}) {
    client = End();
    server = End();
    connect();
    network().set_dropping(address, direction, true);
    const Bytes bytes = pattern(1000);
    client.send(bytes);
    const TimePoint start = reactor.now();
    ASSERT_TRUE(reactor.run_until([&] { return client.closed.has_value(); }, 1min));
    EXPECT_TRUE(client.closed_with("timed out"));
    EXPECT_GE(reactor.now() - start, 10s);
    EXPECT_LT(reactor.now() - start, 11s);
    // The bytes are lost, or arrived without the client knowing.
    EXPECT_EQ(server.received.empty(), direction == SimDirection::to_server);
    network().set_dropping(address, direction, false);
    reactor.run_for(1s);
    EXPECT_EQ(server.received.empty(), direction == SimDirection::to_server);
    EXPECT_FALSE(server.closed);  // it has not heard of it
    server.send(bytes);
    reactor.run_for(1s);
    EXPECT_TRUE(server.closed_with("reset by peer"));
  }
}

TEST_P(SimNetworkTest, AnIdleConnectionDoesNotNoticeADrop) {
  connect();
  network().set_dropping(address, true);
  reactor.run_for(1h);
  EXPECT_FALSE(client.closed);
  EXPECT_FALSE(server.closed);
}

TEST_P(SimNetworkTest, ConnectingThroughADropTimesOutOrGoesOn) {
  network().set_dropping(address, true);
  start_connecting();
  reactor.run_for(9s);
  EXPECT_FALSE(client.closed);
  network().set_dropping(address, false);
  reactor.run_for(1s);
  EXPECT_TRUE(client.connected);
  client.stream->reset();
  reactor.run_for(1s);
  client = End();
  network().set_dropping(address, true);
  start_connecting();
  reactor.run_for(11s);
  EXPECT_TRUE(client.closed_with("timed out"));
}

TEST_P(SimNetworkTest, AResetThroughADropIsLost) {
  connect();
  network().set_dropping(address, true);
  client.send(pattern(1000));
  reactor.run_for(1ms);
  client.stream->reset();
  reactor.run_for(1s);
  EXPECT_TRUE(client.closed);
  network().set_dropping(address, false);
  reactor.run_for(1h);
  EXPECT_TRUE(server.received.empty());
  EXPECT_FALSE(server.closed);
}

TEST_P(SimNetworkTest, HeldBytesArriveAfterTheResetThatFollowedThem) {
  network().set_reset_policy(address, SimResetPolicy::everything);
  connect();
  network().set_held(address, SimDirection::to_server, true);
  const Bytes bytes = pattern(1000);
  client.send(bytes);
  reactor.run_for(1ms);
  client.stream->reset();
  reactor.run_for(1s);
  EXPECT_TRUE(client.closed);
  EXPECT_TRUE(server.received.empty());
  network().set_held(address, SimDirection::to_server, false);
  reactor.run_until_idle();
  EXPECT_EQ(server.received, bytes);
  EXPECT_TRUE(server.closed_with("reset by peer"));
}

TEST_P(SimNetworkTest, AResetLetsAPrefixArrive) {
  network().set_latency(address, 1ms);
  connect();
  const Bytes bytes = pattern(10'000);
  client.send(bytes);
  reactor.run_for(500us);
  client.stream->reset();
  reactor.run_until_idle();
  ASSERT_LE(server.received.size(), bytes.size());
  EXPECT_TRUE(std::equal(server.received.begin(), server.received.end(), bytes.begin()));
  EXPECT_TRUE(server.closed_with("reset by peer"));
}

TEST_P(SimNetworkTest, AServersEndMayBeDeleted) {
  connect();
  server.stream.reset();
  reactor.run_until_idle();
  EXPECT_TRUE(client.closed_with("reset by peer"));
}

TEST_P(SimNetworkTest, FinishDeliversEverythingFirst) {
  connect();
  const Bytes bytes = pattern(5000);
  server.send(bytes);
  ASSERT_TRUE(reactor.run_until([&] { return server.sent == 1; }));
  server_stream().finish();
  reactor.run_until_idle();
  EXPECT_EQ(client.received, bytes);
  EXPECT_TRUE(client.closed_with("end of stream"));
  EXPECT_TRUE(server.closed_with("closed by this side"));
}

// A run's trace: when and in which pieces bytes arrived.
std::vector<std::int64_t> trace_of(std::uint64_t seed) {
  struct Acceptor final : SimListener::Owner {
    void on_accept(std::unique_ptr<SimStream> stream) noexcept override {
      stream->set_owner(end);
      end.stream = std::move(stream);
      end.receive();
    }
    End end;
  };
  SimReactor reactor(seed);
  const SocketAddress address = SocketAddress::parse("192.0.2.1", 3260).value();
  reactor.network().set_latency(address, 100us, 50us);
  reactor.network().set_split(address, SimDirection::to_server, 100);
  Acceptor acceptor;
  End client;
  const auto listener = reactor.network().listen(address, acceptor);
  client.stream = reactor.connect(
      {.address = address, .interface_binding = {}, .tcp_user_timeout = 10s}, client);
  reactor.run_until_idle();
  const Bytes bytes(5000);
  client.send(bytes);
  reactor.run_until_idle();
  client.stream->reset();
  reactor.run_until_idle();
  std::vector<std::int64_t> trace = {reactor.now().time_since_epoch().count()};
  trace.insert(trace.end(), acceptor.end.chunks.begin(), acceptor.end.chunks.end());
  return trace;
}

TEST(SimReactor, TheSameSeedGivesTheSameRun) {
  EXPECT_EQ(trace_of(1), trace_of(1));
  EXPECT_NE(trace_of(1), trace_of(2));
}

TEST(SimReactor, TimeJumpsAndStopsWhereItShould) {
  SimReactor reactor(1);
  const TimePoint start = reactor.now();
  int fired = 0;
  Timer timer(
      reactor, [](void* counter) noexcept { ++*static_cast<int*>(counter); }, &fired);
  timer.start_after(10min);
  reactor.run_until_idle();
  EXPECT_EQ(fired, 0);  // a timer alone does not keep it going
  EXPECT_EQ(reactor.now(), start);
  reactor.run_for(9min);
  EXPECT_EQ(fired, 0);
  EXPECT_EQ(reactor.now(), start + 9min);
  EXPECT_TRUE(reactor.run_until([&] { return fired == 1; }));
  EXPECT_EQ(reactor.now(), start + 10min);
  EXPECT_FALSE(reactor.run_until([] { return false; }, 5s));
  EXPECT_EQ(reactor.now(), start + 10min + 5s);
}

TEST(SimReactor, OrdersSimultaneousEventsByTheSeed) {
  std::vector<std::vector<int>> orders;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SimReactor reactor(seed);
    std::vector<int> order;
    for (int i = 0; i < 4; ++i) {
      reactor.schedule(1ms, [&order, i] { order.push_back(i); });
    }
    reactor.run_until_idle();
    EXPECT_EQ(order.size(), 4U);
    orders.push_back(order);
  }
  std::sort(orders.begin(), orders.end());
  orders.erase(std::unique(orders.begin(), orders.end()), orders.end());
  EXPECT_GT(orders.size(), 5U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimNetworkTest, testing::Range<std::uint64_t>(1, 21));

}  // namespace
}  // namespace iscsi_blkback
