// Fuzz target: a client of a disk's NBD socket that says anything. The bytes are a list of what clients do
// (right and wrong options and requests, raw bytes, leaving in the middle) and of what the disk below does
// meanwhile. Nothing may crash, and whatever happens:
//  - nothing reaches the disk that it may not be asked (BlockDevice's contract);
//  - once the server is closed and the disk has let go, nothing is left.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "blkback/nbd/nbd_server.h"
#include "tests/fuzz/silent_log.h"
#include "tests/support/fake_nbd_client.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/memory_disk.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxNbdActions = 200;
constexpr std::uint64_t kNbdSectors = 4096;

void require_nbd(bool condition) {
  if (!condition) {
    std::abort();
  }
}

class NbdInput {
 public:
  NbdInput(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  [[nodiscard]] bool empty() const { return at_ >= size_; }
  std::uint8_t u8() { return empty() ? std::uint8_t{0} : data_[at_++]; }
  std::uint16_t u16() {
    const std::uint8_t high = u8();
    return static_cast<std::uint16_t>(high << 8 | u8());
  }
  std::uint32_t u32() {
    const std::uint32_t high = u16();
    return high << 16 | u16();
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::size_t at_ = 0;
};

// Aborts for what the server should have refused.
class CheckedDisk final : public BlockDevice {
 public:
  explicit CheckedDisk(BlockDevice& below) : below_(below) {}
  [[nodiscard]] const Geometry& geometry() const override { return below_.geometry(); }
  void submit(BlockRequest& request) noexcept override {
    const Geometry& disk = geometry();
    const std::uint64_t block = disk.logical_block_bytes / kSectorBytes;
    if (request.operation != BlockOperation::flush) {
      require_nbd(request.sector_count > 0 && request.sector_count <= disk.sector_count &&
                  request.sector <= disk.sector_count - request.sector_count);
      require_nbd(request.sector % block == 0 && request.sector_count % block == 0);
      require_nbd(request.operation == BlockOperation::read || !disk.read_only);
      require_nbd(request.operation != BlockOperation::discard ||
                  disk.discard_granularity_bytes != 0);
      require_nbd(request.length_bytes() <= kMaxNbdRequestBytes);
      require_nbd(request.operation == BlockOperation::discard || request.data != nullptr);
    }
    below_.submit(request);
  }

 private:
  BlockDevice& below_;
};

class NbdMachine final : private SimListener::Owner {
 public:
  explicit NbdMachine(NbdInput& input)
      : input_(input), reactor_(input.u8()), memory_(reactor_, geometry(input.u8())) {
    reactor_.network().set_split(address_, SimDirection::to_server, 1 + input.u8());
    faulty_.set_plan([this](const BlockRequest&, std::uint64_t) { return next_; });
    server_.emplace(reactor_, checked_, UniqueFd(), "fuzz", true);
  }

  void run() {
    for (std::size_t i = 0; i < kMaxNbdActions && !input_.empty(); ++i) {
      act();
      reactor_.run_for(std::chrono::milliseconds(1));
    }
    for (auto& client : clients_) {
      client->leave();
    }
    bool closed = false;
    server_->close(
        NbdServer::End::goes_on, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; },
        &closed);
    reactor_.run_for(std::chrono::milliseconds(1));
    faulty_.fail_held(IoStatus::aborted);
    require_nbd(reactor_.run_until([&] { return closed; }));
    require_nbd(server_->connections() == 0);
    clients_.clear();
    server_.reset();
  }

 private:
  static Geometry geometry(std::uint8_t shape) {
    Geometry geometry;
    geometry.sector_count = kNbdSectors;
    geometry.logical_block_bytes = (shape & 1) != 0 ? 4096 : 512;
    geometry.discard_granularity_bytes = (shape & 2) != 0 ? 4096 : 0;
    geometry.read_only = (shape & 4) != 0;
    return geometry;
  }

  void on_accept(std::unique_ptr<SimStream> stream) noexcept override {
    (void)server_->accept([&](ByteStream::Owner& owner) {
      stream->set_owner(owner);
      return std::move(stream);
    });
  }

  void act() {
    const std::uint8_t action = input_.u8() % 16;
    if (action == 0 || clients_.empty()) {
      connect(action == 0);
      return;
    }
    FakeNbdClient& client = *clients_[input_.u8() % clients_.size()];
    switch (action) {
      case 1:
        client.send(NbdWriter().u32(input_.u8()).bytes);
        break;
      case 2:
        client.send(nbd_option(input_.u8() % 13, raw(input_.u8())));
        break;
      case 3:
        client.send(nbd_option(6 + input_.u8() % 2,
                               nbd_go_data(std::string(input_.u8() % 4, 'x'), {0, 3})));
        break;
      case 4:
        client.send(raw(input_.u8()));
        break;
      case 5:
        client.leave();
        break;
      case 6:
        next_ = {};
        faulty_.release();
        break;
      case 7:
        next_ = {FaultyDisk::Action::Kind::hold, IoStatus::ok};
        break;
      case 8:
        next_ = {FaultyDisk::Action::Kind::fail, static_cast<IoStatus>(1 + input_.u8() % 9)};
        break;
      case 9:
        reactor_.run_for(std::chrono::seconds(input_.u8() % 12));
        break;
      case 10: {
        NbdBytes request = nbd_request(0, input_.u8(), 0, 512);
        request[input_.u8() % request.size()] = static_cast<std::byte>(input_.u8());
        client.send(request);
        break;
      }
      default:
        ask(client);
        break;
    }
  }

  void connect(bool goes_on) {
    if (clients_.size() < 8) {
      clients_.push_back(std::make_unique<FakeNbdClient>(reactor_, address_));
      if (goes_on) {
        (void)clients_.back()->go();
      }
    }
  }

  void ask(FakeNbdClient& client) {
    const auto command = static_cast<std::uint16_t>(input_.u8() % 7);
    const std::uint64_t offset = std::uint64_t{input_.u16()} * 256;
    const std::uint32_t length = (input_.u8() & 7) == 0 ? input_.u32() : input_.u8() * 256U;
    const auto flags = static_cast<std::uint16_t>(input_.u8() % 4);
    const std::size_t payload = command == 1 ? std::min<std::size_t>(length, 70'000) : 0;
    client.send(nbd_request(command, input_.u8(), offset, length, flags, NbdBytes(payload)));
  }

  NbdBytes raw(std::size_t count) {
    NbdBytes bytes(count);
    for (std::byte& byte : bytes) {
      byte = static_cast<std::byte>(input_.u8());
    }
    return bytes;
  }

  NbdInput& input_;
  SimReactor reactor_;
  const SocketAddress address_ = SocketAddress::parse("192.0.2.1", 10809).value();
  MemoryDisk memory_;
  FaultyDisk faulty_{reactor_, memory_};
  CheckedDisk checked_{faulty_};
  FaultyDisk::Action next_;
  std::optional<NbdServer> server_;
  std::unique_ptr<SimListener> listener_ = reactor_.network().listen(address_, *this);
  std::vector<std::unique_ptr<FakeNbdClient>> clients_;
};

}  // namespace
}  // namespace iscsi_blkback

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace iscsi_blkback;
  silence_log();
  NbdInput input(bytes, size);
  NbdMachine(input).run();
  return 0;
}
