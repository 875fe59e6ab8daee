// NbdConnection: one client of a disk's NBD socket, from the greeting to its end. Owned by NbdServer.
// Reactor thread.
//
// The way of a request: its 28 bytes received and checked (nbd_protocol.h), the data of a write into its
// slot's buffer, submitted to the BlockDevice -> completed -> once per turn: all replies that are ready, in
// one send. No request allocates; a client that neither reads nor sends holds its own slots and nothing else.
//
// When the connection is dropped, requests that are under way are not answered: a client that connects again
// (QEMU's reconnect-delay) sends them once more, to whoever serves the disk then. All failures are told, those of a flush, too: what a ring must not say to a guest whose kernel
// would take it for success (flush_retries.h), QEMU passes on to the emulated drive as what it is.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "base/byte_stream.h"
#include "base/intrusive_list.h"
#include "base/reactor.h"
#include "blkback/nbd/nbd_protocol.h"

namespace iscsi_blkback {

class NbdConnection final : private ByteStream::Owner {
 public:
  // What makes the stream, for this owner.
  using MakeStream = std::function<std::unique_ptr<ByteStream>(ByteStream::Owner& owner)>;

  class Owner {
   public:
    // As the disk is now; asked for each option and each request.
    [[nodiscard]] virtual NbdExport export_now() const noexcept = 0;
    // The stream is closed and nothing is under way any more; never from inside a call. why: what ended it.
    virtual void on_connection_over(NbdConnection& connection, const std::string& why) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // Of each connection: requests under way, each with a buffer of kMaxNbdRequestBytes, which takes memory
  // when it is first used.
  static constexpr std::size_t kRequests = 8;
  // A client that has not come to its requests by then is dropped.
  static constexpr std::chrono::seconds kHandshakeTimeout{60};

  // All outlive it.
  NbdConnection(Reactor& reactor, BlockDevice& device, const MakeStream& make_stream, Owner& owner);
  ~NbdConnection();  // over
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;

  // Ends in on_connection_over, when the device has let go of all requests.
  void drop(std::string why) noexcept;

 private:
  enum class State : std::uint8_t {
    client_flags,
    option,
    option_data,
    answering,  // an option
    request,
    payload,
    refused_payload,
    full,     // no slot is free
    leaving,  // nothing more is received; what is under way is answered
    dropped,
  };
  struct Slot : BlockRequest, ListHook<Slot> {
    std::byte* buffer = nullptr;
    NbdRequest asked;
    std::array<std::byte, 16> reply{};
    std::size_t data_bytes = 0;  // that follow the reply
  };
  using SlotList = IntrusiveList<Slot, Slot>;

  // ByteStream::Owner.
  void on_connected() noexcept override {}
  void on_sent() noexcept override;
  void on_received(std::size_t count) noexcept override;
  void on_closed(const Error& error) noexcept override;

  // The state that has so many bytes to come; take() when they are there.
  void expect(State state, std::byte* into, std::size_t bytes) noexcept;
  void receive() noexcept;
  void take() noexcept;
  void take_option_header() noexcept;
  void take_option() noexcept;
  void continue_answer() noexcept;
  void begin_transmission() noexcept;
  void expect_request() noexcept;
  void take_request() noexcept;
  void take_refused_payload() noexcept;
  void submit(Slot& slot) noexcept;
  static void on_request_complete(BlockRequest& request, IoStatus status) noexcept;
  void complete(Slot& slot, IoStatus status) noexcept;
  void reply(Slot& slot, NbdError error) noexcept;
  void send_replies() noexcept;
  void send_handshake(const std::byte* bytes, std::size_t count) noexcept;
  void leave_if_done() noexcept;
  void release(SlotList& slots) noexcept;
  void end_if_over() noexcept;

  BlockDevice& device_;
  Owner& owner_;

  State state_ = State::client_flags;
  NbdClientFlags client_;
  NbdOption option_;
  std::array<std::byte, NbdRequest::kBytes> header_{};  // the largest of those that are received
  std::vector<std::byte> option_data_;
  NbdAnswer answer_;
  bool answer_due_ = false;  // it waits for the greeting to be sent
  std::array<std::byte, 18> greeting_ = nbd_greeting();

  std::byte* into_ = nullptr;
  std::size_t left_bytes_ = 0;
  std::size_t refused_left_bytes_ = 0;

  std::byte* arena_ = nullptr;
  std::vector<Slot> slots_;
  SlotList free_;
  SlotList ready_;            // to be sent
  SlotList sending_;          // with the outstanding send
  Slot* arriving_ = nullptr;  // whose request, or payload, is being received
  std::uint32_t submitted_ = 0;
  bool send_outstanding_ = false;

  std::unique_ptr<ByteStream> stream_;
  bool stream_closed_ = false;
  std::string why_;
  Deferred send_task_;
  Deferred over_task_;
  Timer handshake_timer_;
};

}  // namespace iscsi_blkback
