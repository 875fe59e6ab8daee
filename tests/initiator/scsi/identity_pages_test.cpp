// What a LUN is known by, and that nothing which a LUN need not have makes it unusable: the whole
// identification at the simulated target, whose pages are given byte by byte.
#include <gmock/gmock.h>

#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/initiator/session/session_fixture.h"
#include "tests/support/vpd_bytes.h"

namespace iscsi_blkback {
namespace {

class IdentityTest : public SessionTest {
 protected:
  void SetUp() override { ASSERT_TRUE(initiator.start()); }
  void TearDown() override { initiator.stop(); }

  Result<LogicalUnitIdentity> identify() {
    std::optional<Result<LogicalUnitIdentity>> identity;
    unit.identify(
        [](void* owner, Result<LogicalUnitIdentity> result) noexcept {
          *static_cast<std::optional<Result<LogicalUnitIdentity>>*>(owner) = std::move(result);
        },
        &identity);
    EXPECT_TRUE(runs_until(reactor, [&] { return identity.has_value(); }));
    return identity ? *identity : Result<LogicalUnitIdentity>(fail(ErrorCode::timed_out, "no end"));
  }
  // With these designators and this serial number (empty: no such page).
  std::string wwid_of(const Bytes& designators, const std::string& serial = "SERIAL0") {
    lun->options.pages[0x83] = designators.empty() ? Bytes{} : page(0x83, designators);
    lun->options.serial = serial;
    const auto identity = identify();
    EXPECT_TRUE(identity) << identity.error().message;
    return identity ? identity->wwid : "error";
  }
  SimFault answers_page(int code, ScsiStatus status, Bytes sense = {}) {
    SimFault fault;
    fault.count = 0;
    fault.matches = [code](const SimCommand& command) {
      return command.cdb[0] == scsi_operation::kInquiry && (command.cdb[1] & 1) != 0 &&
             command.cdb[2] == code;
    };
    fault.status = status;
    fault.sense = std::move(sense);
    return fault;
  }
  SimFault answers(std::uint8_t operation, ScsiStatus status, Bytes sense = {}) {
    SimFault fault;
    fault.count = 0;
    fault.matches = [operation](const SimCommand& command) { return command.cdb[0] == operation; };
    fault.status = status;
    fault.sense = std::move(sense);
    return fault;
  }

  TestSession initiator{reactor, test_session_options()};
  LogicalUnit unit{reactor, initiator.session, encode_lun(0)};
};

const Bytes kNaa6 = designator(
    kBinary, kNaa, octets({0x60, 1, 0x40, 0x50, 0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4, 5, 6, 7, 8}));
const std::string kNaa6Text = "360014050aabbccdd0102030405060708";

// The forms are those of `scsi_id -g -u`, which is what Debian's udev calls the disk by.
TEST_F(IdentityTest, IsShownAsScsiIdPrintsIt) {
  lun->options.vendor = "IET";
  lun->options.product = "VIRTUAL-DISK";
  const Bytes eight = octets({0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0});
  const struct {
    const char* what;
    Bytes designators;
    std::string wwid;
  } kCases[] = {
      {"IET of the issue: binary T10",
       designator(kBinary, kT10,
                  joined({text(std::string_view("IET\0\0\0\0\0", 8)), octets({0xde, 0xad, 0, 1}),
                          Bytes(12)})),
       "14945540000000000dead0001000000000000000000000000"},
      {"T10 with blanks", designator(kAscii, kT10, text("IET     00010001")), "1IET_00010001"},
      {"T10 padded with NUL",
       designator(kAscii, kT10, joined({text("IET     00010001"), Bytes(20)})), "1IET_00010001"},
      {"T10 padded with blanks and NUL",
       designator(kAscii, kT10, joined({text("IET     00010001  "), Bytes(2)})), "1IET_00010001"},
      {"T10 with blanks in the middle", designator(kAscii, kT10, text("NETAPP   LUN 80 a  B")),
       "1NETAPP_LUN_80_a_B"},
      {"T10 with a code set of its own kind: text that is called binary",
       designator(kBinary, kT10, text("IET     0001")), "1494554202020202030303031"},
      {"T10 in UTF-8", designator(kUtf8, kT10, text("SCST_FIO 4f2b")), "1SCST_FIO_4f2b"},
      {"text that is cut off by NUL, and goes on",
       designator(kAscii, kT10, joined({text("IET"), Bytes(5), octets({'A', 0, 'B'})})),
       "14945540000000000410042"},
      {"a byte that is not printable",
       designator(kAscii, kT10,
                  text("IET     A\x1b"
                       "B")),
       "1IET_A\\x1bB"},
      {"NAA 6", kNaa6, kNaa6Text},
      {"NAA 5", designator(kBinary, kNaa, octets({0x50, 1, 2, 3, 4, 5, 6, 7})),
       "35001020304050607"},
      {"NAA 3", designator(kBinary, kNaa, octets({0x30, 0, 0, 1, 0, 0, 0, 2})),
       "33000000100000002"},
      {"NAA 2 before NAA 3, in this order",
       joined({designator(kBinary, kNaa, octets({0x20, 0, 0xab, 1, 2, 3, 4, 5})),
               designator(kBinary, kNaa, octets({0x30, 0, 0, 1, 0, 0, 0, 2}))}),
       "32000ab0102030405"},
      {"EUI-64", designator(kBinary, kEui64, eight), "2123456789abcdef0"},
      {"EUI-64 of 16 bytes", designator(kBinary, kEui64, joined({eight, eight})),
       "2123456789abcdef0123456789abcdef0"},
      {"NAA after T10 and EUI-64",
       joined({designator(kAscii, kT10, text("IET     1")), designator(kBinary, kEui64, eight),
               kNaa6}),
       kNaa6Text},
      {"T10 before a SCSI name, which scsi_id does not know",
       joined({designator(kUtf8, kName, text("iqn.2026-01.t:lun1")),
               designator(kAscii, kT10, text("IET     1"))}),
       "1IET_1"},
      {"a SCSI name alone",
       designator(kUtf8, kName, joined({text("iqn.2026-01.t:lun1"), Bytes(2)})),
       "8iqn.2026-01.t:lun1"},
      {"vendor-specific text", designator(kAscii, kVendorSpecific, text("lun 7")),
       "0IET_VIRTUAL-DISK_lun_7"},
      {"vendor-specific bytes", designator(kBinary, kVendorSpecific, octets({0xab, 7})),
       "0IET_VIRTUAL-DISK_ab07"},
      {"before SPC-3: the page is the identifier",
       octets({0x60, 6, 4, 0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}),
       "36006048000010203040506070809"
       "0a0b"},
      {"before SPC-3, and read as a designator it has a length",
       octets({0x50, 1, 0x43, 0x02, 0x12, 0x34, 0x56, 0x78}), "35001430212345678"},
      {"before SPC-3, 16 bytes that could be a designator of 12",
       octets({0x61, 3, 0x48, 12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}),
       "36103480c000102030405060708090a0b"},
      {"a designator of 4 bytes with something in its reserved byte",
       octets({2, 1, 0x40, 4, 'A', 'B', 'C', 'D'}), "1ABCD"},
      {"of a protocol, and read as NAA 5 as long as it should be",
       joined({octets({0x52, 0x81, 0, 4}), text("ABCD")}), "1ABCD"},
      {"of a protocol, with something in its reserved byte",
       joined({octets({0x51, 0x83, 0, 8}), octets({0x50, 1, 2, 3, 4, 5, 6, 7})}),
       "35001020304050607"},
      {"EUI-64 of 12 bytes",
       designator(kBinary, kEui64, octets({1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3})),
       "2010203040506070809010203"},
      {"EUI-64 as text", designator(kAscii, kEui64, text("0123456789ABCDEF")), "20123456789abcdef"},
      {"NAA as text", designator(kAscii, kNaa, text("60014050AABBCCDD0102030405060708")),
       kNaa6Text},
      {"NAA as text that is called UTF-8: no form of it",
       designator(kUtf8, kNaa, text("60014050AABBCCDD0102030405060708")),
       "SIET_VIRTUAL-DISK_SERIAL0"},
      {"MD5, which scsi_id does not know",
       designator(kBinary, 7, octets({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})),
       "SIET_VIRTUAL-DISK_SERIAL0"},
      {"a UUID, nor that",
       designator(kBinary, 10, joined({octets({0x10, 0}), Bytes(16, std::byte{7})})),
       "SIET_VIRTUAL-DISK_SERIAL0"},
      {"a SCSI name of naa.", designator(kUtf8, kName, text("naa.6001405000000001")),
       "8naa.6001405000000001"},
      {"a SCSI name of zeros, before T10",
       joined({designator(kUtf8, kName, text("eui.0000000000000000")),
               designator(kAscii, kT10, text("IET     1"))}),
       "1IET_1"},
      {"code set 0", designator(0, kT10, text("IET     1")), "1IET_1"},
      {"code set 15, binary NAA", designator(15, kNaa, octets({0x50, 1, 2, 3, 4, 5, 6, 7})),
       "35001020304050607"},
      {"association 3, which is reserved",
       joined({octets({1, 0x33, 0, 8}), octets({0x50, 1, 2, 3, 4, 5, 6, 7})}),
       "SIET_VIRTUAL-DISK_SERIAL0"},
      {"designators of lengths 1, 255 and 0 before it",
       joined({designator(kBinary, kVendorSpecific, octets({1})),
               designator(kBinary, kVendorSpecific, Bytes(255, std::byte{7})),
               designator(kBinary, kT10, {}), kNaa6}),
       kNaa6Text},
      {"no page 0x83", {}, "SIET_VIRTUAL-DISK_SERIAL0"},
  };
  for (const auto& test : kCases) {
    EXPECT_EQ(wwid_of(test.designators), test.wwid) << test.what;
  }
  lun->options.vendor = "ATA";
  lun->options.product = "QEMU HARDDISK";
  EXPECT_EQ(wwid_of({}, "    QM00001"), "SATA_QEMU_HARDDISK_QM00001");
}

// Zeros, blanks and the like, and the name of the vendor.
TEST_F(IdentityTest, ADesignatorThatSaysNothingIsNotWhatItIsKnownBy) {
  lun->options.vendor = "IET";
  lun->options.product = "DISK";
  const Bytes t10 = designator(kAscii, kT10, text("IET     mysql-g"));
  const auto naa = [](int first, std::size_t size, int fill) {
    Bytes value(size, static_cast<std::byte>(fill));
    value[0] = static_cast<std::byte>(first);
    return designator(kBinary, kNaa, value);
  };
  const struct {
    const char* what;
    Bytes nothing;
  } kCases[] = {
      {"NAA 6 of zeros", naa(0x60, 16, 0)},
      {"NAA 5 of zeros", naa(0x50, 8, 0)},
      {"NAA 3 of zeros", naa(0x30, 8, 0)},
      {"NAA 6 of ones", naa(0x6f, 16, 0xff)},
      {"NAA 0 of zeros", naa(0, 8, 0)},
      {"NAA 6 of 8 bytes", naa(0x60, 8, 1)},
      {"NAA 5 of 16 bytes", naa(0x50, 16, 1)},
      {"NAA without bytes", designator(kBinary, kNaa, {})},
      {"EUI-64 of zeros", designator(kBinary, kEui64, Bytes(8))},
      {"EUI-64 of ones", designator(kBinary, kEui64, Bytes(8, std::byte{0xff}))},
      {"EUI-64 of 7 bytes", designator(kBinary, kEui64, Bytes(7, std::byte{1}))},
      {"T10 of blanks", designator(kAscii, kT10, text("        "))},
      {"T10 of zeros", designator(kAscii, kT10, Bytes(24))},
      {"binary T10 of zeros", designator(kBinary, kT10, Bytes(24))},
      {"T10 with the vendor only", designator(kAscii, kT10, text("IET     "))},
      {"binary T10 with the vendor only",
       designator(kBinary, kT10, joined({text("IET"), Bytes(21)}))},
      {"T10 with vendor and product", designator(kAscii, kT10, text("IET     DISK            "))},
      {"T10 with the vendor and digits of zero",
       designator(kAscii, kT10, text("IET     00000000"))},
      {"a name of zeros", designator(kUtf8, kName, Bytes(16))},
      {"vendor-specific zeros", designator(kBinary, kVendorSpecific, Bytes(4))},
      {"a relative target port", designator(kBinary, 4, octets({0, 0, 0, 1}))},
      {"a port's NAA", joined({octets({1, 0x93, 0, 8}), octets({0x50, 1, 2, 3, 4, 5, 6, 7})})},
      {"the target's NAA", joined({octets({1, 0xa3, 0, 8}), octets({0x50, 1, 2, 3, 4, 5, 6, 7})})},
  };
  for (const auto& test : kCases) {
    EXPECT_EQ(wwid_of(joined({test.nothing, t10})), "1IET_mysql-g") << test.what << ", first";
    EXPECT_EQ(wwid_of(joined({t10, test.nothing})), "1IET_mysql-g") << test.what << ", last";
    EXPECT_EQ(wwid_of(test.nothing), "SIET_DISK_SERIAL0") << test.what << ", alone";
    EXPECT_EQ(wwid_of(test.nothing, ""), "") << test.what << ", alone without a serial number";
  }
  for (const char* serial : {"        ", "0", "00000000", "  0000  "}) {
    EXPECT_EQ(wwid_of({}, serial), "") << serial;
  }
  for (const char* serial : {"0000000A", "1", "O0"}) {
    EXPECT_EQ(wwid_of({}, serial), std::string("SIET_DISK_") + serial) << serial;
  }
}

TEST_F(IdentityTest, ManyLunsWithABinaryT10DesignatorAreAllTold) {
  std::set<std::string> wwids;
  for (int at = 8; at < 24; ++at) {
    for (const int byte : {1, 0x20, 0x41, 0x80, 0xff}) {
      Bytes value = joined({text("IET"), Bytes(21)});
      value[static_cast<std::size_t>(at)] = static_cast<std::byte>(byte);
      wwids.insert(wwid_of(designator(kBinary, kT10, value)));
    }
  }
  EXPECT_EQ(wwids.size(), 80U);
}

TEST_F(IdentityTest, ASerialNumberWithAZeroInTheMiddleIsTakenWhole) {
  const auto serial_of = [this](std::string_view serial) {
    lun->options.pages[0x80] = page(0x80, text(serial));
    const auto identity = identify();
    return identity ? identity->serial : "error";
  };
  EXPECT_EQ(serial_of(std::string_view("AB\0\0CD", 6)), "AB\\x00\\x00CD");
  EXPECT_EQ(serial_of(std::string_view("AB\0\0\0\0", 6)), "AB");
  EXPECT_EQ(serial_of(std::string_view("\0\0AB", 4)), "\\x00\\x00AB");
  EXPECT_EQ(serial_of(std::string_view("  AB \0", 6)), "AB");
}

class OptionalPagesTest : public IdentityTest {
 protected:
  // It is usable, and has what the other pages say.
  void expect_usable(const std::string& what, const std::string& wwid, const std::string& serial) {
    const auto identity = identify();
    ASSERT_TRUE(identity) << what << ": " << identity.error().message;
    EXPECT_EQ(identity->wwid, wwid) << what;
    EXPECT_EQ(identity->serial, serial) << what;
    EXPECT_EQ(identity->block_count, lun->options.block_count) << what;
  }
  static inline const std::string kWwid = "360014050000000000000000000000001";
};

TEST_F(OptionalPagesTest, StandardDataForAPageIsNoPage) {
  for (const int first : {0x00, 0x80}) {  // RMB: byte 1 of the standard data is as of page 0x80
    lun->options.standard_data_byte1 = static_cast<std::uint8_t>(first);
    lun->options.pages_of_standard_data = {0x83};
    expect_usable("0x83", "SSIM_DISK_SERIAL0", "SERIAL0");
    lun->options.pages_of_standard_data = {0x80};
    expect_usable("0x80", kWwid, "");
    lun->options.pages_of_standard_data = {0x00};
    expect_usable("0x00", kWwid, "SERIAL0");
    lun->options.pages_of_standard_data = {0xb0, 0xb1, 0xb2};
    expect_usable("0xb0 to 0xb2", kWwid, "SERIAL0");
    lun->options.pages_of_standard_data = {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2};
    expect_usable("all", "", "");
  }
}

TEST_F(OptionalPagesTest, AListOfPagesThatIsMissingOrLiesHidesNothing) {
  lun->options.max_transfer_blocks = 77;
  const struct {
    const char* what;
    Bytes list;
    bool limits;
  } kCases[] = {
      {"refused", {}, true},
      {"empty", page(0x00, {}), true},
      {"cut off", octets({0, 0}), true},
      {"another page", page(0x83, octets({0x00, 0x80})), true},
      {"only itself", page(0x00, octets({0x00})), false},
      {"without 0x83", page(0x00, octets({0x00, 0x80, 0xb0})), true},
      {"without 0x80", page(0x00, octets({0x00, 0x83, 0xb0})), true},
      {"not in order", page(0x00, octets({0xb0, 0x83, 0x80, 0x00})), true},
      {"with pages that are none", page(0x00, octets({0x00, 0x80, 0x83, 0xb0, 0xb3, 0xc2, 0xc9})),
       true},
      {"longer than it says", joined({page(0x00, octets({0x00, 0xb0})), octets({0x80, 0x83})}),
       true},
      {"shorter than it says", octets({0, 0, 0, 200, 0x00, 0x80, 0x83, 0xb0}), true},
      {"zeros", page(0x00, Bytes(8)), false},
  };
  for (const auto& test : kCases) {
    lun->options.pages[0x00] = test.list;
    expect_usable(test.what, kWwid, "SERIAL0");
    EXPECT_EQ(identify()->max_transfer_blocks, test.limits ? 77U : 0U) << test.what;
  }
}

TEST_F(OptionalPagesTest, APageThatIsNoPageIsDoneWithout) {
  for (const int code : {0x80, 0x83, 0xb0, 0xb1, 0xb2}) {
    const struct {
      const char* what;
      Bytes page;
    } kCases[] = {
        {"refused", {}},
        {"one byte", octets({0})},
        {"cut off", octets({0, code, 0})},
        {"another page", page(0x86, Bytes(60))},
        {"the list", page(0x00, octets({0x00, 0x83}))},
        {"without a body", page(code, {})},
        {"short", page(code, octets({0}))},
    };
    for (const auto& test : kCases) {
      lun->options.pages = {{static_cast<std::uint8_t>(code), test.page}};
      const std::string what = testing::PrintToString(code) + " " + test.what;
      expect_usable(what, code == 0x83 ? "SSIM_DISK_SERIAL0" : kWwid,
                    code == 0x80 ? "" : "SERIAL0");
    }
  }
}

TEST_F(OptionalPagesTest, APageOfAnotherLengthThanItSaysIsReadAsFarAsItGoes) {
  const Bytes t10 = designator(kAscii, kT10, text("SIM     7"));
  const Bytes whole = joined({t10, kNaa6});
  Bytes longer = page(0x83, whole);
  longer[3] = static_cast<std::byte>(whole.size() + 40);
  Bytes shorter = page(0x83, whole);
  shorter[3] = static_cast<std::byte>(t10.size());
  Bytes cut = page(0x83, whole);
  cut.resize(cut.size() - 3);
  Bytes torn = page(0x83, whole);
  torn[3] = static_cast<std::byte>(t10.size() + 9);
  const struct {
    const char* what;
    Bytes page;
    std::string wwid;
  } kCases[] = {
      {"says more than there is", longer, kNaa6Text},
      {"says less than there is", shorter, "1SIM_7"},
      {"the last designator is cut off", cut, "1SIM_7"},
      {"the page ends in a designator", torn, "1SIM_7"},
      {"the only designator is cut off", octets({0, 0x83, 0, 20, 1, 3, 0, 16, 0x60, 1, 2}),
       "SSIM_DISK_SERIAL0"},
      {"a designator of no length before it", page(0x83, joined({octets({1, 3, 0, 0}), kNaa6})),
       kNaa6Text},
      {"two bytes behind the last one", page(0x83, joined({kNaa6, octets({1, 3})})), kNaa6Text},
  };
  for (const auto& test : kCases) {
    lun->options.pages = {{0x83, test.page}};
    expect_usable(test.what, test.wwid, "SERIAL0");
  }
}

TEST_F(OptionalPagesTest, ATargetThatReadsOneByteOfTheAllocationLengthIsUnderstood) {
  lun->options.reads_one_byte_of_allocation = true;
  expect_usable("as it is", kWwid, "SERIAL0");
  // More than one byte can ask for: what is behind it cannot be had.
  const Bytes filler = designator(kBinary, kVendorSpecific, Bytes(120, std::byte{7}));
  lun->options.pages = {{0x83, page(0x83, joined({kNaa6, filler, filler, filler}))}};
  expect_usable("first", kNaa6Text, "SERIAL0");
  lun->options.pages = {{0x83, page(0x83, joined({filler, filler, filler, kNaa6}))}};
  EXPECT_TRUE(identify());
}

TEST_F(OptionalPagesTest, WhatDoesNotFitInto255BytesIsAskedForAgain) {
  const Bytes filler = designator(kBinary, kVendorSpecific, Bytes(120, std::byte{7}));
  for (int fillers = 0; fillers < 20; ++fillers) {
    Bytes body;
    for (int i = 0; i < fillers; ++i) {
      body = joined({body, filler});
    }
    lun->options.pages = {{0x83, page(0x83, joined({body, kNaa6}))}};
    expect_usable(testing::PrintToString(fillers), kNaa6Text, "SERIAL0");
  }
}

// What it has said by then counts, where it does not want to say more.
TEST_F(OptionalPagesTest, ATargetThatRefusesToSayMoreThan255BytesIsKnownByThese) {
  const Bytes filler = designator(kBinary, kVendorSpecific, Bytes(240, std::byte{7}));
  lun->options.pages = {{0x83, page(0x83, joined({kNaa6, filler}))}};
  SimFault fault = answers_page(0x83, ScsiStatus::check_condition,
                                make_sense(SenseKey::illegal_request, 0x2400));
  const auto of_page = fault.matches;
  fault.matches = [of_page](const SimCommand& command) {
    return of_page(command) && command.cdb[3] != 0;
  };
  target->inject(fault);
  expect_usable("long", kNaa6Text, "SERIAL0");
}

// Whatever words the target refuses it in, for good.
TEST_F(OptionalPagesTest, ARefusedPageIsDoneWithout) {
  const struct {
    const char* what;
    ScsiStatus status;
    Bytes sense;
  } kCases[] = {
      {"invalid field", ScsiStatus::check_condition, make_sense(SenseKey::illegal_request, 0x2400)},
      {"invalid command", ScsiStatus::check_condition,
       make_sense(SenseKey::illegal_request, 0x2000)},
      {"vendor's code", ScsiStatus::check_condition, make_sense(SenseKey::illegal_request, 0x8001)},
      {"no code", ScsiStatus::check_condition, make_sense(SenseKey::illegal_request, 0x0000)},
      {"no sense data", ScsiStatus::check_condition, {}},
      {"hardware error", ScsiStatus::check_condition, make_sense(SenseKey::hardware_error, 0x4400)},
      {"medium error", ScsiStatus::check_condition, make_sense(SenseKey::medium_error, 0x1100)},
      {"data protect", ScsiStatus::check_condition, make_sense(SenseKey::data_protect, 0x2700)},
      {"aborted", ScsiStatus::check_condition, make_sense(SenseKey::aborted_command, 0x0000)},
      {"busy", ScsiStatus::busy, {}},
      {"reservation conflict", ScsiStatus::reservation_conflict, {}},
      {"a status that nobody knows", static_cast<ScsiStatus>(0x22), {}},
  };
  for (const auto& test : kCases) {
    for (const int code : {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2}) {
      // What is said in the following words is not for good. Trouble may be the answer of an
      // optional page for ever; it says nothing of who the LUN is.
      const bool names = code == 0x80 || code == 0x83;
      const std::set<std::string> trouble = {"hardware error", "medium error"};
      const std::set<std::string> passing = {"busy", "aborted"};
      if ((trouble.count(test.what) != 0 && names) ||
          (passing.count(test.what) != 0 && (names || code == 0x00 || code == 0xb0))) {
        continue;
      }
      target->inject(answers_page(code, test.status, test.sense));
      expect_usable(std::string(test.what) + " of " + testing::PrintToString(code),
                    code == 0x83 ? "SSIM_DISK_SERIAL0" : kWwid, code == 0x80 ? "" : "SERIAL0");
      target->clear_faults();
    }
  }
}

TEST_F(OptionalPagesTest, APageThatIsRefusedForAMomentIsAskedForAgain) {
  lun->options.max_transfer_blocks = 77;
  for (const int code : {0x00, 0x80, 0x83, 0xb0}) {
    SimFault fault = answers_page(code, ScsiStatus::check_condition,
                                  make_sense(SenseKey::hardware_error, 0x4400));
    fault.count = 3;
    target->inject(fault);
    expect_usable(testing::PrintToString(code), kWwid, "SERIAL0");
    fault.count = 3;
    target->inject(fault);
    EXPECT_EQ(identify()->max_transfer_blocks, 77U);
  }
}

// As one without names it would be another LUN for others of this host.
TEST_F(OptionalPagesTest, ATargetThatIsBusyOrInTroubleWhenItIsAskedForNamesIsAskedAgainLater) {
  const std::pair<ScsiStatus, Bytes> kAnswers[] = {
      {ScsiStatus::busy, {}},
      {ScsiStatus::task_set_full, {}},
      {ScsiStatus::check_condition, make_sense(SenseKey::aborted_command, 0x0000)},
      {ScsiStatus::check_condition, make_sense(SenseKey::hardware_error, 0x4400)},
      {ScsiStatus::check_condition, make_sense(SenseKey::medium_error, 0x1100)},
      {ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0401)},
      {ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0403)},
      {ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0800)}};
  for (const auto& [status, sense] : kAnswers) {
    for (const int code : {0x80, 0x83}) {
      target->inject(answers_page(code, status, sense));
      EXPECT_FALSE(identify()) << code << " " << static_cast<int>(status);
      target->clear_faults();
    }
  }
  SimFault silent = answers_page(0x83, ScsiStatus::good);
  silent.answer = false;
  target->inject(silent);
  EXPECT_FALSE(identify());
  target->clear_faults();
  expect_usable("later", kWwid, "SERIAL0");
}

// Without the limits a guest's larger request would be refused, and without the list an array's own
// pages would be unknown, for as long as the disk is there.
TEST_F(OptionalPagesTest, ATargetThatCannotSayNowHowMuchItTakesIsAskedAgainLater) {
  const std::pair<ScsiStatus, Bytes> kAnswers[] = {
      {ScsiStatus::busy, {}},
      {ScsiStatus::task_set_full, {}},
      {ScsiStatus::check_condition, make_sense(SenseKey::aborted_command, 0x0000)},
      {ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0401)},
      {ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0403)},
      {ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x040a)},
      {ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x040b)},
      {ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0800)}};
  lun->options.max_transfer_blocks = 77;
  for (const auto& [status, sense] : kAnswers) {
    for (const int code : {0x00, 0xb0}) {
      target->inject(answers_page(code, status, sense));
      EXPECT_FALSE(identify()) << code << " " << static_cast<int>(status);
      target->clear_faults();
    }
    for (const int code : {0xb1, 0xb2}) {
      target->inject(answers_page(code, status, sense));
      expect_usable(testing::PrintToString(code), kWwid, "SERIAL0");
      target->clear_faults();
    }
  }
  const auto identity = identify();
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->max_transfer_blocks, 77U);
}

// A guest may be waiting meanwhile.
TEST_F(OptionalPagesTest, ATargetThatIsAlwaysBusyWithPagesThatAreNotNeededIsWaitedForTwoSeconds) {
  target->inject(answers_page(0xb1, ScsiStatus::check_condition,
                              make_sense(SenseKey::aborted_command, 0x0000)));
  target->inject(answers_page(0xb2, ScsiStatus::busy));
  const TimePoint began = reactor.now();
  expect_usable("0xb1 and 0xb2", kWwid, "SERIAL0");
  EXPECT_GE(reactor.now() - began, std::chrono::seconds(2));
  EXPECT_LE(reactor.now() - began, std::chrono::milliseconds(2300));
}

// All of it is asked for again when the LUN is served there.
TEST_F(OptionalPagesTest, APortThatServesNothingNowMayKeepItsLimitsToItself) {
  const Bytes standby = make_sense(SenseKey::not_ready, 0x040b);
  SimFault refusal = answers_page(0x00, ScsiStatus::check_condition, standby);
  const auto list = refusal.matches;
  const auto limits = answers_page(0xb0, ScsiStatus::check_condition, standby).matches;
  refusal.matches = [list, limits](const SimCommand& command) {
    const std::uint8_t operation = command.cdb[0];
    return operation == 0x00 || operation == 0x9e || list(command) || limits(command);
  };
  target->inject(refusal);
  const auto identity = identify();
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->access.refused, AccessState::standby);
  EXPECT_EQ(identity->wwid, kWwid);
}

// What it has said by then is not all that others hear of it.
TEST_F(OptionalPagesTest, TroubleBehindTheFirst255BytesOfTheNamesIsAskedAgainLater) {
  const Bytes filler = designator(kBinary, kVendorSpecific, Bytes(240, std::byte{7}));
  lun->options.pages = {{0x83, page(0x83, joined({filler, kNaa6}))}};
  SimFault fault =
      answers_page(0x83, ScsiStatus::check_condition, make_sense(SenseKey::hardware_error, 0x4400));
  const auto of_page = fault.matches;
  fault.matches = [of_page](const SimCommand& command) {
    return of_page(command) && command.cdb[3] != 0;
  };
  target->inject(fault);
  EXPECT_FALSE(identify());
  target->clear_faults();
  expect_usable("later", kNaa6Text, "SERIAL0");
}

// There is nothing that says that the target has the page at all.
TEST_F(OptionalPagesTest, TroubleWithAPageThatTheListHasNotIsDoneWithout) {
  const Bytes hardware = make_sense(SenseKey::hardware_error, 0x4400);
  lun->options.pages[0x00] = page(0x00, octets({0x00, 0x80}));
  target->inject(answers_page(0x83, ScsiStatus::check_condition, hardware));
  expect_usable("without 0x83", "SSIM_DISK_SERIAL0", "SERIAL0");
  target->clear_faults();
  lun->options.pages[0x00] = page(0x00, octets({0x00, 0x83}));
  target->inject(answers_page(0x80, ScsiStatus::check_condition, hardware));
  expect_usable("without 0x80", kWwid, "");
}

TEST_F(OptionalPagesTest, APageThatIsNeverAnsweredIsDoneWithout) {
  for (const int code : {0xb0, 0xb1, 0xb2}) {
    SimFault fault = answers_page(code, ScsiStatus::good);
    fault.answer = false;
    target->inject(fault);
    expect_usable(testing::PrintToString(code), kWwid, "SERIAL0");
    target->clear_faults();
  }
}

// How well the LUN is served here, it need not say to be usable.
TEST_F(OptionalPagesTest, TheStatesOfPortsThatAreNotToldAreDoneWithout) {
  lun->options.tpgs = 3;
  const struct {
    const char* what;
    ScsiStatus status;
    Bytes sense;
  } kCases[] = {
      {"invalid field", ScsiStatus::check_condition, make_sense(SenseKey::illegal_request, 0x2400)},
      {"invalid command", ScsiStatus::check_condition,
       make_sense(SenseKey::illegal_request, 0x2000)},
      {"no sense data", ScsiStatus::check_condition, {}},
      {"hardware error", ScsiStatus::check_condition, make_sense(SenseKey::hardware_error, 0x4400)},
      {"aborted", ScsiStatus::check_condition, make_sense(SenseKey::aborted_command, 0x0000)},
      {"busy", ScsiStatus::busy, {}},
      {"reservation conflict", ScsiStatus::reservation_conflict, {}},
      {"a status that nobody knows", static_cast<ScsiStatus>(0x22), {}},
      {"nothing of it, and GOOD", ScsiStatus::good, {}},
  };
  for (const auto& test : kCases) {
    target->inject(answers(scsi_operation::kMaintenanceIn, test.status, test.sense));
    expect_usable(test.what, kWwid, "SERIAL0");
    target->clear_faults();
  }
  const Bytes kNone[] = {
      octets({0}),
      octets({0, 0, 0}),
      Bytes(4),
      Bytes(200),
      joined({octets({0, 0, 5, 2, 31, 0, 0, 2}), text("SIM     DISK            0001")}),
      joined({octets({0, 0x80, 5, 2, 31, 0, 0, 2}), text("SIM     DISK            0001")}),
      octets({0, 0, 0, 8, 0, 0, 0, 1}),
      octets({0, 0, 0, 8, 0, 0x8f, 0, 1, 0, 0, 0, 1}),
      octets({0, 0, 0, 12, 0, 0x8f, 0, 1, 0, 0, 0, 255, 0, 0, 0, 1}),
      octets({0, 0, 0, 4, 0x10, 60, 0, 0}),
      octets({0xff, 0xff, 0xff, 0xff, 0, 0x8f, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}),
      Bytes(200, std::byte{0xff})};
  for (const Bytes& bytes : kNone) {
    SimFault none = answers(scsi_operation::kMaintenanceIn, ScsiStatus::good);
    none.data = bytes;
    target->inject(none);
    expect_usable(testing::PrintToString(bytes.size()) + " bytes", kWwid, "SERIAL0");
    EXPECT_FALSE(identify()->access.refused);
    target->clear_faults();
  }
  SimFault fault = answers(scsi_operation::kMaintenanceIn, ScsiStatus::good);
  fault.answer = false;
  target->inject(fault);
  expect_usable("never answered", kWwid, "SERIAL0");
  target->clear_faults();
  fault = answers(scsi_operation::kMaintenanceIn, ScsiStatus::good);
  fault.response_code = 1;
  target->inject(fault);
  expect_usable("target failure", kWwid, "SERIAL0");
}

TEST_F(OptionalPagesTest, ReadCapacity16IsOptional) {
  const struct {
    const char* what;
    ScsiStatus status;
    Bytes sense;
  } kCases[] = {
      {"invalid command", ScsiStatus::check_condition,
       make_sense(SenseKey::illegal_request, 0x2000)},
      {"invalid field", ScsiStatus::check_condition, make_sense(SenseKey::illegal_request, 0x2400)},
      {"no sense data", ScsiStatus::check_condition, {}},
      {"hardware error", ScsiStatus::check_condition, make_sense(SenseKey::hardware_error, 0x4400)},
      {"aborted", ScsiStatus::check_condition, make_sense(SenseKey::aborted_command, 0x0000)},
  };
  for (const auto& test : kCases) {
    target->inject(answers(scsi_operation::kServiceActionIn16, test.status, test.sense));
    expect_usable(test.what, kWwid, "SERIAL0");
    EXPECT_FALSE(identify()->has_16_byte_commands) << test.what;
    target->clear_faults();
  }
  for (const auto& [cut_bytes, long_form] :
       {std::pair{32U, false}, {31U, false}, {25U, false}, {21U, false}, {20U, true}, {0U, true}}) {
    SimFault cut = answers(scsi_operation::kServiceActionIn16, ScsiStatus::good);
    cut.execute = true;
    cut.cut_bytes = cut_bytes;
    target->inject(cut);
    expect_usable("cut off", kWwid, "SERIAL0");
    EXPECT_EQ(identify()->has_16_byte_commands, long_form) << cut_bytes;
    target->clear_faults();
  }
}

TEST_F(OptionalPagesTest, ModeSenseIsOptional) {
  const Bytes invalid_command = make_sense(SenseKey::illegal_request, 0x2000);
  const Bytes invalid_field = make_sense(SenseKey::illegal_request, 0x2400);
  const Bytes hardware = make_sense(SenseKey::hardware_error, 0x4400);
  const std::pair<const char*, Bytes> kSenses[] = {{"invalid command", invalid_command},
                                                   {"invalid field", invalid_field},
                                                   {"hardware error", hardware},
                                                   {"no sense data", {}}};
  for (const auto& [six, six_sense] : kSenses) {
    target->inject(answers(scsi_operation::kModeSense6, ScsiStatus::check_condition, six_sense));
    expect_usable(six, kWwid, "SERIAL0");
    EXPECT_EQ(identify()->write_cache, WriteCache::on) << six << ": MODE SENSE(10) tells";
    for (const auto& [ten, ten_sense] : kSenses) {
      target->inject(answers(scsi_operation::kModeSense10, ScsiStatus::check_condition, ten_sense));
      expect_usable(std::string(six) + ", " + ten, kWwid, "SERIAL0");
      target->clear_faults();
      target->inject(answers(scsi_operation::kModeSense6, ScsiStatus::check_condition, six_sense));
    }
    target->clear_faults();
  }
  SimFault silent = answers(scsi_operation::kModeSense6, ScsiStatus::good);
  silent.answer = false;
  target->inject(silent);
  expect_usable("never answered", kWwid, "SERIAL0");
  EXPECT_EQ(identify()->write_cache, WriteCache::untold);
}

// As Linux has it: "Assuming drive cache: write through".
TEST_F(OptionalPagesTest, ALunThatKnowsNoModeSenseIsTakenToHaveNoWriteCache) {
  for (const int code : {0x2000, 0x2400, 0x0000}) {
    const Bytes unknown = make_sense(SenseKey::illegal_request, static_cast<std::uint16_t>(code));
    target->inject(answers(scsi_operation::kModeSense6, ScsiStatus::check_condition, unknown));
    target->inject(answers(scsi_operation::kModeSense10, ScsiStatus::check_condition, unknown));
    EXPECT_EQ(identify()->write_cache, WriteCache::off) << code;
    target->clear_faults();
  }
}

TEST_F(OptionalPagesTest, ATargetInTroubleAtModeSenseHasToldNothingOfItsWriteCache) {
  const std::pair<ScsiStatus, Bytes> kTroubles[] = {
      {ScsiStatus::busy, {}},
      {ScsiStatus::reservation_conflict, {}},
      {ScsiStatus::check_condition, {}},
      {ScsiStatus::check_condition, make_sense(SenseKey::hardware_error, 0x4400)},
      {ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0403)},
      {ScsiStatus::check_condition, make_sense(SenseKey::aborted_command, 0x0000)},
      {ScsiStatus::check_condition, make_sense(SenseKey::illegal_request, 0x9401)}};
  const Bytes unknown = make_sense(SenseKey::illegal_request, 0x2000);
  for (const auto& [status, sense] : kTroubles) {
    const SimFault six = answers(scsi_operation::kModeSense6, status, sense);
    const SimFault ten = answers(scsi_operation::kModeSense10, status, sense);
    target->inject(six);
    target->inject(ten);
    EXPECT_EQ(identify()->write_cache, WriteCache::untold) << static_cast<int>(status);
    target->clear_faults();
    target->inject(six);
    target->inject(answers(scsi_operation::kModeSense10, ScsiStatus::check_condition, unknown));
    EXPECT_EQ(identify()->write_cache, WriteCache::untold) << "MODE SENSE(10) is unknown";
    target->clear_faults();
    target->inject(answers(scsi_operation::kModeSense6, ScsiStatus::check_condition, unknown));
    target->inject(ten);
    EXPECT_EQ(identify()->write_cache, WriteCache::untold) << "MODE SENSE(6) is unknown";
    target->clear_faults();
  }
}

TEST_F(OptionalPagesTest, ACachingPageThatIsCutOffIsAskedForInTheOtherForm) {
  const auto cut = [this](std::uint8_t operation, std::uint32_t bytes) {
    SimFault fault = answers(operation, ScsiStatus::good);
    fault.execute = true;
    fault.cut_bytes = bytes;  // 20 of the caching page, 12 of the one behind it
    target->inject(fault);
  };
  cut(scsi_operation::kModeSense6, 12);
  EXPECT_EQ(identify()->write_cache, WriteCache::on);
  target->clear_faults();
  cut(scsi_operation::kModeSense6, 30);
  EXPECT_EQ(identify()->write_cache, WriteCache::on) << "MODE SENSE(10) tells";
  cut(scsi_operation::kModeSense10, 30);
  EXPECT_EQ(identify()->write_cache, WriteCache::untold);
  lun->options.has_mode_sense6 = false;
  EXPECT_EQ(identify()->write_cache, WriteCache::untold);
}

TEST_F(OptionalPagesTest, TroubleAtModeSenseThatPassesIsWaitedFor) {
  for (const bool cache : {true, false}) {
    lun->options.write_cache = cache;
    for (const std::uint8_t operation :
         {scsi_operation::kModeSense6, scsi_operation::kModeSense10}) {
      lun->options.has_mode_sense6 = operation == scsi_operation::kModeSense6;
      SimFault fault = answers(operation, ScsiStatus::check_condition,
                               make_sense(SenseKey::hardware_error, 0x4400));
      fault.count = 5;
      target->inject(fault);
      EXPECT_EQ(identify()->write_cache, cache ? WriteCache::on : WriteCache::off);
    }
  }
}

// A target that answers whatever it is asked with the same bytes.
TEST_F(OptionalPagesTest, ModesThatAreNoneTellNothing) {
  const Bytes standard =
      joined({octets({0, 0, 5, 2, 31, 0, 0, 0}), text("SIM     DISK            0001")});
  const Bytes removable = [&] {
    Bytes bytes = standard;
    bytes[1] = std::byte{0x80};
    return bytes;
  }();
  Bytes simplified = standard;  // a length of 14, as modes
  simplified[0] = std::byte{0x0e};
  const struct {
    const char* what;
    Bytes bytes;
  } kAnswers[] = {
      {"nothing", {}},
      {"three zeros", Bytes(3)},
      {"four zeros", Bytes(4)},
      {"eight zeros", Bytes(8)},
      {"192 zeros", Bytes(192)},
      {"a length of 1", octets({1, 0, 0, 0})},
      {"a length of 2", octets({2, 0, 0, 0, 0, 0, 0, 0})},
      {"standard data", standard},
      {"standard data of what is removable", removable},
      {"standard data of a simplified disk", simplified},
      {"half of the standard data", Bytes(standard.begin(), standard.begin() + 18)},
      {"eight bytes of the standard data", Bytes(standard.begin(), standard.begin() + 8)},
  };
  for (const auto& test : kAnswers) {
    lun->options.standard_data_byte1 = test.bytes == removable ? 0x80 : 0;
    lun->options.device_type = test.bytes == simplified ? 0x0e : 0;
    for (const bool both : {false, true}) {
      SimFault six = answers(scsi_operation::kModeSense6, ScsiStatus::good);
      six.data = test.bytes;
      target->inject(six);
      if (both) {
        six = answers(scsi_operation::kModeSense10, ScsiStatus::good);
        six.data = test.bytes;
        target->inject(six);
      }
      expect_usable(test.what, kWwid, "SERIAL0");
      const auto identity = identify();
      EXPECT_EQ(identity->write_cache, both ? WriteCache::untold : WriteCache::on) << test.what;
      EXPECT_EQ(identity->force_unit_access, !both) << test.what;
      target->clear_faults();
    }
  }
}

TEST_F(OptionalPagesTest, ATargetFailureAtOneFormOfModeSenseIsAskedTheOther) {
  for (const int each : {1, 2, 0x80, 0xff}) {
    const auto code = static_cast<std::uint8_t>(each);
    SimFault fault = answers(scsi_operation::kModeSense6, ScsiStatus::good);
    fault.response_code = code;
    target->inject(fault);
    expect_usable("MODE SENSE(6)", kWwid, "SERIAL0");
    EXPECT_EQ(identify()->write_cache, WriteCache::on) << int{code};
    fault = answers(scsi_operation::kModeSense10, ScsiStatus::good);
    fault.response_code = code;
    target->inject(fault);
    EXPECT_EQ(identify()->write_cache, WriteCache::untold) << int{code};
    target->clear_faults();
  }
}

TEST_F(OptionalPagesTest, ATargetFailureIsNoReasonToDoWithoutALun) {
  lun->options.max_transfer_blocks = 77;
  for (const int code : {0x00, 0xb0, 0xb1, 0xb2}) {
    SimFault fault = answers_page(code, ScsiStatus::good);
    fault.response_code = 1;
    target->inject(fault);
    expect_usable(testing::PrintToString(code), kWwid, "SERIAL0");
    target->clear_faults();
    fault.count = 2;
    target->inject(fault);
    EXPECT_EQ(identify()->max_transfer_blocks, 77U) << code << " is asked for again";
    target->clear_faults();
  }
  for (const int code : {0x80, 0x83}) {
    SimFault fault = answers_page(code, ScsiStatus::good);
    fault.response_code = 1;
    target->inject(fault);
    EXPECT_FALSE(identify()) << code;
    target->clear_faults();
  }
  SimFault fault = answers(scsi_operation::kServiceActionIn16, ScsiStatus::good);
  fault.response_code = 1;
  target->inject(fault);
  expect_usable("READ CAPACITY(16)", kWwid, "SERIAL0");
}

// The standard data of what is removable begin like a page 0x80, and all begin like a list.
TEST_F(OptionalPagesTest, StandardDataThatAreCutOffAreNoPageEither) {
  lun->options.max_transfer_blocks = 77;
  for (const int first : {0x00, 0x80}) {
    lun->options.standard_data_byte1 = static_cast<std::uint8_t>(first);
    for (const int code : {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2}) {
      lun->options.pages_of_standard_data = {static_cast<std::uint8_t>(code)};
      for (const std::uint32_t bytes : {36U, 35U, 20U, 18U, 17U, 12U, 8U, 6U, 5U}) {
        SimFault fault = answers_page(code, ScsiStatus::good);
        fault.execute = true;
        fault.cut_bytes = 36 - bytes;
        target->inject(fault);
        const std::string what = testing::PrintToString(code) + " of " + std::to_string(bytes);
        expect_usable(what, code == 0x83 ? "SSIM_DISK_SERIAL0" : kWwid,
                      code == 0x80 ? "" : "SERIAL0");
        EXPECT_EQ(identify()->max_transfer_blocks, code == 0xb0 ? 0U : 77U) << what;
        target->clear_faults();
      }
    }
  }
}

// 0xc0, 0xc2 and 0xc9 are vendors', each with a meaning of its own.
TEST_F(OptionalPagesTest, AVendorsPageThatIsNoneIsDoneWithout) {
  const Bytes all = page(0x00, octets({0x00, 0x80, 0x83, 0xb0, 0xc0, 0xc2, 0xc9}));
  for (const char* vendor : {"SIM", "DGC"}) {
    lun->options.vendor = vendor;
    for (const int code : {0xc0, 0xc2, 0xc9}) {
      const Bytes kPages[] = {{},
                              octets({0}),
                              octets({0, code, 0}),
                              page(code, {}),
                              page(code, octets({0, 0, 0, 0, 0})),
                              page(code, Bytes(200, std::byte{0xff})),
                              page(code, Bytes(60)),
                              page(0x83, Bytes(60)),
                              page(code, joined({text("vac"), Bytes(1)})),
                              page(code, joined({text("xyz1"), Bytes(60)}))};
      for (const Bytes& bytes : kPages) {
        lun->options.pages = {{0x00, all}, {static_cast<std::uint8_t>(code), bytes}};
        expect_usable(vendor, kWwid, "SERIAL0");
        EXPECT_FALSE(identify()->access.rdac) << code;
      }
      lun->options.pages = {{0x00, all}};
      lun->options.pages_of_standard_data = {static_cast<std::uint8_t>(code)};
      expect_usable(vendor, kWwid, "SERIAL0");
      lun->options.pages_of_standard_data = {};
      for (const ScsiStatus status :
           {ScsiStatus::busy, ScsiStatus::task_set_full, ScsiStatus::reservation_conflict,
            ScsiStatus::check_condition, static_cast<ScsiStatus>(0x22)}) {
        target->inject(answers_page(code, status));
        const TimePoint began = reactor.now();
        expect_usable(vendor, kWwid, "SERIAL0");
        EXPECT_LE(reactor.now() - began, std::chrono::seconds(11))
            << code << " " << static_cast<int>(status);
        target->clear_faults();
      }
      SimFault fault = answers_page(code, ScsiStatus::good);
      fault.response_code = 1;
      target->inject(fault);
      expect_usable("target failure", kWwid, "SERIAL0");
      target->clear_faults();
    }
  }
}

// A count of more bytes than were asked for.
TEST_F(OptionalPagesTest, APageOfWhichThereWouldBeMoreIsRead) {
  lun->options.max_transfer_blocks = 77;
  for (const int code : {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2}) {
    SimFault fault = answers_page(code, ScsiStatus::good);
    fault.execute = true;
    fault.overflow_bytes = 100;
    target->inject(fault);
    expect_usable(testing::PrintToString(code), kWwid, "SERIAL0");
    EXPECT_EQ(identify()->max_transfer_blocks, 77U) << code;
    target->clear_faults();
  }
}

// Its modes are asked for when it serves the LUN.
TEST_F(OptionalPagesTest, APortThatServesNothingWhenItIsAskedForModesIsNotUsed) {
  target->inject(answers(scsi_operation::kModeSense6, ScsiStatus::check_condition,
                         make_sense(SenseKey::not_ready, 0x040b)));
  const auto identity = identify();
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->access.refused, AccessState::standby);
}

TEST_F(OptionalPagesTest, TestUnitReadyWithNothingToComplainOfIsReady) {
  const struct {
    const char* what;
    ScsiStatus status;
    Bytes sense;
    bool usable;
  } kCases[] = {
      {"recovered error", ScsiStatus::check_condition,
       make_sense(SenseKey::recovered_error, 0x1701), true},
      {"recovered error: threshold", ScsiStatus::check_condition,
       make_sense(SenseKey::recovered_error, 0x5d00), true},
      {"no sense", ScsiStatus::check_condition, make_sense(SenseKey::no_sense, 0), true},
      {"no sense, with a code", ScsiStatus::check_condition, make_sense(SenseKey::no_sense, 0x0b01),
       true},
      {"no sense, by descriptors", ScsiStatus::check_condition, octets({0x72, 0, 0, 0, 0, 0, 0, 0}),
       true},
      {"recovered error, by descriptors", ScsiStatus::check_condition,
       octets({0x72, 1, 0x17, 1, 0, 0, 0, 0}), true},
      {"condition met", ScsiStatus::condition_met, {}, true},
      {"reservation conflict", ScsiStatus::reservation_conflict, {}, true},
      {"unknown command", ScsiStatus::check_condition,
       make_sense(SenseKey::illegal_request, 0x2000), true},
      {"not ready", ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0403), false},
      {"becoming ready", ScsiStatus::check_condition, make_sense(SenseKey::not_ready, 0x0401),
       false},
      {"medium error", ScsiStatus::check_condition, make_sense(SenseKey::medium_error, 0x3100),
       false},
      {"no LUN", ScsiStatus::check_condition, make_sense(SenseKey::illegal_request, 0x2500), false},
  };
  for (const auto& test : kCases) {
    target->inject(answers(scsi_operation::kTestUnitReady, test.status, test.sense));
    EXPECT_EQ(identify().has_value(), test.usable) << test.what;
    target->clear_faults();
  }
}

// A target that ends every command with a word about its health is as good as one that does not.
TEST_F(OptionalPagesTest, EveryCommandMayEndWithRecoveredError) {
  for (const SenseKey key : {SenseKey::recovered_error, SenseKey::no_sense}) {
    SimFault fault;
    fault.count = 0;
    fault.execute = true;
    fault.status = ScsiStatus::check_condition;
    fault.sense = make_sense(key, 0);
    fault.matches = [](const SimCommand& command) {
      return command.cdb[0] == scsi_operation::kTestUnitReady;
    };
    target->inject(fault);
    expect_usable("recovered", kWwid, "SERIAL0");
    target->clear_faults();
  }
}

}  // namespace
}  // namespace iscsi_blkback
