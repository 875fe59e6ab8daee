#include "tests/base/contract_world.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>

#include "base/unique_fd.h"
#include "base/uring_reactor.h"
#include "tests/support/sim_network.h"
#include "tests/support/sim_stream.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::abort();
}

// ---- real

SocketAddress local_address(int fd) {
  SocketAddress address;
  address.length_bytes = sizeof address.storage;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length_bytes) != 0) {
    give_up("getsockname");
  }
  return address;
}

UniqueFd bound_socket() {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const SocketAddress any_port = SocketAddress::parse("127.0.0.1", 0).value();
  if (!fd.valid() || bind(fd.get(), reinterpret_cast<const sockaddr*>(&any_port.storage),
                          any_port.length_bytes) != 0) {
    give_up("bind");
  }
  return fd;
}

class UringWorld;

class SocketPeer : public ContractPeer {
 public:
  explicit SocketPeer(UringWorld& world);
  ~SocketPeer() override;

  SocketAddress address() const override { return local_address(listener_.get()); }
  bool accepted() const override { return fd_.valid() || end_ != End::none; }
  void set_reading(bool reading) override { reading_ = reading; }
  const Bytes& received() const override { return received_; }
  End end() const override { return end_; }
  void send(const Bytes& bytes) override {
    if (::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(bytes.size())) {
      give_up("send");
    }
  }
  void finish() override { shutdown(fd_.get(), SHUT_WR); }
  void reset() override {
    const linger now{1, 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    fd_.reset();
  }

  void pump() {
    if (!accepted()) {
      fd_.reset(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    }
    while (reading_ && fd_.valid() && end_ == End::none) {
      const ssize_t got = recv(fd_.get(), buffer_.data(), buffer_.size(), 0);
      if (got > 0) {
        received_.insert(received_.end(), buffer_.begin(), buffer_.begin() + got);
      } else if (got == 0) {
        end_ = End::end_of_stream;
      } else if (errno == EAGAIN) {
        return;
      } else {
        end_ = End::reset;
      }
    }
  }

 private:
  UringWorld& world_;
  UniqueFd listener_ = bound_socket();
  UniqueFd fd_;
  bool reading_ = false;
  End end_ = End::none;
  Bytes received_;
  std::array<std::byte, 65536> buffer_{};
};

class UringWorld : public ContractWorld {
 public:
  explicit UringWorld(bool deferred_task_run) {
    UringReactor::Options options;
    options.deferred_task_run = deferred_task_run;
    Result<std::unique_ptr<UringReactor>> created = UringReactor::create(options);
    if (!created) {
      std::fprintf(stderr, "%s\n", created.error().message.c_str());
      std::abort();
    }
    reactor_ = std::move(*created);
  }

  Reactor& reactor() override { return *reactor_; }
  bool run_until(const std::function<bool()>& predicate) override {
    const TimePoint end = reactor_->now() + 60s;
    while (reactor_->now() < end) {
      pump();
      if (predicate()) {
        return true;
      }
      reactor_->run_once(1ms);
    }
    return false;
  }
  void settle() override {
    const TimePoint end = reactor_->now() + 30ms;
    (void)run_until([&] { return reactor_->now() >= end; });
  }
  std::unique_ptr<ContractPeer> make_peer() override { return std::make_unique<SocketPeer>(*this); }
  SocketAddress refusing_address() override {
    refusing_ = bound_socket();  // bound, so that nobody else listens there
    return local_address(refusing_.get());
  }
  SocketAddress silent_address() override {
    // Linux drops connection requests for a listener whose queue is full.
    silent_ = bound_socket();
    listen(silent_.get(), 0);
    const SocketAddress address = local_address(silent_.get());
    for (UniqueFd& fd : fillers_) {
      fd.reset(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      (void)connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage),
                    address.length_bytes);
    }
    return address;
  }
  std::size_t more_than_buffered_bytes() const override { return 32 * 1024 * 1024; }

  std::vector<SocketPeer*> peers;

 private:
  void pump() {
    for (SocketPeer* peer : peers) {
      peer->pump();
    }
  }

  std::unique_ptr<UringReactor> reactor_;
  UniqueFd refusing_;
  UniqueFd silent_;
  std::array<UniqueFd, 3> fillers_;
};

SocketPeer::SocketPeer(UringWorld& world) : world_(world) {
  if (listen(listener_.get(), 8) != 0) {
    give_up("listen");
  }
  world_.peers.push_back(this);
}

SocketPeer::~SocketPeer() {
  std::erase(world_.peers, this);
}

// ---- simulated

class SimPeer final : public ContractPeer, private SimListener::Owner, private ByteStream::Owner {
 public:
  SimPeer(SimReactor& reactor, const SocketAddress& address)
      : reactor_(reactor), address_(address), listener_(reactor.network().listen(address, *this)) {}

  SocketAddress address() const override { return address_; }
  bool accepted() const override { return stream_ != nullptr; }
  void set_reading(bool reading) override {
    reading_ = reading;
    receive();
  }
  const Bytes& received() const override { return received_; }
  End end() const override { return end_; }
  void send(const Bytes& bytes) override {
    sending_ = bytes;
    const iovec part{sending_.data(), sending_.size()};
    stream_->send({&part, 1});
    reactor_.run_until_idle();
  }
  void finish() override { stream_->finish(); }
  void reset() override { stream_->reset(); }

 private:
  void on_accept(std::unique_ptr<SimStream> stream) noexcept override {
    stream_ = std::move(stream);
    stream_->set_owner(*this);
    receive();
  }
  void on_connected() noexcept override {}
  void on_sent() noexcept override {}
  void on_received(std::size_t count) noexcept override {
    receiving_ = false;
    received_.insert(received_.end(), buffer_.begin(),
                     buffer_.begin() + static_cast<std::ptrdiff_t>(count));
    receive();
  }
  void on_closed(const Error& error) noexcept override {
    if (end_ == End::none) {
      end_ = error.message.find("end of stream") != std::string::npos ? End::end_of_stream
                                                                      : End::reset;
    }
  }
  void receive() {
    if (reading_ && !receiving_ && stream_ != nullptr && !stream_->closed()) {
      const iovec part{buffer_.data(), buffer_.size()};
      stream_->receive({&part, 1});
      receiving_ = true;
    }
  }

  SimReactor& reactor_;
  SocketAddress address_;
  std::unique_ptr<SimListener> listener_;
  std::unique_ptr<SimStream> stream_;
  bool reading_ = false;
  bool receiving_ = false;
  End end_ = End::none;
  Bytes received_;
  Bytes sending_;
  std::array<std::byte, 65536> buffer_{};
};

class SimWorld : public ContractWorld {
 public:
  explicit SimWorld(std::uint64_t seed) : reactor_(seed) {}

  Reactor& reactor() override { return reactor_; }
  bool run_until(const std::function<bool()>& predicate) override {
    return reactor_.run_until(predicate, 60s);
  }
  void settle() override { reactor_.run_for(30ms); }
  std::unique_ptr<ContractPeer> make_peer() override {
    const SocketAddress address = next_address();
    reactor_.network().set_split(address, SimDirection::to_server, 50'000);
    reactor_.network().set_split(address, SimDirection::to_client, 500);
    return std::make_unique<SimPeer>(reactor_, address);
  }
  SocketAddress refusing_address() override { return next_address(); }
  SocketAddress silent_address() override {
    const SocketAddress address = next_address();
    reactor_.network().set_dropping(address, true);
    return address;
  }
  std::size_t more_than_buffered_bytes() const override { return 2 * 1024 * 1024; }

 private:
  SocketAddress next_address() { return SocketAddress::parse("192.0.2.1", ++port_).value(); }

  SimReactor reactor_;
  std::uint16_t port_ = 3260;
};

}  // namespace

std::vector<ContractWorldKind> contract_worlds() {
  std::vector<ContractWorldKind> kinds = {
      {"Uring", [] { return std::make_unique<UringWorld>(true); }},
      {"UringPlain", [] { return std::make_unique<UringWorld>(false); }},
  };
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    kinds.push_back(
        {"Sim" + std::to_string(seed), [seed] { return std::make_unique<SimWorld>(seed); }});
  }
  return kinds;
}

}  // namespace iscsi_blkback
