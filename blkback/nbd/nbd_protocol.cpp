#include "blkback/nbd/nbd_protocol.h"

#include <algorithm>
#include <bit>

#include "base/byte_order.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint64_t kInitMagic = 0x4e42444d41474943;    // "NBDMAGIC"
constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9;
constexpr std::uint32_t kRequestMagic = 0x25609513;
constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;

constexpr std::uint32_t kFixedNewstyle = 1 << 0;
constexpr std::uint32_t kNoZeroes = 1 << 1;
constexpr std::size_t kZeroes = 124;

constexpr std::uint32_t kOptionExportName = 1;
constexpr std::uint32_t kOptionAbort = 2;
constexpr std::uint32_t kOptionList = 3;
constexpr std::uint32_t kOptionInfo = 6;
constexpr std::uint32_t kOptionGo = 7;

constexpr std::uint32_t kReplyAck = 1;
constexpr std::uint32_t kReplyServer = 2;
constexpr std::uint32_t kReplyInfo = 3;
constexpr std::uint32_t kReplyUnsupported = 0x80000001;
constexpr std::uint32_t kReplyInvalid = 0x80000003;
constexpr std::uint32_t kReplyUnknownExport = 0x80000006;

constexpr std::uint16_t kInfoExport = 0;
constexpr std::uint16_t kInfoBlockSize = 3;

constexpr std::uint16_t kHasFlags = 1 << 0;
constexpr std::uint16_t kSendFlush = 1 << 2;
constexpr std::uint16_t kSendFua = 1 << 3;
constexpr std::uint16_t kSendTrim = 1 << 5;

constexpr std::uint16_t kCommandRead = 0;
constexpr std::uint16_t kCommandWrite = 1;
constexpr std::uint16_t kCommandDisconnect = 2;
constexpr std::uint16_t kCommandFlush = 3;
constexpr std::uint16_t kCommandTrim = 4;
constexpr std::uint16_t kCommandFlagFua = 1 << 0;

class Writer {
 public:
  void u16(std::uint16_t value) { store_be16(grow(2), value); }
  void u32(std::uint32_t value) { store_be32(grow(4), value); }
  void u64(std::uint64_t value) { store_be64(grow(8), value); }
  void zeroes(std::size_t count) { grow(count); }
  void reply(const NbdOption& option, std::uint32_t type, std::uint32_t data_bytes) {
    u64(kOptionReplyMagic);
    u32(option.number);
    u32(type);
    u32(data_bytes);
  }
  std::vector<std::byte> bytes;

 private:
  std::byte* grow(std::size_t count) {
    bytes.resize(bytes.size() + count);
    return bytes.data() + bytes.size() - count;
  }
};

std::uint16_t transmission_flags(const NbdExport& disk) {
  unsigned flags = kHasFlags | kSendFlush | kSendFua;  // without the first flushes are never sent
  flags |= disk.discards ? kSendTrim : 0;
  return static_cast<std::uint16_t>(flags);
}

// Of INFO and GO: the length of a name, the name, the number of wanted pieces of information, these.
enum class NameAsked : std::uint8_t { ours, another, malformed };

NameAsked parse_name(std::span<const std::byte> data) {
  constexpr std::size_t kAround = 4 + 2;
  if (data.size() < kAround) {
    return NameAsked::malformed;
  }
  const std::uint32_t name_bytes = load_be32(data.data());
  if (name_bytes > data.size() - kAround) {
    return NameAsked::malformed;
  }
  const std::uint16_t wanted = load_be16(data.data() + 4 + name_bytes);
  if (data.size() != kAround + name_bytes + 2 * std::size_t{wanted}) {
    return NameAsked::malformed;
  }
  return name_bytes == 0 ? NameAsked::ours : NameAsked::another;
}

// Told whether they are wanted or not: QEMU takes the disk for one of 512 bytes a block if it hears nothing.
void add_information(Writer& out, const NbdOption& option, const NbdExport& disk) {
  out.reply(option, kReplyInfo, 12);
  out.u16(kInfoExport);
  out.u64(disk.sector_count * kSectorBytes);
  out.u16(transmission_flags(disk));
  out.reply(option, kReplyInfo, 14);
  out.u16(kInfoBlockSize);
  out.u32(disk.block_bytes);
  out.u32(disk.preferred_bytes);
  out.u32(disk.max_request_bytes);
  out.reply(option, kReplyAck, 0);
}

NbdRefusal check(const NbdRequest& request, std::uint16_t flags, std::uint64_t offset,
                 std::uint32_t length, const NbdExport& disk) {
  if (disk.ended && request.command != NbdCommand::disconnect) {
    return NbdRefusal::guest_has_ended;
  }
  if ((flags & ~kCommandFlagFua) != 0) {
    return NbdRefusal::unknown_flags;
  }
  if (request.command == NbdCommand::disconnect || request.command == NbdCommand::flush) {
    return NbdRefusal::none;  // offset and length are reserved
  }
  if (length == 0) {
    return NbdRefusal::nothing_asked;
  }
  const bool changes = request.command != NbdCommand::read;
  if (changes && disk.read_only) {
    return NbdRefusal::write_to_read_only_disk;
  }
  if (request.command == NbdCommand::discard && !disk.discards) {
    return NbdRefusal::discard_not_offered;
  }
  if (request.command != NbdCommand::discard && length > disk.max_request_bytes) {
    return NbdRefusal::too_large;
  }
  if ((offset | length) % disk.block_bytes != 0) {
    return NbdRefusal::not_aligned_to_block;
  }
  const std::uint64_t sectors = length / kSectorBytes;
  if (sectors > disk.sector_count || offset / kSectorBytes > disk.sector_count - sectors) {
    return NbdRefusal::beyond_end_of_disk;
  }
  return NbdRefusal::none;
}

}  // namespace

NbdExport NbdExport::of(const Geometry& geometry, bool offers_discards) {
  NbdExport disk;
  disk.sector_count = geometry.sector_count;
  disk.block_bytes = std::max(geometry.logical_block_bytes, kSectorBytes);
  if (geometry.max_transfer_sectors != 0) {
    const std::uint64_t most = std::min<std::uint64_t>(
        std::uint64_t{geometry.max_transfer_sectors} * kSectorBytes, kMaxNbdRequestBytes);
    disk.max_request_bytes =
        std::max(static_cast<std::uint32_t>(most) & ~(disk.block_bytes - 1), disk.block_bytes);
  }
  disk.preferred_bytes = std::bit_floor(
      std::clamp(geometry.physical_block_bytes, disk.block_bytes, disk.max_request_bytes));
  disk.read_only = geometry.read_only;
  disk.discards = offers_discards && geometry.discard_granularity_bytes != 0;
  return disk;
}

std::array<std::byte, 18> nbd_greeting() {
  std::array<std::byte, 18> greeting{};
  store_be64(greeting.data(), kInitMagic);
  store_be64(greeting.data() + 8, kOptionMagic);
  store_be16(greeting.data() + 16, kFixedNewstyle | kNoZeroes);
  return greeting;
}

std::optional<NbdClientFlags> NbdClientFlags::parse(std::span<const std::byte, kBytes> from) {
  const std::uint32_t flags = load_be32(from.data());
  if ((flags & ~(kFixedNewstyle | kNoZeroes)) != 0) {
    return std::nullopt;
  }
  return NbdClientFlags{(flags & kNoZeroes) != 0};
}

std::optional<NbdOption> NbdOption::parse(std::span<const std::byte, kBytes> from) {
  NbdOption option;
  option.number = load_be32(from.data() + 8);
  option.data_bytes = load_be32(from.data() + 12);
  if (load_be64(from.data()) != kOptionMagic || option.data_bytes > kMaxNbdOptionBytes) {
    return std::nullopt;
  }
  return option;
}

NbdAnswer answer_nbd_option(const NbdOption& option, std::span<const std::byte> data,
                            const NbdClientFlags& client, const NbdExport& disk) {
  NbdAnswer answer;
  Writer out;
  switch (option.number) {
    case kOptionExportName:
      if (!data.empty()) {
        return {NbdAnswer::Next::drop, {}};
      }
      answer.next = NbdAnswer::Next::transmission;
      out.u64(disk.sector_count * kSectorBytes);
      out.u16(transmission_flags(disk));
      out.zeroes(client.no_zeroes ? 0 : kZeroes);
      break;
    case kOptionAbort:
      answer.next = NbdAnswer::Next::end;
      out.reply(option, kReplyAck, 0);
      break;
    case kOptionList:
      if (!data.empty()) {
        out.reply(option, kReplyInvalid, 0);
        break;
      }
      out.reply(option, kReplyServer, 4);
      out.u32(0);  // the length of the name
      out.reply(option, kReplyAck, 0);
      break;
    case kOptionInfo:
    case kOptionGo:
      switch (parse_name(data)) {
        case NameAsked::malformed:
          out.reply(option, kReplyInvalid, 0);
          break;
        case NameAsked::another:
          out.reply(option, kReplyUnknownExport, 0);
          break;
        case NameAsked::ours:
          add_information(out, option, disk);
          if (option.number == kOptionGo) {
            answer.next = NbdAnswer::Next::transmission;
          }
          break;
      }
      break;
    default:
      out.reply(option, kReplyUnsupported, 0);
      break;
  }
  answer.bytes = std::move(out.bytes);
  return answer;
}

NbdRequest NbdRequest::parse(std::span<const std::byte, kBytes> from, const NbdExport& disk) {
  NbdRequest request;
  if (load_be32(from.data()) != kRequestMagic) {
    request.refusal = NbdRefusal::bad_magic;
    return request;
  }
  const std::uint16_t flags = load_be16(from.data() + 4);
  const std::uint16_t command = load_be16(from.data() + 6);
  request.handle = load_be64(from.data() + 8);
  const std::uint64_t offset = load_be64(from.data() + 16);
  const std::uint32_t length = load_be32(from.data() + 24);
  request.force_unit_access = (flags & kCommandFlagFua) != 0;
  switch (command) {
    case kCommandRead:
      request.command = NbdCommand::read;
      break;
    case kCommandWrite:
      request.command = NbdCommand::write;
      request.payload_bytes = length;
      if (length > kMaxNbdPayloadBytes) {
        request.refusal = NbdRefusal::too_much_payload;
        return request;
      }
      break;
    case kCommandDisconnect:
      request.command = NbdCommand::disconnect;
      break;
    case kCommandFlush:
      request.command = NbdCommand::flush;
      break;
    case kCommandTrim:
      request.command = NbdCommand::discard;
      break;
    default:
      request.refusal = NbdRefusal::unknown_command;
      return request;
  }
  request.refusal = check(request, flags, offset, length, disk);
  if (request.command != NbdCommand::disconnect && request.command != NbdCommand::flush) {
    request.sector = offset / kSectorBytes;
    request.sector_count = length / kSectorBytes;
  }
  return request;
}

NbdError nbd_error(NbdRefusal refusal) {
  switch (refusal) {
    case NbdRefusal::none:
      return NbdError::none;
    case NbdRefusal::write_to_read_only_disk:
      return NbdError::not_permitted;
    case NbdRefusal::discard_not_offered:
      return NbdError::not_supported;
    case NbdRefusal::guest_has_ended:
      return NbdError::io;
    case NbdRefusal::beyond_end_of_disk:  // proto.md would have ENOSPC for writes
    case NbdRefusal::bad_magic:
    case NbdRefusal::too_much_payload:
    case NbdRefusal::unknown_command:
    case NbdRefusal::unknown_flags:
    case NbdRefusal::nothing_asked:
    case NbdRefusal::too_large:
    case NbdRefusal::not_aligned_to_block:
      return NbdError::invalid;
  }
  return NbdError::invalid;
}

NbdError nbd_error(IoStatus status) {
  switch (status) {
    case IoStatus::ok:
      return NbdError::none;
    case IoStatus::write_protected:
      return NbdError::not_permitted;
    case IoStatus::not_supported:  // discards; QEMU does without
      return NbdError::not_supported;
    case IoStatus::no_space:
    case IoStatus::medium_error:
    case IoStatus::target_error:
    case IoStatus::out_of_range:
    case IoStatus::reservation_conflict:
    case IoStatus::no_path:
    case IoStatus::aborted:
      return NbdError::io;
  }
  return NbdError::io;
}

std::array<std::byte, 16> nbd_simple_reply(NbdError error, std::uint64_t handle) {
  std::array<std::byte, 16> reply{};
  store_be32(reply.data(), kSimpleReplyMagic);
  store_be32(reply.data() + 4, static_cast<std::uint32_t>(error));
  store_be64(reply.data() + 8, handle);
  return reply;
}

}  // namespace iscsi_blkback
