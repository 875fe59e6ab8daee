#include "tests/support/sim_network.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "tests/support/sim_connection.h"

namespace iscsi_blkback {
namespace {

// When the sender tries again after a drop has ended.
constexpr Duration kMaxRetransmitDelay = std::chrono::milliseconds(200);

}  // namespace

SimListener::SimListener(Owner*& place, Owner& owner) : place_(place) {
  ISCSI_BLKBACK_ASSERT(place_ == nullptr);
  place_ = &owner;
}

SimListener::~SimListener() {
  place_ = nullptr;
}

SimNetwork::SimNetwork(SimReactor& reactor) : reactor_(reactor) {}

SimNetwork::~SimNetwork() = default;

SimLink& SimNetwork::link(const SocketAddress& address, unsigned computer) {
  std::unique_ptr<SimLink>& found = links_[{address.to_string(), computer}];
  if (found == nullptr) {
    found = std::make_unique<SimLink>();
    found->name = address.to_string();
    found->listener = &listeners_[found->name];
  }
  return *found;
}

std::unique_ptr<SimListener> SimNetwork::listen(const SocketAddress& address,
                                                SimListener::Owner& owner) {
  return std::unique_ptr<SimListener>(new SimListener(listeners_[address.to_string()], owner));
}

std::unique_ptr<ByteStream> SimNetwork::connect(const ConnectOptions& options,
                                                ByteStream::Owner& owner, SimReactor& from) {
  SimLink& to = link(options.address, from.computer());
  std::erase_if(to.connections, [](const auto& connection) { return connection.expired(); });
  auto connection =
      std::make_shared<SimConnection>(reactor_, to, options.tcp_user_timeout, ++connections_);
  to.connections.push_back(connection);
  std::unique_ptr<SimStream> client(
      new SimStream(connection, SimDirection::to_server, SimStream::State::connecting, from));
  client->set_owner(owner);
  connection->sender(SimDirection::to_server) = client.get();
  connection->start_connecting();
  return client;
}

void SimNetwork::client_died(const SimReactor& thread) {
  for (const auto& [name, link] : links_) {
    for (const std::weak_ptr<SimConnection>& weak : link->connections) {
      const auto connection = weak.lock();
      SimStream* client = connection ? connection->sender(SimDirection::to_server) : nullptr;
      if (client != nullptr && &client->reactor_ == &thread) {
        connection->client_died();
      }
    }
  }
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
  for (const SimDirection direction : kSimDirections) {
    set_dropping(address, direction, dropping);
  }
}

void SimNetwork::set_dropping(const SocketAddress& address, SimDirection direction, bool dropping) {
  SimLink& of = link(address);
  if (of.passes()) {
    of.blocked_since = reactor_.now();
  }
  if (std::exchange(of.dropping[index(direction)], dropping) && !dropping) {
    resume(of, kMaxRetransmitDelay);
  }
}

void SimNetwork::set_held(const SocketAddress& address, SimDirection direction, bool held) {
  SimLink& of = link(address);
  if (of.passes()) {
    of.blocked_since = reactor_.now();
  }
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
  const auto found = links_.find({address.to_string(), computer_});
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
