#include "tests/support/sim_stream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace iscsi_blkback {
namespace {

constexpr std::array kDirections = {SimDirection::to_server, SimDirection::to_client};
// When the sender tries again after a drop has ended.
constexpr Duration kMaxRetransmitDelay = std::chrono::milliseconds(200);
// Between reset() and the kernel having given everything back.
constexpr Duration kMaxReapDelay = std::chrono::microseconds(50);
// Linux gives up on a connection request after about so long without TCP_USER_TIMEOUT.
constexpr Duration kSynTimeout = std::chrono::seconds(127);

std::size_t index(SimDirection direction) {
  return static_cast<std::size_t>(direction);
}

SimDirection opposite(SimDirection direction) {
  return direction == SimDirection::to_server ? SimDirection::to_client : SimDirection::to_server;
}

}  // namespace

namespace {

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

}  // namespace

// What is set for one listening address. Indices are SimDirections.
struct SimLink {
  std::string name;
  SimListener::Owner* listener = nullptr;
  Duration latency = std::chrono::microseconds(50);
  Duration jitter{};
  std::size_t send_buffer_bytes = 256 * 1024;
  std::size_t receive_buffer_bytes = 256 * 1024;
  std::array<std::size_t, 2> split_max_bytes{};
  std::array<std::vector<std::uint64_t>, 2> boundaries;
  std::array<bool, 2> dropping{};
  std::array<bool, 2> held{};
  SimResetPolicy reset_policy = SimResetPolicy::random;
  bool refusing = false;
  std::vector<std::weak_ptr<SimConnection>> connections;

  [[nodiscard]] bool passes(SimDirection direction) const {
    return !dropping[index(direction)] && !held[index(direction)];
  }
};

// The wire between two ends. Everything here runs as an event of the reactor; the ends only
// schedule.
class SimConnection : public std::enable_shared_from_this<SimConnection> {
 public:
  SimConnection(SimReactor& reactor, SimLink& link, Duration user_timeout)
      : reactor_(reactor), link_(link), user_timeout_(user_timeout) {}

  [[nodiscard]] SimReactor& reactor() { return reactor_; }
  [[nodiscard]] const SimLink& link() const { return link_; }

  // The end that receives what travels in direction; null when it is closed for good.
  [[nodiscard]] SimStream*& receiver(SimDirection direction) { return ends_[index(direction)]; }
  [[nodiscard]] SimStream*& sender(SimDirection direction) { return receiver(opposite(direction)); }

  void start_connecting();
  // The end that sends in direction wants more to be done: now, but not from inside its call.
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
  std::array<SimStream*, 2> ends_{};  // by the direction in which they receive
  std::array<Channel, 2> channels_;
  bool request_lost_ = false;  // the connection request waits for the drop's end
};

// ---- SimConnection

void SimConnection::start_connecting() {
  const Duration timeout = user_timeout_ == Duration::zero() ? kSynTimeout : user_timeout_;
  schedule(link_.latency + random_delay(link_.jitter),
           [](SimConnection& self) { self.request_arrives(); });
  schedule(
      timeout,
      [](SimConnection& self) {
        SimStream* client = self.sender(SimDirection::to_server);
        if (client != nullptr && client->state_ == SimStream::State::connecting) {
          client->failed(system_error("connect to " + self.link_.name, ETIMEDOUT));
        }
      },
      SimReactor::EventKind::background);
}

void SimConnection::request_arrives() {
  SimStream* client = sender(SimDirection::to_server);
  if (client == nullptr || client->state_ != SimStream::State::connecting) {
    return;
  }
  if (!link_.passes(SimDirection::to_server)) {
    request_lost_ = true;
    return;
  }
  if (link_.listener == nullptr || link_.refusing) {
    push(SimDirection::to_client, Segment::Kind::reset, {});
    return;
  }
  push(SimDirection::to_client, Segment::Kind::accepted, {});
  std::unique_ptr<SimStream> server(
      new SimStream(shared_from_this(), SimDirection::to_client, SimStream::State::open));
  receiver(SimDirection::to_server) = server.get();
  link_.listener->on_accept(std::move(server));
  SimStream* accepted = receiver(SimDirection::to_server);
  ISCSI_BLKBACK_ASSERT(accepted == nullptr || accepted->owner_ != nullptr);
}

void SimConnection::push(SimDirection direction, Segment::Kind kind, std::vector<std::byte> bytes) {
  Channel& out = channel(direction);
  const TimePoint now = reactor_.now();
  out.last_arrival = std::max(out.last_arrival, now + link_.latency + random_delay(link_.jitter));
  if (out.in_flight_bytes + out.unacknowledged_bytes == 0) {
    out.progress = now;
  }
  out.in_flight_bytes += bytes.size();
  out.in_flight.push_back({kind, out.last_arrival, std::move(bytes), 0});
  schedule_delivery(direction, out.last_arrival - now);
}

void SimConnection::schedule_send(SimDirection direction) {
  schedule(Duration::zero(), [direction](SimConnection& self) {
    if (SimStream* end = self.sender(direction)) {
      end->continue_send();
    }
  });
}

void SimConnection::schedule_receive(SimDirection direction) {
  schedule(Duration::zero(), [direction](SimConnection& self) {
    if (SimStream* end = self.receiver(direction)) {
      end->continue_receive();
    }
  });
}

void SimConnection::schedule_closed(SimDirection sends) {
  schedule(random_delay(kMaxReapDelay), [sends](SimConnection& self) {
    if (SimStream* end = self.sender(sends)) {
      end->deliver_closed();
    }
  });
}

void SimConnection::schedule_delivery(SimDirection direction, Duration delay) {
  schedule(delay, [direction](SimConnection& self) { self.deliver(direction); });
}

void SimConnection::take(SimDirection direction, SimStream::Operation& operation) {
  Channel& out = channel(direction);
  const std::size_t used = out.in_flight_bytes + out.unacknowledged_bytes;
  const std::size_t room = link_.send_buffer_bytes - std::min(link_.send_buffer_bytes, used);
  const std::size_t count = std::min(room, operation.left());
  if (count == 0) {
    return;
  }
  std::vector<std::byte> bytes;
  bytes.reserve(count);
  operation.advance(count, [&bytes](std::byte* from, std::size_t size) {
    bytes.insert(bytes.end(), from, from + size);
  });
  push(direction, Segment::Kind::data, std::move(bytes));
  arm_user_timeout(direction);
}

std::size_t SimConnection::hand_out(SimDirection direction, SimStream::Operation& operation) {
  Channel& in = channel(direction);
  std::size_t count = std::min(in.received.size(), operation.left());
  if (const std::size_t split = link_.split_max_bytes[index(direction)]; split != 0) {
    count = std::min<std::size_t>(count, random().between(1, split));
  }
  for (const std::uint64_t boundary : link_.boundaries[index(direction)]) {
    if (boundary > in.read_offset) {
      count = static_cast<std::size_t>(std::min<std::uint64_t>(count, boundary - in.read_offset));
    }
  }
  operation.advance(count, [&in](std::byte* to, std::size_t size) { in.received.pop(to, size); });
  in.read_offset += count;
  if (count != 0 && !in.in_flight.empty()) {
    schedule_delivery(direction, Duration::zero());  // the window has opened
  }
  return count;
}

void SimConnection::deliver(SimDirection direction) {
  Channel& in = channel(direction);
  while (link_.passes(direction) && !in.in_flight.empty() &&
         in.in_flight.front().arrives <= reactor_.now()) {
    const Segment::Kind kind = in.in_flight.front().kind;
    SimStream* to = receiver(direction);
    if (to == nullptr || to->state_ == SimStream::State::closing) {
      // Nobody there: the sender is told, unless it was its own goodbye.
      clear_in_flight(direction);
      if (kind == Segment::Kind::data || kind == Segment::Kind::accepted) {
        push(opposite(direction), Segment::Kind::reset, {});
      }
      return;
    }
    if (kind == Segment::Kind::data) {
      if (!deliver_data(direction, *to)) {
        return;
      }
      continue;
    }
    in.in_flight.pop_front();
    switch (kind) {
      case Segment::Kind::accepted:
        to->connected();
        break;
      case Segment::Kind::finish:
        in.finished = true;
        schedule_receive(direction);
        break;
      case Segment::Kind::reset: {
        const bool refused = to->state_ == SimStream::State::connecting;
        clear_in_flight(opposite(direction));
        to->failed(refused ? system_error("connect to " + link_.name, ECONNREFUSED)
                           : system_error("connection to " + link_.name, ECONNRESET));
        break;
      }
      case Segment::Kind::data:
        break;
    }
  }
}

bool SimConnection::deliver_data(SimDirection direction, SimStream& to) {
  Channel& in = channel(direction);
  Segment& segment = in.in_flight.front();
  const std::size_t room =
      link_.receive_buffer_bytes - std::min(link_.receive_buffer_bytes, in.received.size());
  const std::size_t count = std::min(room, segment.left());
  if (count == 0) {
    return false;
  }
  in.received.push(segment.bytes.data() + segment.delivered, count);
  segment.delivered += count;
  in.in_flight_bytes -= count;
  in.unacknowledged_bytes += count;
  if (segment.left() == 0) {
    in.in_flight.pop_front();
  }
  if (link_.passes(opposite(direction))) {
    acknowledge(direction);
  }
  if (to.receive_.outstanding) {
    schedule_receive(direction);
  }
  return true;
}

void SimConnection::acknowledge(SimDirection direction) {
  Channel& out = channel(direction);
  out.unacknowledged_bytes = 0;
  out.progress = reactor_.now();
  schedule_send(direction);
}

void SimConnection::arm_user_timeout(SimDirection direction) {
  Channel& out = channel(direction);
  if (direction != SimDirection::to_server || user_timeout_ == Duration::zero() ||
      out.timeout_armed) {
    return;
  }
  out.timeout_armed = true;
  schedule(
      out.progress + user_timeout_ - reactor_.now(),
      [direction](SimConnection& self) { self.check_user_timeout(direction); },
      SimReactor::EventKind::background);
}

void SimConnection::check_user_timeout(SimDirection direction) {
  Channel& out = channel(direction);
  out.timeout_armed = false;
  SimStream* end = sender(direction);
  if (end == nullptr || end->state_ != SimStream::State::open ||
      out.in_flight_bytes + out.unacknowledged_bytes == 0) {
    return;
  }
  if (reactor_.now() - out.progress < user_timeout_) {
    arm_user_timeout(direction);
    return;
  }
  cut_in_flight(direction);  // Linux says nothing to the peer here
  end->failed(system_error("connection to " + link_.name, ETIMEDOUT));
}

void SimConnection::clear_in_flight(SimDirection direction) {
  Channel& out = channel(direction);
  out.in_flight.clear();
  out.in_flight_bytes = out.unacknowledged_bytes = 0;
}

void SimConnection::send_reset(SimDirection direction) {
  cut_in_flight(direction);
  if (!link_.dropping[index(direction)]) {
    push(direction, Segment::Kind::reset, {});
  }
}

void SimConnection::cut_in_flight(SimDirection direction) {
  Channel& out = channel(direction);
  if (link_.dropping[index(direction)]) {
    clear_in_flight(direction);
    return;
  }
  // What does not fit into the peer's window cannot have left.
  const std::size_t window =
      link_.receive_buffer_bytes - std::min(link_.receive_buffer_bytes, out.received.size());
  std::size_t arrives = std::min(window, out.in_flight_bytes);
  switch (link_.reset_policy) {
    case SimResetPolicy::random:
      arrives = random().one_in(3) ? arrives : random().one_in(2) ? 0 : random().below(arrives + 1);
      break;
    case SimResetPolicy::nothing:
      arrives = 0;
      break;
    case SimResetPolicy::everything:
      break;
  }
  std::deque<Segment> kept;
  std::size_t left = arrives;
  for (Segment& segment : out.in_flight) {
    if (segment.kind == Segment::Kind::data) {
      segment.bytes.resize(segment.delivered + std::min(left, segment.left()));
      left -= segment.left();
    }
    if (segment.kind != Segment::Kind::finish &&
        (segment.kind != Segment::Kind::data || segment.left() > 0)) {
      kept.push_back(std::move(segment));
    }
  }
  out.in_flight = std::move(kept);
  out.in_flight_bytes = arrives;
}

void SimConnection::fail_both(const Error& error) {
  for (const SimDirection direction : kDirections) {
    clear_in_flight(direction);
  }
  request_lost_ = false;
  for (const SimDirection direction : kDirections) {
    if (SimStream* end = receiver(direction)) {
      end->failed(error);
    }
  }
}

void SimConnection::resume(Duration at_most) {
  for (const SimDirection direction : kDirections) {
    if (link_.passes(direction) && !channel(direction).in_flight.empty()) {
      schedule_delivery(direction, random_delay(at_most));
    }
    if (link_.passes(opposite(direction)) && channel(direction).unacknowledged_bytes != 0) {
      schedule(random_delay(at_most),
               [direction](SimConnection& self) { self.acknowledge(direction); });
    }
  }
  if (request_lost_ && link_.passes(SimDirection::to_server)) {
    request_lost_ = false;
    schedule(random_delay(at_most), [](SimConnection& self) { self.request_arrives(); });
  }
}

// ---- SimStream

void SimStream::Operation::start(std::span<const iovec> of) {
  ISCSI_BLKBACK_ASSERT(!outstanding);
  ISCSI_BLKBACK_ASSERT(!of.empty() && of.size() <= kMaxParts);
  parts.assign(of.begin(), of.end());
  part = offset = 0;
  outstanding = true;
  ISCSI_BLKBACK_ASSERT(left() > 0);
}

std::size_t SimStream::Operation::left() const {
  std::size_t total = 0;
  for (std::size_t i = part; i < parts.size(); ++i) {
    total += parts[i].iov_len;
  }
  return total - offset;
}

template <class Use>
void SimStream::Operation::advance(std::size_t count, Use&& use) {
  while (count > 0) {
    const iovec& at = parts[part];
    const std::size_t size = std::min(count, at.iov_len - offset);
    if (size > 0) {
      use(static_cast<std::byte*>(at.iov_base) + offset, size);
    }
    count -= size;
    offset += size;
    if (offset == at.iov_len) {
      ++part;
      offset = 0;
    }
  }
}

SimStream::~SimStream() {
  if (state_ == State::closed) {
    return;
  }
  ISCSI_BLKBACK_ASSERT(sends_ == SimDirection::to_client);
  if (state_ == State::open) {
    connection_->send_reset(sends_);
  }
  connection_->sender(sends_) = nullptr;
}

void SimStream::send(std::span<const iovec> parts) noexcept {
  ISCSI_BLKBACK_ASSERT(state_ == State::open || state_ == State::closing);
  if (state_ == State::open) {
    send_.start(parts);
    connection_->schedule_send(sends_);
  }
}

void SimStream::receive(std::span<const iovec> parts) noexcept {
  ISCSI_BLKBACK_ASSERT(state_ == State::open || state_ == State::closing);
  if (state_ == State::open) {
    receive_.start(parts);
    connection_->schedule_receive(opposite(sends_));
  }
}

void SimStream::set_low_water(std::size_t bytes) noexcept {
  if (state_ == State::open) {
    low_water_bytes_ = bytes;
    if (receive_.outstanding) {
      connection_->schedule_receive(opposite(sends_));
    }
  }
}

void SimStream::reset() noexcept {
  if (state_ == State::connecting || state_ == State::open) {
    if (state_ == State::open && !socket_error_) {
      connection_->send_reset(sends_);
    }
    begin_close(Error{ErrorCode::unavailable,
                      "connection to " + connection_->link().name + " was reset by this side"});
  }
}

void SimStream::finish() noexcept {
  if (state_ == State::open) {
    ISCSI_BLKBACK_ASSERT(!send_.outstanding);
    if (!socket_error_) {
      connection_->send_finish(sends_);
    }
    begin_close(Error{ErrorCode::unavailable,
                      "connection to " + connection_->link().name + " was closed by this side"});
  }
}

void SimStream::connected() noexcept {
  if (state_ == State::connecting) {
    state_ = State::open;
    owner_->on_connected();
  }
}

void SimStream::failed(const Error& error) noexcept {
  if (state_ == State::connecting || (state_ == State::open && send_.outstanding)) {
    begin_close(error);
  } else if (state_ == State::open && !socket_error_) {
    socket_error_ = error;
    if (receive_.outstanding) {
      connection_->schedule_receive(opposite(sends_));  // which reads what had arrived before
    }
  }
}

void SimStream::begin_close(const Error& error) noexcept {
  state_ = State::closing;
  close_error_ = error;
  connection_->forget_received(opposite(sends_));
  connection_->schedule_closed(sends_);
}

// Until on_closed the kernel may still read what is being sent and write what arrives; whoever has
// freed or reused these buffers by now finds out here.
void SimStream::touch_buffers() noexcept {
  if (send_.outstanding) {
    std::byte all{};
    send_.advance(send_.left(), [&all](const std::byte* from, std::size_t size) {
      for (std::size_t i = 0; i < size; ++i) {
        all ^= from[i];
      }
    });
    [[maybe_unused]] static volatile std::byte sink;
    sink = all;
  }
  if (receive_.outstanding) {
    SimRandom& random = connection_->reactor().schedule_random();
    receive_.advance(random.below(receive_.left() + 1),
                     [](std::byte* to, std::size_t size) { std::memset(to, 0xdb, size); });
  }
}

void SimStream::deliver_closed() noexcept {
  touch_buffers();
  state_ = State::closed;
  connection_->sender(sends_) = nullptr;
  const Error error = std::move(close_error_);
  if (owner_ != nullptr) {
    owner_->on_closed(error);  // may delete this
  }
}

void SimStream::continue_send() noexcept {
  if (state_ != State::open || !send_.outstanding) {
    return;
  }
  if (socket_error_) {
    begin_close(*socket_error_);
    return;
  }
  connection_->take(sends_, send_);
  if (send_.left() == 0) {
    send_.outstanding = false;
    owner_->on_sent();
  }
}

void SimStream::continue_receive() noexcept {
  if (state_ != State::open || !receive_.outstanding ||
      (!socket_error_ && connection_->below(opposite(sends_), low_water_bytes_))) {
    return;
  }
  if (const std::size_t count = connection_->hand_out(opposite(sends_), receive_); count != 0) {
    receive_.outstanding = false;
    owner_->on_received(count);
  } else if (socket_error_) {
    begin_close(*socket_error_);
  } else if (connection_->end_of_stream(opposite(sends_))) {
    connection_->send_reset(sends_);
    begin_close(Error{ErrorCode::unavailable,
                      "connection to " + connection_->link().name + ": end of stream"});
  }
}

// ---- SimListener and SimNetwork

SimListener::SimListener(SimLink& link, Owner& owner) : link_(link) {
  ISCSI_BLKBACK_ASSERT(link_.listener == nullptr);
  link_.listener = &owner;
}

SimListener::~SimListener() {
  link_.listener = nullptr;
}

SimNetwork::SimNetwork(SimReactor& reactor) : reactor_(reactor) {}

SimNetwork::~SimNetwork() = default;

SimLink& SimNetwork::link(const SocketAddress& address) {
  std::unique_ptr<SimLink>& found = links_[address.to_string()];
  if (found == nullptr) {
    found = std::make_unique<SimLink>();
    found->name = address.to_string();
  }
  return *found;
}

std::unique_ptr<SimListener> SimNetwork::listen(const SocketAddress& address,
                                                SimListener::Owner& owner) {
  return std::unique_ptr<SimListener>(new SimListener(link(address), owner));
}

std::unique_ptr<ByteStream> SimNetwork::connect(const ConnectOptions& options,
                                                ByteStream::Owner& owner) {
  SimLink& to = link(options.address);
  std::erase_if(to.connections, [](const auto& connection) { return connection.expired(); });
  auto connection = std::make_shared<SimConnection>(reactor_, to, options.tcp_user_timeout);
  to.connections.push_back(connection);
  std::unique_ptr<SimStream> client(
      new SimStream(connection, SimDirection::to_server, SimStream::State::connecting));
  client->set_owner(owner);
  connection->sender(SimDirection::to_server) = client.get();
  connection->start_connecting();
  return client;
}

void SimNetwork::set_latency(const SocketAddress& address, Duration one_way, Duration jitter) {
  link(address).latency = one_way;
  link(address).jitter = jitter;
}

void SimNetwork::set_buffers(const SocketAddress& address, std::size_t send_bytes,
                             std::size_t receive_bytes) {
  link(address).send_buffer_bytes = send_bytes;
  link(address).receive_buffer_bytes = receive_bytes;
}

void SimNetwork::set_split(const SocketAddress& address, SimDirection direction,
                           std::size_t max_bytes) {
  link(address).split_max_bytes[index(direction)] = max_bytes;
}

void SimNetwork::set_boundaries(const SocketAddress& address, SimDirection direction,
                                std::vector<std::uint64_t> offsets) {
  link(address).boundaries[index(direction)] = std::move(offsets);
}

void SimNetwork::set_reset_policy(const SocketAddress& address, SimResetPolicy policy) {
  link(address).reset_policy = policy;
}

void SimNetwork::set_refusing(const SocketAddress& address, bool refusing) {
  link(address).refusing = refusing;
}

void SimNetwork::set_dropping(const SocketAddress& address, bool dropping) {
  for (const SimDirection direction : kDirections) {
    set_dropping(address, direction, dropping);
  }
}

void SimNetwork::set_dropping(const SocketAddress& address, SimDirection direction, bool dropping) {
  SimLink& of = link(address);
  if (std::exchange(of.dropping[index(direction)], dropping) && !dropping) {
    resume(of, kMaxRetransmitDelay);
  }
}

void SimNetwork::set_held(const SocketAddress& address, SimDirection direction, bool held) {
  SimLink& of = link(address);
  if (std::exchange(of.held[index(direction)], held) && !held) {
    resume(of, Duration::zero());
  }
}

void SimNetwork::resume(SimLink& of, Duration at_most) {
  for (const std::weak_ptr<SimConnection>& weak : of.connections) {
    if (const auto connection = weak.lock()) {
      connection->resume(at_most);
    }
  }
}

void SimNetwork::reset_connections(const SocketAddress& address) {
  SimLink& of = link(address);
  for (const std::weak_ptr<SimConnection>& weak : of.connections) {
    if (const auto connection = weak.lock()) {
      connection->fail_both(system_error("connection to " + of.name, ECONNRESET));
    }
  }
}

std::size_t SimNetwork::open_connections(const SocketAddress& address) const {
  const auto found = links_.find(address.to_string());
  if (found == links_.end()) {
    return 0;
  }
  const auto& connections = found->second->connections;
  return static_cast<std::size_t>(
      std::count_if(connections.begin(), connections.end(), [](const auto& weak) {
        const auto connection = weak.lock();
        if (connection == nullptr) {
          return false;
        }
        const SimStream* client = connection->sender(SimDirection::to_server);
        return client != nullptr && client->state_ == SimStream::State::open &&
               !client->socket_error_;
      }));
}

}  // namespace iscsi_blkback
