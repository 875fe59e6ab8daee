#include "blkback/nbd/nbd_protocol.h"

#include <gtest/gtest.h>

#include "base/byte_order.h"
#include "tests/support/fake_nbd_client.h"

namespace iscsi_blkback {
namespace {

using Next = NbdAnswer::Next;

constexpr std::uint64_t kReplyMagic = 0x0003e889045565a9;

NbdExport disk_of(std::uint64_t sectors = 2048) {
  NbdExport disk;
  disk.sector_count = sectors;
  disk.discards = true;
  return disk;
}

NbdBytes option_reply(std::uint32_t option, std::uint32_t type, const NbdBytes& data = {}) {
  return NbdWriter()
      .u64(kReplyMagic)
      .u32(option)
      .u32(type)
      .u32(static_cast<std::uint32_t>(data.size()))
      .append(data)
      .bytes;
}

NbdAnswer answer(std::uint32_t number, const NbdBytes& data = {}, bool no_zeroes = true,
                 const NbdExport& disk = disk_of()) {
  const NbdOption option{number, static_cast<std::uint32_t>(data.size())};
  return answer_nbd_option(option, data, NbdClientFlags{no_zeroes}, disk);
}

// EXPORT, BLOCK_SIZE, ACK.
NbdBytes information(std::uint32_t option, std::uint64_t bytes, std::uint16_t flags,
                     std::uint32_t block = 512, std::uint32_t preferred = 512) {
  NbdWriter out;
  out.append(option_reply(option, 3, NbdWriter().u16(0).u64(bytes).u16(flags).bytes));
  out.append(
      option_reply(option, 3, NbdWriter().u16(3).u32(block).u32(preferred).u32(1048576).bytes));
  out.append(option_reply(option, 1));
  return out.bytes;
}

template <std::size_t kBytes>
std::span<const std::byte, kBytes> fixed(const NbdBytes& bytes) {
  EXPECT_EQ(bytes.size(), kBytes);
  return std::span<const std::byte, kBytes>(bytes.data(), kBytes);
}

// ---- the handshake

TEST(NbdHandshake, TheGreetingOffersTheFixedNewstyleWithoutZeroes) {
  const auto greeting = nbd_greeting();
  EXPECT_EQ(NbdBytes(greeting.begin(), greeting.end()),
            NbdWriter().text("NBDMAGICIHAVEOPT").u16(3).bytes);
}

TEST(NbdHandshake, AClientMaySayEachFlagThatItWasOffered) {
  for (const std::uint32_t flags : {0U, 1U, 2U, 3U}) {
    const NbdBytes bytes = NbdWriter().u32(flags).bytes;
    const auto parsed = NbdClientFlags::parse(fixed<4>(bytes));
    ASSERT_TRUE(parsed) << flags;
    EXPECT_EQ(parsed->no_zeroes, (flags & 2) != 0);
  }
}

TEST(NbdHandshake, RejectsFlagsThatWereNotOffered) {
  for (const std::uint32_t flags : {4U, 0x80000000U, 0xffffffffU}) {
    const NbdBytes bytes = NbdWriter().u32(flags).bytes;
    EXPECT_FALSE(NbdClientFlags::parse(fixed<4>(bytes))) << flags;
  }
}

TEST(NbdHandshake, RejectsAnOptionWithoutItsMagic) {
  const NbdBytes bytes = NbdWriter().u64(kNbdOptionMagic + 1).u32(7).u32(0).bytes;
  EXPECT_FALSE(NbdOption::parse(fixed<16>(bytes)));
}

TEST(NbdHandshake, RejectsAnOptionThatIsLongerThanAny) {
  const NbdBytes longest = NbdWriter().u64(kNbdOptionMagic).u32(7).u32(kMaxNbdOptionBytes).bytes;
  EXPECT_TRUE(NbdOption::parse(fixed<16>(longest)));
  const NbdBytes longer = NbdWriter().u64(kNbdOptionMagic).u32(7).u32(kMaxNbdOptionBytes + 1).bytes;
  EXPECT_FALSE(NbdOption::parse(fixed<16>(longer)));
}

TEST(NbdHandshake, GoTellsSizeFlagsAndBlocks) {
  const NbdAnswer go = answer(7, nbd_go_data());
  EXPECT_EQ(go.next, Next::transmission);
  // HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM.
  EXPECT_EQ(go.bytes, information(7, 1048576, 0x2d));
}

TEST(NbdHandshake, InfoTellsTheSameAndGoesOnWithOptions) {
  const NbdAnswer info = answer(6, nbd_go_data("", {0, 1, 2, 3}));
  EXPECT_EQ(info.next, Next::option);
  EXPECT_EQ(info.bytes, information(6, 1048576, 0x2d));
}

TEST(NbdHandshake, AFlushIsOfferedOfEveryDisk) {
  NbdExport disk = disk_of();
  disk.discards = false;
  EXPECT_EQ(answer(7, nbd_go_data(), true, disk).bytes, information(7, 1048576, 0x0d));
}

// QEMU cannot go on with a drive that has become read-only when it connects again.
TEST(NbdHandshake, NoClientIsToldThatADiskIsReadOnly) {
  NbdExport disk = disk_of();
  disk.read_only = true;
  EXPECT_EQ(answer(7, nbd_go_data(), true, disk).bytes,
            answer(7, nbd_go_data(), true, disk_of()).bytes);
}

TEST(NbdHandshake, RejectsAnotherExport) {
  const NbdAnswer go = answer(7, nbd_go_data("other"));
  EXPECT_EQ(go.next, Next::option);
  EXPECT_EQ(go.bytes, option_reply(7, 0x80000006));
}

TEST(NbdHandshake, RejectsAGoWhoseLengthsDoNotAgree) {
  for (const NbdBytes& data :
       {NbdBytes(), NbdWriter().u32(0).bytes, NbdWriter().u32(1).u16(0).bytes,
        NbdWriter().u32(0xffffffff).u16(0).bytes, NbdWriter().u32(0).u16(1).bytes,
        NbdWriter().u32(0).u16(0xffff).u16(3).bytes, NbdWriter().u32(0).u16(0).u16(3).bytes}) {
    const NbdAnswer go = answer(7, data);
    EXPECT_EQ(go.next, Next::option);
    EXPECT_EQ(go.bytes, option_reply(7, 0x80000003)) << data.size();
  }
}

TEST(NbdHandshake, ExportNameBeginsWithOrWithoutZeroes) {
  const NbdBytes head = NbdWriter().u64(1048576).u16(0x2d).bytes;
  EXPECT_EQ(answer(1).next, Next::transmission);
  EXPECT_EQ(answer(1).bytes, head);
  EXPECT_EQ(answer(1, {}, false).bytes, NbdWriter().append(head).append(NbdBytes(124)).bytes);
}

TEST(NbdHandshake, RejectsTheNameOfAnotherExportByDroppingTheConnection) {
  EXPECT_EQ(answer(1, NbdWriter().text("x").bytes).next, Next::drop);
}

TEST(NbdHandshake, ListHasTheOneExport) {
  EXPECT_EQ(answer(3).bytes, NbdWriter()
                                 .append(option_reply(3, 2, NbdWriter().u32(0).bytes))
                                 .append(option_reply(3, 1))
                                 .bytes);
  EXPECT_EQ(answer(3).next, Next::option);
}

TEST(NbdHandshake, RejectsAListWithData) {
  EXPECT_EQ(answer(3, NbdBytes(1)).bytes, option_reply(3, 0x80000003));
}

TEST(NbdHandshake, AbortIsAcknowledgedAndTheEnd) {
  EXPECT_EQ(answer(2).next, Next::end);
  EXPECT_EQ(answer(2).bytes, option_reply(2, 1));
}

TEST(NbdHandshake, RejectsAllOtherOptionsAsUnsupported) {
  for (const std::uint32_t option : {0U, 4U, 5U, 8U, 9U, 10U, 11U, 0xffffffffU}) {
    EXPECT_EQ(answer(option, NbdBytes(3)).next, Next::option);
    EXPECT_EQ(answer(option, NbdBytes(3)).bytes, option_reply(option, 0x80000001));
  }
}

// ---- what a disk is to its clients

TEST(NbdExport, BlocksAreThoseOfTheDeviceAndPhysicalOnesArePreferred) {
  Geometry geometry;
  geometry.sector_count = 80;
  geometry.logical_block_bytes = 4096;
  geometry.physical_block_bytes = 16384;
  const NbdExport disk = NbdExport::of(geometry, true);
  EXPECT_EQ(disk.sector_count, 80U);
  EXPECT_EQ(disk.block_bytes, 4096U);
  EXPECT_EQ(disk.preferred_bytes, 16384U);
  EXPECT_EQ(disk.max_request_bytes, kMaxNbdRequestBytes);
  EXPECT_FALSE(disk.discards);
}

// proto.md has the preferred one be a power of two.
TEST(NbdExport, TheLargestRequestIsWholeBlocksAndNotLessThanThePreferredOne) {
  Geometry geometry;
  geometry.logical_block_bytes = 4096;
  geometry.physical_block_bytes = 1 << 20;
  geometry.max_transfer_sectors = 127;
  const NbdExport disk = NbdExport::of(geometry, false);
  EXPECT_EQ(disk.max_request_bytes, 61440U);
  EXPECT_EQ(disk.preferred_bytes, 32768U);
}

TEST(NbdExport, DiscardsAreOfferedWhereTheDeviceHasThem) {
  Geometry geometry;
  geometry.discard_granularity_bytes = 4096;
  EXPECT_TRUE(NbdExport::of(geometry, true).discards);
  EXPECT_FALSE(NbdExport::of(geometry, false).discards);
}

// ---- requests

NbdRequest parse(const NbdBytes& bytes, const NbdExport& disk = disk_of()) {
  return NbdRequest::parse(std::span(bytes).first<NbdRequest::kBytes>(), disk);
}

NbdRefusal refusal(const NbdBytes& bytes, const NbdExport& disk = disk_of()) {
  return parse(bytes, disk).refusal;
}

TEST(NbdRequest, AReadNamesItsSectors) {
  const NbdRequest request = parse(nbd_request(0, 0x1122334455667788, 1024, 1536));
  EXPECT_EQ(request.refusal, NbdRefusal::none);
  EXPECT_EQ(request.command, NbdCommand::read);
  EXPECT_EQ(request.handle, 0x1122334455667788U);
  EXPECT_EQ(request.sector, 2U);
  EXPECT_EQ(request.sector_count, 3U);
  EXPECT_EQ(request.payload_bytes, 0U);
  EXPECT_FALSE(request.force_unit_access);
}

TEST(NbdRequest, AWriteHasItsPayload) {
  const NbdRequest request = parse(nbd_request(1, 7, 0, 4096, 1));
  EXPECT_EQ(request.refusal, NbdRefusal::none);
  EXPECT_EQ(request.command, NbdCommand::write);
  EXPECT_EQ(request.payload_bytes, 4096U);
  EXPECT_TRUE(request.force_unit_access);
}

TEST(NbdRequest, OffsetAndLengthOfAFlushMeanNothing) {
  const NbdRequest request = parse(nbd_request(3, 7, 12345, 77));
  EXPECT_EQ(request.refusal, NbdRefusal::none);
  EXPECT_EQ(request.command, NbdCommand::flush);
  EXPECT_EQ(request.sector_count, 0U);
}

TEST(NbdRequest, ADisconnectAndADiscardAreKnown) {
  EXPECT_EQ(parse(nbd_request(2, 7, 0, 0)).command, NbdCommand::disconnect);
  const NbdRequest discard = parse(nbd_request(4, 7, 512, 1048064));
  EXPECT_EQ(discard.refusal, NbdRefusal::none);
  EXPECT_EQ(discard.command, NbdCommand::discard);
  EXPECT_EQ(discard.sector_count, 2047U);
}

TEST(NbdRequest, TheLastSectorMayBeRead) {
  EXPECT_EQ(refusal(nbd_request(0, 1, 2047 * 512, 512)), NbdRefusal::none);
}

TEST(NbdRequest, RejectsWhatHasNotItsMagic) {
  NbdBytes bytes = nbd_request(0, 1, 0, 512);
  bytes[3] = std::byte{0x14};
  EXPECT_EQ(refusal(bytes), NbdRefusal::bad_magic);
  EXPECT_TRUE(parse(bytes).drops_connection());
}

TEST(NbdRequest, RejectsAPayloadThatNoClientMaySend) {
  EXPECT_EQ(refusal(nbd_request(1, 1, 0, kMaxNbdPayloadBytes)), NbdRefusal::too_large);
  EXPECT_EQ(refusal(nbd_request(1, 1, 0, kMaxNbdPayloadBytes + 512)), NbdRefusal::too_much_payload);
  EXPECT_TRUE(parse(nbd_request(1, 1, 0, 0xffffffff)).drops_connection());
}

TEST(NbdRequest, RejectsMoreThanTheClientWasTold) {
  const NbdExport large = disk_of(1 << 20);
  EXPECT_EQ(refusal(nbd_request(0, 1, 0, kMaxNbdRequestBytes), large), NbdRefusal::none);
  EXPECT_EQ(refusal(nbd_request(0, 1, 0, kMaxNbdRequestBytes + 512), large), NbdRefusal::too_large);
  // A discard has no payload.
  EXPECT_EQ(refusal(nbd_request(4, 1, 0, kMaxNbdRequestBytes + 512), large), NbdRefusal::none);
}

TEST(NbdRequest, RejectsUnknownCommands) {
  for (const unsigned command : {5U, 6U, 7U, 8U, 0xffffU}) {
    const NbdRequest request = parse(nbd_request(static_cast<std::uint16_t>(command), 9, 0, 512));
    EXPECT_EQ(request.refusal, NbdRefusal::unknown_command);
    EXPECT_EQ(request.handle, 9U);
    EXPECT_EQ(request.payload_bytes, 0U);
  }
}

TEST(NbdRequest, RejectsUnknownFlags) {
  for (const unsigned flags : {2U, 4U, 8U, 0x8000U}) {
    EXPECT_EQ(refusal(nbd_request(0, 1, 0, 512, static_cast<std::uint16_t>(flags))),
              NbdRefusal::unknown_flags);
  }
}

TEST(NbdRequest, RejectsALengthOfNothing) {
  for (const unsigned command : {0U, 1U, 4U}) {
    EXPECT_EQ(refusal(nbd_request(static_cast<std::uint16_t>(command), 1, 0, 0)),
              NbdRefusal::nothing_asked);
  }
}

TEST(NbdRequest, RejectsPartsOfBlocks) {
  EXPECT_EQ(refusal(nbd_request(0, 1, 1, 512)), NbdRefusal::not_aligned_to_block);
  EXPECT_EQ(refusal(nbd_request(0, 1, 0, 511)), NbdRefusal::not_aligned_to_block);
  NbdExport blocks = disk_of();
  blocks.block_bytes = 4096;
  EXPECT_EQ(refusal(nbd_request(1, 1, 512, 4096), blocks), NbdRefusal::not_aligned_to_block);
  EXPECT_EQ(refusal(nbd_request(1, 1, 4096, 512), blocks), NbdRefusal::not_aligned_to_block);
  EXPECT_EQ(refusal(nbd_request(1, 1, 4096, 4096), blocks), NbdRefusal::none);
}

TEST(NbdRequest, RejectsWhatIsBeyondTheEnd) {
  for (const std::uint64_t offset :
       {std::uint64_t{2047 * 512}, std::uint64_t{2048 * 512}, ~std::uint64_t{511}}) {
    EXPECT_EQ(refusal(nbd_request(1, 1, offset, 1024)), NbdRefusal::beyond_end_of_disk) << offset;
  }
  EXPECT_EQ(refusal(nbd_request(4, 1, 0, 0xfffffe00)), NbdRefusal::beyond_end_of_disk);
}

TEST(NbdRequest, RejectsChangesOfAReadOnlyDisk) {
  NbdExport disk = disk_of();
  disk.read_only = true;
  EXPECT_EQ(refusal(nbd_request(1, 1, 0, 512), disk), NbdRefusal::write_to_read_only_disk);
  EXPECT_EQ(refusal(nbd_request(4, 1, 0, 512), disk), NbdRefusal::write_to_read_only_disk);
  EXPECT_EQ(refusal(nbd_request(0, 1, 0, 512), disk), NbdRefusal::none);
}

TEST(NbdRequest, RejectsDiscardsThatAreNotOffered) {
  NbdExport disk = disk_of();
  disk.discards = false;
  EXPECT_EQ(refusal(nbd_request(4, 1, 0, 512), disk), NbdRefusal::discard_not_offered);
}

// ---- replies

TEST(NbdReply, HasTheHandleOfItsRequest) {
  const auto reply = nbd_simple_reply(NbdError::io, 0x1122334455667788);
  EXPECT_EQ(NbdBytes(reply.begin(), reply.end()),
            NbdWriter().u32(0x67446698).u32(5).u64(0x1122334455667788).bytes);
}

// QEMU stops the machine for ENOSPC (28).
TEST(NbdReply, AFullLunIsAnErrorOfTheDisk) {
  EXPECT_EQ(nbd_error(IoStatus::no_space), NbdError::io);
  for (int status = 0; status <= static_cast<int>(IoStatus::aborted); ++status) {
    const NbdError error = nbd_error(static_cast<IoStatus>(status));
    EXPECT_NE(static_cast<std::uint32_t>(error), 28U);
    EXPECT_EQ(error == NbdError::none, static_cast<IoStatus>(status) == IoStatus::ok);
  }
  for (int refused = 1; refused <= static_cast<int>(NbdRefusal::discard_not_offered); ++refused) {
    const auto error = static_cast<std::uint32_t>(nbd_error(static_cast<NbdRefusal>(refused)));
    EXPECT_NE(error, 28U);
    EXPECT_NE(error, 0U);
  }
}

}  // namespace
}  // namespace iscsi_blkback
