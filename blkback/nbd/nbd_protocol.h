// The NBD protocol (NetworkBlockDevice/nbd, doc/proto.md) as far as a server of one disk speaks it: the
// fixed newstyle handshake, and requests with simple replies. Pure functions of bytes: the door through
// which all that a client says comes. Sizes are bytes, numbers big-endian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/block_device.h"

namespace iscsi_blkback {

// What a request may carry, as the client is told; more than that is refused.
inline constexpr std::uint32_t kMaxNbdRequestBytes = 1024 * 1024;
// What a client that did not ask may think to be allowed. It is read to its end, refused; more is no NBD.
inline constexpr std::uint32_t kMaxNbdPayloadBytes = 32 * 1024 * 1024;
// A name of 4096 bytes, the longest there may be, and what stands beside it.
inline constexpr std::uint32_t kMaxNbdOptionBytes = 8192;

// The disk as its only export, whose name is empty.
struct NbdExport {
  std::uint64_t sector_count = 0;
  std::uint32_t block_bytes = kSectorBytes;  // what a request is whole blocks of
  std::uint32_t preferred_bytes = kSectorBytes;
  std::uint32_t max_request_bytes = kMaxNbdRequestBytes;
  // Changes are refused. No client is told: one that was connected before would take it for another disk.
  bool read_only = false;
  bool ended = false;  // all is refused
  bool discards = false;

  // offers_discards: where the disk has them.
  [[nodiscard]] static NbdExport of(const Geometry& geometry, bool offers_discards);
};

// ---- the handshake ----

// The server speaks first.
[[nodiscard]] std::array<std::byte, 18> nbd_greeting();

struct NbdClientFlags {
  static constexpr std::size_t kBytes = 4;
  bool no_zeroes = false;

  // Nothing: a flag that was not offered; the connection is dropped.
  [[nodiscard]] static std::optional<NbdClientFlags> parse(std::span<const std::byte, kBytes> from);
};

struct NbdOption {
  static constexpr std::size_t kBytes = 16;
  std::uint32_t number = 0;
  std::uint32_t data_bytes = 0;  // that follow

  // Nothing: no option, or longer than any; the connection is dropped.
  [[nodiscard]] static std::optional<NbdOption> parse(std::span<const std::byte, kBytes> from);
};

struct NbdAnswer {
  enum class Next : std::uint8_t {
    option,        // the client's next one
    transmission,  // requests from now on
    end,           // close when the answer is sent
    drop,          // an option that cannot be answered with an error
  };
  Next next = Next::option;
  std::vector<std::byte> bytes;  // to be sent before
};

// data: all of the option's.
[[nodiscard]] NbdAnswer answer_nbd_option(const NbdOption& option, std::span<const std::byte> data,
                                          const NbdClientFlags& client, const NbdExport& disk);

// ---- requests ----

enum class NbdRefusal : std::uint8_t {
  none,
  // The connection is dropped: what follows could be anything.
  bad_magic,
  too_much_payload,
  // Answered with an error.
  unknown_command,
  unknown_flags,
  nothing_asked,  // a length of 0
  too_large,
  not_aligned_to_block,
  beyond_end_of_disk,
  write_to_read_only_disk,
  guest_has_ended,
  discard_not_offered,
};

enum class NbdCommand : std::uint8_t { read, write, disconnect, flush, discard };

struct NbdRequest {
  static constexpr std::size_t kBytes = 28;
  NbdRefusal refusal = NbdRefusal::none;
  std::uint64_t handle = 0;
  std::uint32_t payload_bytes = 0;  // that follow, refused or not
  // Unless it is refused:
  NbdCommand command = NbdCommand::read;
  bool force_unit_access = false;  // a change is on the medium before it is answered
  std::uint64_t sector = 0;
  std::uint32_t sector_count = 0;  // 0 for flush and disconnect

  [[nodiscard]] bool drops_connection() const {
    return refusal == NbdRefusal::bad_magic || refusal == NbdRefusal::too_much_payload;
  }
  [[nodiscard]] static NbdRequest parse(std::span<const std::byte, kBytes> from,
                                        const NbdExport& disk);
};

// The numbers that the protocol has for errors. None is ENOSPC, for which QEMU stops the machine.
enum class NbdError : std::uint32_t {
  none = 0,
  not_permitted = 1,
  io = 5,
  invalid = 22,
  not_supported = 95,
};

[[nodiscard]] NbdError nbd_error(NbdRefusal refusal);
[[nodiscard]] NbdError nbd_error(IoStatus status);

// The data of a read that succeeded follows.
[[nodiscard]] std::array<std::byte, 16> nbd_simple_reply(NbdError error, std::uint64_t handle);

}  // namespace iscsi_blkback
