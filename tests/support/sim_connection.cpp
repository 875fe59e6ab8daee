#include "tests/support/sim_connection.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace iscsi_blkback {
namespace {

// Between reset() and the kernel having given everything back.
constexpr Duration kMaxReapDelay = std::chrono::microseconds(50);
// Linux gives up on a connection request after about so long without TCP_USER_TIMEOUT.
constexpr Duration kSynTimeout = std::chrono::seconds(127);

}  // namespace

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
  if (*link_.listener == nullptr || link_.refusing) {
    push(SimDirection::to_client, Segment::Kind::reset, {});
    return;
  }
  push(SimDirection::to_client, Segment::Kind::accepted, {});
  std::unique_ptr<SimStream> server(
      new SimStream(shared_from_this(), SimDirection::to_client, SimStream::State::open, reactor_));
  receiver(SimDirection::to_server) = server.get();
  (*link_.listener)->on_accept(std::move(server));
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

void SimConnection::schedule_connected() {
  schedule_at(sender(SimDirection::to_server), Duration::zero(), [](SimConnection& self) {
    if (SimStream* client = self.sender(SimDirection::to_server)) {
      client->connected();
    }
  });
}

void SimConnection::schedule_send(SimDirection direction) {
  schedule_at(sender(direction), Duration::zero(), [direction](SimConnection& self) {
    if (SimStream* end = self.sender(direction)) {
      end->continue_send();
    }
  });
}

void SimConnection::schedule_receive(SimDirection direction) {
  schedule_at(receiver(direction), Duration::zero(), [direction](SimConnection& self) {
    if (SimStream* end = self.receiver(direction)) {
      end->continue_receive();
    }
  });
}

void SimConnection::schedule_closed(SimDirection sends) {
  schedule_at(sender(sends), random_delay(kMaxReapDelay), [sends](SimConnection& self) {
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
        if (&to->reactor_ == &reactor_) {
          to->connected();
        } else {
          schedule_connected();
        }
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
  const bool open = end != nullptr && end->state_ == SimStream::State::open;
  if (!open || out.in_flight_bytes + out.unacknowledged_bytes == 0) {
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

void SimConnection::client_died() {
  SimStream*& client = sender(SimDirection::to_server);
  const bool connected = client->state_ == SimStream::State::open && !client->socket_error_;
  client = nullptr;
  note_client_gone();
  if (connected) {
    forget_received(SimDirection::to_client);
    send_reset(SimDirection::to_server);
  }
}

void SimConnection::fail_both(const Error& error) {
  for (const SimDirection direction : kSimDirections) {
    clear_in_flight(direction);
  }
  request_lost_ = false;
  for (const SimDirection direction : kSimDirections) {
    if (SimStream* end = receiver(direction)) {
      end->failed(error);
    }
  }
}

void SimConnection::resume(Duration at_most) {
  for (const SimDirection direction : kSimDirections) {
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

}  // namespace iscsi_blkback
