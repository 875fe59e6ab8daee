#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "initiator/scsi/sense.h"
#include "initiator/scsi/vpd.h"
#include "tests/support/sim_lun.h"
#include "tests/support/vpd_bytes.h"

namespace iscsi_blkback {
namespace {

TEST(Sense, ParsesFixedFormat) {
  const SenseData sense = parse_sense(make_sense(SenseKey::unit_attention, 0x2a09));
  EXPECT_TRUE(sense.valid);
  EXPECT_EQ(sense.key, SenseKey::unit_attention);
  EXPECT_EQ(sense.code(), 0x2a09);
}

TEST(Sense, TheKeyHasFourBitsAndFlagsBesideIt) {
  Bytes sense = make_sense(SenseKey::unit_attention, 0x2a09);
  sense[2] |= std::byte{0xf0};  // FILEMARK, EOM, ILI, SDAT_OVFL
  EXPECT_EQ(parse_sense(sense).key, SenseKey::unit_attention);
  EXPECT_EQ(parse_sense(octets({0x72, 0xf2, 0x04, 0x0b, 0, 0, 0, 0})).key, SenseKey::not_ready);
}

TEST(Sense, ParsesDescriptorFormat) {
  const SenseData sense = parse_sense(octets({0x72, 0x02, 0x04, 0x0b, 0, 0, 0, 0}));
  EXPECT_TRUE(sense.valid);
  EXPECT_EQ(sense.key, SenseKey::not_ready);
  EXPECT_EQ(sense.code(), 0x040b);
}

TEST(Sense, NeverReadsPastTheEnd) {
  const Bytes whole = make_sense(SenseKey::medium_error, 0x1100);
  for (std::size_t length = 0; length <= whole.size(); ++length) {
    // A copy of exactly this length, so that the sanitizer sees a step too far.
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    const SenseData sense = parse_sense(cut);
    EXPECT_EQ(sense.valid, length >= 3);
    EXPECT_EQ(sense.asc, length >= 13 ? 0x11 : 0);
  }
}

TEST(Sense, AdditionalLengthLimitsTheCodes) {
  Bytes sense = make_sense(SenseKey::medium_error, 0x1104);
  sense[7] = std::byte{5};  // byte 13 is not part of it
  EXPECT_EQ(parse_sense(sense).code(), 0x1100);
  sense[7] = std::byte{4};  // bytes 12 and 13 are not part of it
  EXPECT_EQ(parse_sense(sense).asc, 0);
}

TEST(Sense, UnknownResponseCodeIsNotValid) {
  EXPECT_FALSE(parse_sense(octets({0x7f, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0})).valid);
}

TEST(Sense, InformationAndProgressOfTheFixedFormat) {
  Bytes sense = make_sense(SenseKey::not_ready, 0x0404);
  EXPECT_FALSE(parse_sense(sense).progress);
  sense[15] = std::byte{0x80};
  sense[16] = std::byte{0x40};
  EXPECT_EQ(parse_sense(sense).progress, 0x4000);
  EXPECT_EQ(sense_text(parse_sense(sense)), "2/04/04 (not ready: format in progress, 25 % done)");
  sense = make_sense(SenseKey::medium_error, 0x1100);
  sense[15] = std::byte{0x80};
  sense[6] = std::byte{9};
  EXPECT_FALSE(parse_sense(sense).information) << "the VALID bit is not set";
  sense[0] = std::byte{0xf0};
  EXPECT_EQ(parse_sense(sense).information, 9U);
  EXPECT_FALSE(parse_sense(sense).progress) << "a retry count, with this key";
  EXPECT_EQ(sense_text(parse_sense(sense)),
            "3/11/00 (medium error: unrecovered read error, at block 9)");
}

TEST(Sense, InformationAndProgressOfTheDescriptorFormat) {
  const Bytes whole = octets({0x72, 0x02, 0x04, 0x04, 0,    0,    0, 20,              //
                              0x00, 0x0a, 0x80, 0,    1,    2,    3, 4,  5, 6, 7, 8,  //
                              0x02, 0x06, 0,    0,    0x80, 0x80, 0, 0});
  const SenseData sense = parse_sense(whole);
  EXPECT_EQ(sense.information, 0x0102030405060708U);
  EXPECT_EQ(sense.progress, 0x8000);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    const SenseData parsed = parse_sense(cut);
    EXPECT_EQ(parsed.valid, length >= 4);
    EXPECT_EQ(parsed.information.has_value(), length >= 20);
    EXPECT_FALSE(parsed.progress);
  }
}

TEST(Sense, DescriptorsEndWithTheAdditionalLength) {
  Bytes sense =
      octets({0x72, 0x03, 0x11, 0, 0, 0, 0, 4, 0x00, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 1});
  EXPECT_FALSE(parse_sense(sense).information);
  sense[7] = std::byte{12};
  EXPECT_EQ(parse_sense(sense).information, 1U);
  sense[9] = std::byte{0xff};  // a descriptor longer than all of it
  EXPECT_FALSE(parse_sense(sense).information);
}

TEST(Sense, DeferredErrorsAreToldApart) {
  Bytes fixed = make_sense(SenseKey::medium_error, 0x0c00);
  EXPECT_FALSE(parse_sense(fixed).deferred);
  fixed[0] = std::byte{0x71};
  EXPECT_TRUE(parse_sense(fixed).deferred);
  EXPECT_EQ(sense_text(parse_sense(fixed)),
            "3/0c/00 (medium error: write error, of an earlier command)");
  EXPECT_TRUE(parse_sense(octets({0x73, 0x03, 0x0c, 0, 0, 0, 0, 0})).deferred);
  EXPECT_FALSE(parse_sense(octets({0x73})).deferred) << "cut off: nothing is known";
}

TEST(Sense, EveryCodeHasWordsOrNone) {
  for (int code = 0; code < 0x10000; ++code) {
    ASSERT_NE(additional_sense_text(static_cast<std::uint16_t>(code)), nullptr);
  }
  EXPECT_STREQ(additional_sense_text(0x2a09), "capacity data has changed");
  EXPECT_STREQ(additional_sense_text(0x1177), "unrecovered read error") << "the ASC's words";
  EXPECT_STREQ(additional_sense_text(0x8001), "");
  EXPECT_EQ(sense_text(SenseData{}), "no usable sense data");
}

TEST(Vpd, InquiryStripsBlanksAndShowsUnprintables) {
  Bytes data(36, std::byte{' '});
  data[0] = std::byte{0x00};
  data[5] = std::byte{0x10};
  data[8] = std::byte{'A'};
  data[9] = std::byte{0x1b};
  const auto inquiry = parse_inquiry(data);
  ASSERT_TRUE(inquiry);
  EXPECT_EQ(inquiry->vendor, "A\\x1b");
  EXPECT_EQ(inquiry->product, "");
  EXPECT_EQ(inquiry->tpgs, 1);
}

TEST(Vpd, RefusesInquiryThatIsCutOff) {
  EXPECT_FALSE(parse_inquiry(Bytes(35)));
}
TEST(Vpd, RefusesAnotherPageThanAsked) {
  EXPECT_FALSE(parse_unit_serial_number(page(0x83, octets({'x'}))));
}
TEST(Vpd, RefusesPageThatIsCutOff) {
  EXPECT_FALSE(parse_unit_serial_number(octets({0, 0x80, 0})));
}

TEST(Vpd, SerialNumberLosesItsBlanks) {
  EXPECT_EQ(parse_unit_serial_number(page(0x80, octets({' ', 'S', 'N', '1', ' '}))), "SN1");
}

TEST(Vpd, DesignatorsOfTheLogicalUnitInTheirOrder) {
  const Bytes t10 = designator(kAscii, kT10, text("TGT "));
  const Bytes naa = designator(kBinary, kNaa, octets({0x50, 1, 2, 3, 4, 5, 6, 7}));
  const Bytes port = octets({1, 0x93, 0, 8, 0x50, 9, 9, 9, 9, 9, 9, 9});
  const Bytes target = octets({3, 0xa8, 0, 4, 'i', 'q', 'n', '.'});
  const auto designators =
      parse_designators(page(0x83, joined({t10, port, naa, target, designator(5, 12, {})})));
  ASSERT_TRUE(designators);
  EXPECT_EQ(*designators,
            (std::vector<Designator>{
                {2, 1, "TGT "}, {1, 3, std::string("\x50\1\2\3\4\5\6\7")}, {5, 12, ""}}));
  EXPECT_TRUE(parse_designators(page(0x83, {}))->empty());
  EXPECT_FALSE(parse_designators(page(0x80, t10)));
}

TEST(Vpd, SerialNumbersThatDifferInOneByteAreTold) {
  std::set<std::string> serials;
  for (int byte = 0; byte < 256; ++byte) {
    serials.insert(parse_unit_serial_number(page(0x80, octets({'A', byte, 'B'}))).value());
  }
  EXPECT_EQ(serials.size(), 256U);
  EXPECT_TRUE(serials.contains("A\\x1bB"));
  EXPECT_TRUE(serials.contains("A\\x5cB"));
}

TEST(Vpd, ADesignatorThatIsCutOffIsNone) {
  const Bytes whole = page(0x83, designator(kBinary, kNaa, octets({0x50, 1, 2, 3, 4, 5, 6, 7})));
  for (std::size_t length = 4; length < whole.size(); ++length) {
    // A copy of exactly this length, so that the sanitizer sees a step too far.
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    const auto designators = parse_designators(cut);
    ASSERT_TRUE(designators);
    EXPECT_TRUE(designators->empty()) << length;
  }
}

TEST(Vpd, BlockLimitsWithAndWithoutTheField) {
  Bytes body(60);
  body[7] = std::byte{9};
  EXPECT_EQ(parse_block_limits(page(0xb0, body))->max_transfer_blocks, 9U);
  EXPECT_EQ(parse_block_limits(page(0xb0, Bytes(4)))->max_transfer_blocks, 0U);
}

TEST(Vpd, BlockLimitsOfDeallocation) {
  Bytes body(60);
  body[11] = std::byte{8};     // optimal transfer
  body[19] = std::byte{16};    // blocks of an UNMAP
  body[23] = std::byte{4};     // ranges
  body[27] = std::byte{32};    // granularity
  body[28] = std::byte{0x80};  // alignment is valid
  body[31] = std::byte{3};
  body[39] = std::byte{64};  // WRITE SAME
  const auto limits = parse_block_limits(page(0xb0, body));
  ASSERT_TRUE(limits);
  EXPECT_EQ(limits->optimal_transfer_blocks, 8U);
  EXPECT_EQ(limits->max_unmap_blocks, 16U);
  EXPECT_EQ(limits->max_unmap_ranges, 4U);
  EXPECT_EQ(limits->unmap_granularity_blocks, 32U);
  EXPECT_EQ(limits->unmap_alignment_blocks, 3U);
  EXPECT_EQ(limits->max_write_same_blocks, 64U);
  body[28] = std::byte{0};
  EXPECT_EQ(parse_block_limits(page(0xb0, body))->unmap_alignment_blocks, 0U);
  for (std::size_t length = 0; length < body.size(); ++length) {
    const Bytes cut(body.begin(), body.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_TRUE(parse_block_limits(page(0xb0, cut))) << length;
  }
}

TEST(Vpd, ProvisioningBits) {
  const auto thin = parse_logical_block_provisioning(page(0xb2, octets({0, 0xc4, 2, 0})));
  ASSERT_TRUE(thin);
  EXPECT_TRUE(thin->unmap && thin->write_same_unmap && thin->reads_zeros);
  EXPECT_EQ(thin->provisioning_type, 2);
  const auto full = parse_logical_block_provisioning(page(0xb2, octets({0, 0, 0, 0})));
  ASSERT_TRUE(full);
  EXPECT_FALSE(full->unmap || full->write_same_unmap || full->reads_zeros);
  EXPECT_FALSE(parse_logical_block_provisioning(page(0xb2, octets({0, 0x88, 2})))->reads_zeros)
      << "another pattern";
}

Bytes capacity16(std::uint64_t last, std::uint32_t block) {
  Bytes data(32);
  for (int i = 0; i < 8; ++i) {
    data[static_cast<std::size_t>(i)] = static_cast<std::byte>(last >> (56 - 8 * i));
  }
  for (std::size_t i = 0; i < 4; ++i) {
    data[8 + i] = static_cast<std::byte>(block >> (24 - 8 * i));
  }
  return data;
}

TEST(Vpd, CapacityOfBothCommands) {
  Bytes data = capacity16(99, 512);
  data[13] = std::byte{3};
  data[14] = std::byte{0x80};
  const auto capacity = parse_read_capacity16(data);
  ASSERT_TRUE(capacity);
  EXPECT_EQ(capacity->block_count, 100U);
  EXPECT_EQ(capacity->physical_block_bytes, 4096U);
  EXPECT_TRUE(capacity->thin_provisioned);
  const auto small = parse_read_capacity10(octets({0, 0, 0, 99, 0, 0, 16, 0}));
  ASSERT_TRUE(small);
  EXPECT_EQ(small->block_count, 100U);
  EXPECT_EQ(small->logical_block_bytes, 4096U);
}

TEST(Vpd, RefusesCapacityThatIsCutOff) {
  EXPECT_FALSE(parse_read_capacity16(Bytes(11)));
  EXPECT_FALSE(parse_read_capacity10(Bytes(7)));
}
TEST(Vpd, RefusesBlockSizesOutOfRange) {
  for (const std::uint32_t block : {0U, 1U, 256U, 520U, 8192U, 0xffffffffU}) {
    EXPECT_FALSE(parse_read_capacity16(capacity16(99, block))) << block;
  }
}
TEST(Vpd, RefusesImpossibleCapacity) {
  EXPECT_FALSE(parse_read_capacity16(capacity16(0xffffffffffffffff, 512)));
  EXPECT_FALSE(parse_read_capacity16(capacity16(0x7fffffffffffffff, 4096)));
}
TEST(Vpd, RefusesCapacity10ThatDoesNotFit) {
  EXPECT_FALSE(parse_read_capacity10(octets({255, 255, 255, 255, 0, 0, 2, 0})));
}

TEST(Vpd, ReportLunsStopsAtWhatArrived) {
  Bytes data(8 + 16 + 4);
  data[2] = std::byte{1};  // 256 bytes of list, it says
  data[9] = std::byte{1};
  data[17] = std::byte{2};
  EXPECT_THAT(parse_report_luns(data).value(),
              ::testing::ElementsAre(std::uint64_t{1} << 48, std::uint64_t{2} << 48));
  EXPECT_FALSE(parse_report_luns(Bytes(7)));
  for (const int third : {2, 4, 5, 6, 7}) {
    const Bytes standard = octets({0, 0x80, third, 0x12, 0x5b, 0, 0, 2, 'S', 'I', 'M', ' ', ' '});
    EXPECT_FALSE(parse_report_luns(standard)) << "standard INQUIRY data of version " << third;
  }
}

}  // namespace
}  // namespace iscsi_blkback
