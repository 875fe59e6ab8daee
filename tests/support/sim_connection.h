// SimConnection: the wire between two SimStreams; SimLink: what is set for the address that it
// leads to. The inside of the simulated network, for sim_connection.cpp, sim_network.cpp and
// sim_stream.cpp only.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/sim_network.h"
#include "tests/support/sim_random.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/sim_stream.h"

namespace iscsi_blkback {

inline constexpr std::array kSimDirections = {SimDirection::to_server, SimDirection::to_client};

constexpr std::size_t index(SimDirection direction) {
  return static_cast<std::size_t>(direction);
}

constexpr SimDirection opposite(SimDirection direction) {
  return direction == SimDirection::to_server ? SimDirection::to_client : SimDirection::to_server;
}

// Bytes in order: added at the end, taken from the front.
class ByteQueue {
 public:
  [[nodiscard]] std::size_t size() const { return bytes_.size() - taken_; }
  [[nodiscard]] bool empty() const { return size() == 0; }
  void clear() {
    bytes_.clear();
    taken_ = 0;
  }
  void push(const std::byte* from, std::size_t count) {
    bytes_.insert(bytes_.end(), from, from + count);
  }
  void pop(std::byte* to, std::size_t count) {
    std::memcpy(to, bytes_.data() + taken_, count);
    taken_ += count;
    if (taken_ == bytes_.size()) {
      clear();
    } else if (taken_ >= kCompactBytes && taken_ >= bytes_.size() / 2) {
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(taken_));
      taken_ = 0;
    }
  }

 private:
  static constexpr std::size_t kCompactBytes = 4096;
  std::vector<std::byte> bytes_;
  std::size_t taken_ = 0;
};

// What is set for one listening address. Indices are SimDirections.
struct SimLink {
  std::string name;
  SimListener::Owner** listener = nullptr;  // of the address
  Duration latency = std::chrono::microseconds(50);
  Duration jitter{};
  std::size_t send_buffer_bytes = 256 * 1024;
  std::size_t receive_buffer_bytes = 256 * 1024;
  std::array<std::size_t, 2> split_max_bytes{};
  std::array<std::vector<std::uint64_t>, 2> boundaries;
  std::array<bool, 2> dropping{};
  std::array<bool, 2> held{};
  SimResetPolicy reset_policy = SimResetPolicy::random;
  TimePoint blocked_since{};  // while it does not pass both ways
  bool refusing = false;
  std::vector<std::weak_ptr<SimConnection>> connections;

  [[nodiscard]] bool passes(SimDirection direction) const {
    return !dropping[index(direction)] && !held[index(direction)];
  }
  [[nodiscard]] bool passes() const {
    return passes(SimDirection::to_server) && passes(SimDirection::to_client);
  }
};

// The wire between two ends. Everything here runs as an event of the reactor; the ends only
// schedule.
class SimConnection : public std::enable_shared_from_this<SimConnection> {
 public:
  SimConnection(SimReactor& reactor, SimLink& link, Duration user_timeout, std::uint64_t number)
      : reactor_(reactor), link_(link), user_timeout_(user_timeout), number_(number) {}

  [[nodiscard]] SimReactor& reactor() { return reactor_; }
  [[nodiscard]] const SimLink& link() const { return link_; }
  [[nodiscard]] std::uint64_t number() const { return number_; }  // unlike any other's
  // Since when the client has no end here any more: closed, failed or its process dead.
  [[nodiscard]] std::optional<TimePoint> client_gone_since() const { return client_gone_since_; }
  void note_client_gone() {
    if (!client_gone_since_) {
      client_gone_since_ = reactor_.now();
    }
  }
  void client_died();

  // The end that receives what travels in direction; null when it is closed for good.
  [[nodiscard]] SimStream*& receiver(SimDirection direction) { return ends_[index(direction)]; }
  [[nodiscard]] SimStream*& sender(SimDirection direction) { return receiver(opposite(direction)); }

  void start_connecting();
  // The end that sends in direction wants more to be done: now, but not from inside its call. By
  // that end's reactor.
  void schedule_send(SimDirection direction);
  void schedule_receive(SimDirection direction);
  void schedule_closed(SimDirection sends);
  void schedule_delivery(SimDirection direction, Duration delay);

  // Takes bytes of the operation as far as the send buffer has room.
  void take(SimDirection direction, SimStream::Operation& operation);
  // Hands out received bytes; returns how many (0: nothing there).
  std::size_t hand_out(SimDirection direction, SimStream::Operation& operation);
  [[nodiscard]] bool end_of_stream(SimDirection direction) const {
    return channel(direction).finished && channel(direction).received.empty();
  }
  // Less has arrived than the reader waits for, and more may come.
  [[nodiscard]] bool below(SimDirection direction, std::size_t low_water_bytes) const {
    const Channel& in = channel(direction);
    return in.received.size() < std::min(low_water_bytes, link_.receive_buffer_bytes) &&
           !in.finished;
  }
  void send_finish(SimDirection direction) { push(direction, Segment::Kind::finish, {}); }
  void send_reset(SimDirection direction);
  void forget_received(SimDirection direction) { channel(direction).received.clear(); }

  void fail_both(const Error& error);
  void resume(Duration at_most);

 private:
  struct Segment {
    enum class Kind : std::uint8_t { accepted, data, finish, reset };
    Kind kind;
    TimePoint arrives;
    std::vector<std::byte> bytes;
    std::size_t delivered = 0;  // of bytes; the rest waits for room

    [[nodiscard]] std::size_t left() const { return bytes.size() - delivered; }
  };
  struct Channel {
    std::deque<Segment> in_flight;  // in order
    std::size_t in_flight_bytes = 0;
    std::size_t unacknowledged_bytes = 0;  // arrived, but the sender does not know
    ByteQueue received;                    // arrived, not read
    std::uint64_t read_offset = 0;         // in the stream, of the next byte to be read
    bool finished = false;                 // FIN has arrived
    TimePoint last_arrival{};
    TimePoint progress{};  // when the oldest byte in the send buffer changed
    bool timeout_armed = false;
  };

  [[nodiscard]] Channel& channel(SimDirection direction) { return channels_[index(direction)]; }
  [[nodiscard]] const Channel& channel(SimDirection direction) const {
    return channels_[index(direction)];
  }
  [[nodiscard]] SimRandom& random() { return reactor_.schedule_random(); }
  [[nodiscard]] Duration random_delay(Duration at_most) {
    return Duration(static_cast<Duration::rep>(
        random().below(static_cast<std::uint64_t>(at_most.count()) + 1)));
  }
  template <class Event>
  void schedule(Duration delay, Event event,
                SimReactor::EventKind kind = SimReactor::EventKind::normal) {
    // The connection lives until its last event has run.
    reactor_.schedule(
        delay, [self = shared_from_this(), event] { event(*self); }, kind);
  }
  // What only the process of this end sees. Null: nothing.
  template <class Event>
  void schedule_at(const SimStream* end, Duration delay, Event event) {
    if (end != nullptr) {
      end->reactor_.schedule(delay, [self = shared_from_this(), event] { event(*self); });
    }
  }
  void schedule_connected();

  void request_arrives();
  void push(SimDirection direction, Segment::Kind kind, std::vector<std::byte> bytes);
  void deliver(SimDirection direction);
  // False: the receive buffer is full.
  bool deliver_data(SimDirection direction, SimStream& to);
  void acknowledge(SimDirection direction);
  void arm_user_timeout(SimDirection direction);
  void check_user_timeout(SimDirection direction);
  void clear_in_flight(SimDirection direction);
  // The sender has given up: decides what of its bytes is on the wire already and still arrives.
  void cut_in_flight(SimDirection direction);

  SimReactor& reactor_;
  SimLink& link_;
  Duration user_timeout_;
  const std::uint64_t number_;
  std::optional<TimePoint> client_gone_since_;
  std::array<SimStream*, 2> ends_{};  // by the direction in which they receive
  std::array<Channel, 2> channels_;
  bool request_lost_ = false;  // the connection request waits for the drop's end
};

}  // namespace iscsi_blkback
