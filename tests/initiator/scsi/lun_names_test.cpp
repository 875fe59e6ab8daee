// Whether two paths lead to one LUN, and whether it is the one that is meant.
#include "initiator/scsi/lun_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace iscsi_blkback {
namespace {

using namespace std::string_literals;
using testing::HasSubstr;

Designator t10(const std::string& value) {
  return {2, 1, value};
}
Designator binary_t10(const std::string& value) {
  return {1, 1, value};
}
Designator eui(const std::string& value) {
  return {1, 2, value};
}
Designator lun_name(const std::string& value) {
  return {3, 8, value};
}
Designator vendor_specific(const std::string& value) {
  return {2, 0, value};
}
Designator naa(const std::string& digits) {
  Designator designator{1, 3, ""};
  for (std::size_t at = 0; at + 1 < digits.size(); at += 2) {
    designator.bytes += static_cast<char>(std::stoi(digits.substr(at, 2), nullptr, 16));
  }
  return designator;
}

LunNames names(std::vector<Designator> designators, std::string serial = "",
               std::string vendor = "IET     ", std::string product = "VIRTUAL-DISK    ") {
  return {std::move(designators), std::move(serial), std::move(vendor), std::move(product)};
}

const std::string kLio = "6001405aabbccddeeff0011223344556";

// As tgtd answers for a LUN that was given this scsi_id, and its own number of the LUN.
LunNames tgt(const std::string& scsi_id, const std::string& naa6, int lun,
             const std::string& serial) {
  return names({t10(scsi_id + std::string(36 - scsi_id.size(), '\0')),
                naa("300000010000000" + std::to_string(lun)), naa(naa6)},
               serial);
}
const LunNames kTgtDefault =
    tgt("IET     00010001", "60000000000000000e00000000010001", 1, "beaf11");
const LunNames kTgtG = tgt("mysql-g", "60000000000000000000000000000000", 2, "beaf12");
const LunNames kTgtH = tgt("mysql-h", "60000000000000000000000000000000", 3, "beaf13");

TEST(LunNames, TheSameNamesAreOfOneLun) {
  for (const LunNames& lun :
       {kTgtDefault, kTgtG, kTgtH, names({naa(kLio)}), names({t10("IET     1")}, "S1"),
        names({}, "S1"), names({}), names({eui("12345678")}), names({lun_name("iqn.x")}),
        names({vendor_specific("lun 1")}), names({naa("3000000100000001")}),
        names({binary_t10("IET\0\0\0\0\0\1\2\3\4"s)})}) {
    EXPECT_EQ(difference(lun, lun, SerialNumberIs::the_luns), std::nullopt) << wwid_of(lun);
    EXPECT_EQ(difference(lun, lun, SerialNumberIs::the_paths), std::nullopt) << wwid_of(lun);
  }
}

TEST(LunNames, WhatOneHasAndTheOtherHasNotMakesTwoLuns) {
  const struct {
    const char* what;
    LunNames one;
    LunNames other;
    std::string told;
  } kCases[] = {
      {"tgt: names that are no numbers", kTgtG, kTgtH,
       "its identity is \"33000000100000003\", the disk's is \"33000000100000002\""},
      {"the same, at two servers", kTgtG,
       tgt("mysql-h", "60000000000000000000000000000000", 2, "beaf12"),
       "its T10 vendor identification is \"1mysql-h\", the disk's is \"1mysql-g\""},
      {"tgt: equal numbers made of other names", names({t10("beef-g"), naa(kLio)}),
       names({t10("beef-h"), naa(kLio)}),
       "its T10 vendor identification is \"1beef-h\", the disk's is \"1beef-g\""},
      {"the same, in another order", names({naa(kLio), t10("beef-g")}),
       names({t10("beef-h"), naa(kLio)}), "its T10 vendor identification is"},
      {"serial numbers", names({naa(kLio)}, "S1"), names({naa(kLio)}, "S2"),
       "its unit serial number is \"S2\", the disk's is \"S1\" (where it is the controller's, "
       "path_grouping_policy group_by_serial says so)"},
      {"serial numbers that differ in a blank's place", names({naa(kLio)}, "S 1"),
       names({naa(kLio)}, "S  1"), "its unit serial number is"},
      {"NAA 6", names({naa(kLio)}), names({naa("6001405aabbccddeeff0011223344557")}),
       "its identity is \"36001405aabbccddeeff0011223344557\", the disk's is "
       "\"36001405aabbccddeeff0011223344556\""},
      {"NAA 5 beside an equal NAA 6", names({naa(kLio), naa("5000c50012345678")}),
       names({naa(kLio), naa("5000c50012345679")}), "its NAA designator is"},
      {"EUI-64 beside an equal NAA 6", names({naa(kLio), eui("12345678")}),
       names({naa(kLio), eui("12345679")}), "its EUI-64 is"},
      {"a SCSI name beside an equal NAA 6", names({naa(kLio), lun_name("iqn.a")}),
       names({naa(kLio), lun_name("iqn.b")}), "its SCSI name is \"8iqn.b\""},
      {"binary T10", names({binary_t10("IET\0\0\0\0\0\1"s)}),
       names({binary_t10("IET\0\0\0\0\0\2"s)}), "its identity is"},
      {"T10, blanks against none", names({t10("IET     A B")}), names({t10("IET     A  B")}),
       "its T10 vendor identification is"},
      {"T10, of two the second", names({t10("A"), t10("B")}), names({t10("A"), t10("C")}),
       "its T10 vendor identification is"},
      {"nothing in common", names({naa(kLio)}, "S1"), names({t10("IET     1")}, "S1"),
       "its identity is"},
      {"names against none", names({naa(kLio)}, "S1"), names({}, "S1"), "its identity is \"SIET"},
      {"none against names", names({}, "S1"), names({naa(kLio)}, "S1"), "its identity is"},
      {"names against nothing at all", names({naa(kLio)}), names({}), "its identity is \"\""},
      {"nothing at all against a serial number", names({}), names({}, "S1"), "its identity is"},
      {"serial numbers alone", names({}, "S1"), names({}, "S2"), "its identity is"},
      {"equal serial numbers of other products", names({}, "S1"),
       names({}, "S1", "IET     ", "OTHER           "), "its identity is"},
      {"vendor-specific ones alone", names({vendor_specific("a")}), names({vendor_specific("b")}),
       "its identity is"},
      {"NAA 3 alone", names({naa("3000000100000001")}), names({naa("3000000100000002")}),
       "its identity is"},
      {"NAA 3 where all else says nothing",
       names({naa("60000000000000000000000000000000"), naa("3000000100000001")}),
       names({naa("60000000000000000000000000000000"), naa("3000000100000002")}),
       "its identity is"},
      {"istgt: the first targets of two servers",
       names({naa("30000000e986fb6d"), t10("FreeBSD iSCSI DISK      10000001            ")},
             "10000001", "FreeBSD ", "iSCSI DISK      "),
       names({naa("300000001bed786e"), t10("FreeBSD iSCSI DISK      10000001            ")},
             "10000001", "FreeBSD ", "iSCSI DISK      "),
       "its identity is \"3300000001bed786e\""},
      {"only zeros in common", names({naa("60000000000000000000000000000000"), t10("IET     1")}),
       names({naa("60000000000000000000000000000000"), eui("12345678")}), "its identity is"},
  };
  for (const auto& test : kCases) {
    EXPECT_THAT(difference(test.one, test.other, SerialNumberIs::the_luns).value_or("none"),
                HasSubstr(test.told))
        << test.what;
    EXPECT_TRUE(difference(test.other, test.one, SerialNumberIs::the_luns)) << test.what;
  }
}

TEST(LunNames, WhatOnlyOneHasMakesNoOtherLun) {
  const struct {
    const char* what;
    LunNames one;
    LunNames other;
  } kCases[] = {
      {"a serial number", names({naa(kLio)}, "S1"), names({naa(kLio)})},
      {"a serial number of zeros", names({naa(kLio)}, "S1"), names({naa(kLio)}, "00000000")},
      {"a T10 designator", names({naa(kLio), t10("IET     1")}), names({naa(kLio)})},
      {"a second designator of a type", names({t10("A"), t10("B")}), names({t10("B")})},
      {"a T10 designator of blanks", names({naa(kLio), t10("IET     1")}),
       names({naa(kLio), t10("        ")})},
      {"an NAA of zeros", names({t10("IET     1"), naa("6000000000000000000000000000000f")}),
       names({t10("IET     1"), naa("60000000000000000000000000000000")})},
      {"EUI-64 of two lengths", names({naa(kLio), eui("12345678")}),
       names({naa(kLio), eui("123456789abc")})},
      {"another order", names({naa(kLio), t10("IET     1"), eui("12345678")}),
       names({eui("12345678"), naa(kLio), t10("IET     1")})},
      {"padding", names({t10("IET     1")}), names({t10("IET     1  \0\0"s)})},
      {"another product's name", names({naa(kLio)}, "S1"),
       names({naa(kLio)}, "S1", "IET     ", "OTHER           ")},
      {"one LUN of tgt at two targets, where it has two locally assigned numbers",
       names({naa(kLio), t10("beef"), naa("3000000100000001")}, "S1"),
       names({naa(kLio), t10("beef"), naa("3000000200000001")}, "S1")},
      {"vendor-specific ones that are a port's", names({naa(kLio), vendor_specific("port 1")}),
       names({naa(kLio), vendor_specific("port 2")})},
      {"what ports are grouped by", names({naa(kLio), {1, 6, "\0\0\0\1"s}}),
       names({naa(kLio), {1, 6, "\0\0\0\2"s}})},
  };
  for (const auto& test : kCases) {
    EXPECT_EQ(difference(test.one, test.other, SerialNumberIs::the_luns), std::nullopt)
        << test.what;
    EXPECT_EQ(difference(test.other, test.one, SerialNumberIs::the_luns), std::nullopt)
        << test.what;
  }
}

TEST(LunNames, SerialNumbersOfControllersAreNotTheLuns) {
  const LunNames one = names({naa(kLio)}, "CTL-A");
  const LunNames other = names({naa(kLio)}, "CTL-B");
  EXPECT_TRUE(difference(one, other, SerialNumberIs::the_luns));
  EXPECT_FALSE(difference(one, other, SerialNumberIs::the_paths));
  EXPECT_TRUE(difference(names({}, "CTL-A"), names({}, "CTL-B"), SerialNumberIs::the_paths))
      << "there is nothing else";
  EXPECT_TRUE(difference(one, names({naa("6001405aabbccddeeff0011223344557")}, "CTL-A"),
                         SerialNumberIs::the_paths));
}

TEST(LunNames, ALunIsCalledByEachOfItsNamesInEachForm) {
  const LunNames lun =
      names({t10("IET     00010001\0\0"s), naa(kLio), eui("12345678"),
             lun_name("iqn.2026-01.t:Lun/1"), vendor_specific("lun 7"), binary_t10("IET     \1\2"s),
             naa("30000001000000ab"), t10("A (B)/C\\D\xc3\xa9\tE")},
            "SN 1");
  for (const char* wwid : {"1IET_00010001",
                           "1IET     00010001",
                           "1IET 00010001",
                           "36001405aabbccddeeff0011223344556",
                           "36001405AABBCCDDEEFF0011223344556",
                           "23132333435363738",
                           "8iqn.2026-01.t:Lun/1",
                           "8iqn.2026-01.t:Lun_1",
                           "0IET_VIRTUAL-DISK_lun_7",
                           "0IET     VIRTUAL-DISK    lun 7",
                           "149455420202020200102",
                           "149455420202020200102",
                           "330000001000000ab",
                           "330000001000000AB",
                           "SIET_VIRTUAL-DISK_SN_1",
                           "SIET     VIRTUAL-DISK    SN 1",
                           "SSN 1",
                           "SSN_1",
                           "1A_(B)/C\\x5cD\\xc3\\xa9\\x09E",
                           "1A__B__C_D___E"}) {
    EXPECT_TRUE(is_called(lun, wwid)) << wwid;
  }
  for (const char* wwid : {"",
                           "1IET_00010002",
                           "1IET_0001000",
                           "1IET__00010001",
                           "1iet_00010001",
                           "IET_00010001",
                           "36001405aabbccddeeff0011223344557",
                           "36001405aabbccddeeff001122334455",
                           "8iqn.2026-01.t:lun/1",
                           "8iqn.2026-01.t:Lun",
                           "0lun 7",
                           "0IET_VIRTUAL-DISK_lun_8",
                           "149455420202020200103",
                           "330000001000000ac",
                           "SSN",
                           "SSN 2",
                           "SIET_OTHER_SN_1",
                           "1A_(B)/C\\x5cD\\xc3\\xa9\\x0aE",
                           "9",
                           "1",
                           "S"}) {
    EXPECT_FALSE(is_called(lun, wwid)) << wwid;
  }
}

TEST(LunNames, ALunWithoutNamesIsCalledByNone) {
  for (const LunNames& lun : {names({}), names({}, "000"), names({t10("IET     ")})}) {
    EXPECT_TRUE(is_called(lun, ""));
    EXPECT_FALSE(is_called(lun, "SSN"));
    EXPECT_FALSE(is_called(lun, "1"));
  }
  EXPECT_TRUE(is_called(names({naa("60000000000000000000000000000000")}),
                        "360000000000000000000000000000000"))
      << "an operator may say so";
}

TEST(LunNames, ALunIsCalledByWhatIsShown) {
  for (int byte = 0; byte < 256; ++byte) {
    for (const auto& designator : {t10("IET     A"s + static_cast<char>(byte) + "B"),
                                   binary_t10("A"s + static_cast<char>(byte)),
                                   lun_name("A"s + static_cast<char>(byte) + "B"),
                                   vendor_specific("A"s + static_cast<char>(byte) + "B")}) {
      const LunNames lun = names({designator});
      EXPECT_TRUE(is_called(lun, wwid_of(lun))) << wwid_of(lun);
      // scsi_id has one form for them all.
      const bool ambiguous = byte == ' ' || byte == '_' || byte == '*';
      EXPECT_EQ(is_called(names({t10("IET     A*B"), lun_name("A*B")}), wwid_of(lun)),
                ambiguous && (designator.type == 8 ||
                              designator == t10("IET     A"s + static_cast<char>(byte) + "B")))
          << wwid_of(lun);
    }
  }
}

// Another version of the process may run beside this one: what both know by the same name, they
// keep in order. These are the names that the first versions had.
TEST(LunNames, TheBarriersNameIsThatOfFormerVersionsWhereItWasRight) {
  const struct {
    const char* what;
    LunNames lun;
    std::string name;
  } kCases[] = {
      {"tgt", kTgtDefault, "360000000000000000e00000000010001"},
      {"tgt, with a number", tgt("60a98000deadbeef", "600000000000000060a98000deadbeef", 1, "SN1"),
       "3600000000000000060a98000deadbeef"},
      {"LIO", names({t10("LIO-ORG disk0:1-2"), naa(kLio)}, "1-2", "LIO-ORG "),
       "36001405aabbccddeeff0011223344556"},
      {"a company, and a name that is no number", names({t10("IET     disk-z"), naa(kLio)}),
       "3" + kLio},
      {"blanks", names({t10("IET     00010001")}), "1IET     00010001"},
      {"text that is called binary", names({binary_t10("IET     00010001")}), "1IET     00010001"},
      {"padding", names({t10("IET     0001  \0\0"s)}), "1IET     0001"},
      {"not printable", names({t10("IET     \x1b")}), "1IET     \\x1b"},
      {"a name before T10", names({t10("IET     1"), lun_name("iqn.2026-01.t:1")}),
       "8iqn.2026-01.t:1"},
      {"EUI-64 before both",
       names({t10("IET     1"), lun_name("iqn.2026-01.t:1"), eui("12345678")}),
       "23132333435363738"},
      {"NAA 2 before 3", names({naa("3000000100000001"), naa("2000abcdef012345")}),
       "32000abcdef012345"},
      {"NAA 5 before 2", names({naa("2000abcdef012345"), naa("5000c50012345678")}),
       "35000c50012345678"},
      {"NAA 3 and a name of its own", names({t10("FreeBSD iSCSI DISK 1"), naa("3000000100000001")}),
       "33000000100000001"},
      {"a serial number", names({}, "SN 1"), "SSN 1"},
      {"a vendor-specific one, which was passed over", names({vendor_specific("a")}, "SN1"),
       "SSN1"},
      {"no name", names({}), ""},
      // And here it was wrong.
      {"tgt, mysql-g", kTgtG, "33000000100000002"},
      {"tgt, beef-g", names({t10("beef-g"), naa("600000000000000000000000beef0000")}),
       "3600000000000000000000000beef0000 1beef-g"},
      {"IET", names({binary_t10("IET\0\0\0\0\0\1\2"s)}), "149455400000000000102"},
      {"zeros", names({naa("60000000000000000000000000000000")}, "SN1"), "SSN1"},
  };
  for (const auto& test : kCases) {
    EXPECT_EQ(barrier_name_of(test.lun), test.name) << test.what;
  }
  EXPECT_NE(barrier_name_of(kTgtG), barrier_name_of(kTgtH));
}

// ---- what ends in a blank, what is called by a number in words, what has no known form

Designator of_type(std::uint8_t type, const std::string& value) {
  return {1, type, value};
}
const std::string kUuidHead = "\x10\0"s;

TEST(LunNames, EachByteOfABinaryNameCounts) {
  for (const std::uint8_t type :
       {std::uint8_t{0}, std::uint8_t{1}, std::uint8_t{7}, std::uint8_t{10}}) {
    const std::string head = type == 10 ? kUuidHead : "";
    for (std::size_t at = 0; at < 16; ++at) {
      for (int one = 0; one < 256; ++one) {
        std::string value(16, 'x');
        value[at] = static_cast<char>(one);
        std::string other = value;
        other[at] = static_cast<char>((one + 32) % 256);
        const LunNames first = names({of_type(type, head + value)});
        const LunNames second = names({of_type(type, head + other)});
        ASSERT_TRUE(difference(first, second, SerialNumberIs::the_luns))
            << int{type} << " " << at << " " << one;
        if (type == 1) {
          ASSERT_NE(barrier_name_of(first), barrier_name_of(second)) << at << " " << one;
          ASSERT_NE(wwid_of(first), wwid_of(second)) << at << " " << one;
        }
      }
    }
  }
}

TEST(LunNames, ANameThatSaysNothingInItsOwnFormIsNone) {
  for (const Designator& nothing :
       {lun_name("naa.60000000000000000000000000000000"), lun_name("naa.5000000000000000"),
        lun_name("naa.3000000000000000\0\0\0\0"s), lun_name("NAA.6FFFFFFFFFFFFFFF"),
        lun_name("naa."), lun_name("eui.0000000000000000"), lun_name("eui.ffffffffffffffff"),
        lun_name("eui.000000000000000000000000"), lun_name("EUI.00000000000000000000000000000000"),
        of_type(10, kUuidHead + std::string(16, '\0')),
        of_type(10, kUuidHead + std::string(16, '\xff')), of_type(10, kUuidHead),
        of_type(7, std::string(16, '\0')), of_type(7, std::string(16, '\xff')),
        of_type(6, "\0\0\0\1"s), of_type(11, "anything")}) {
    SCOPED_TRACE(testing::PrintToString(nothing.bytes));
    EXPECT_EQ(wwid_of(names({nothing}, "S1")), "SIET_VIRTUAL-DISK_S1");
    EXPECT_EQ(wwid_of(names({nothing})), "");
    EXPECT_EQ(barrier_name_of(names({nothing}, "S1")), "SS1");
    // Equal ones do not make two LUNs one.
    EXPECT_TRUE(difference(names({nothing, t10("IET     1")}), names({nothing, eui("12345678")}),
                           SerialNumberIs::the_luns));
    EXPECT_TRUE(each_of(names({nothing})).empty());
  }
  EXPECT_EQ(wwid_of(names({lun_name("naa.600140500000000")})), "8naa.600140500000000");
  EXPECT_EQ(wwid_of(names({lun_name("eui.0000000000000001")})), "8eui.0000000000000001");
  EXPECT_EQ(wwid_of(names({lun_name("iqn.2026-01.t:0")})), "8iqn.2026-01.t:0");
}

TEST(LunNames, ASerialNumberOfOnesIsNone) {
  for (const char* serial : {"\\xff", "\\xff\\xff\\xff\\xff"}) {
    EXPECT_EQ(wwid_of(names({}, serial)), "");
    EXPECT_EQ(
        difference(names({naa(kLio)}, serial), names({naa(kLio)}, "S1"), SerialNumberIs::the_luns),
        std::nullopt);
  }
  EXPECT_EQ(wwid_of(names({}, "\\xff1")), "SIET_VIRTUAL-DISK_\\xff1");
  EXPECT_EQ(wwid_of(names({}, "\\xfe")), "SIET_VIRTUAL-DISK_\\xfe");
}

// Of no form that the standard knows: nothing to be called by, and yet something.
TEST(LunNames, WhereNothingElseIsToldAMalformedIdentifierTellsOneLunFromAnother) {
  const struct {
    const char* what;
    Designator one;
    Designator other;
  } kCases[] = {
      {"NAA 6 of 8 bytes", naa("6001405000000001"), naa("6001405000000002")},
      {"NAA 5 of 16 bytes", naa("5001405000000000000000000000000a"),
       naa("5001405000000000000000000000000b")},
      {"NAA 0", naa("0a0b0c0d0e0f0001"), naa("0a0b0c0d0e0f0002")},
      {"first digits that differ", naa("a00b0c0d0e0f0001"), naa("b00b0c0d0e0f0001")},
      {"NAA of 12 bytes", naa("600140500000000000000001"), naa("600140500000000000000002")},
      {"EUI-64 of 7 bytes", eui("1234567"), eui("1234568")},
      {"EUI-64 of 20 bytes", eui("12345678901234567890"), eui("12345678901234567891")},
      {"of two lengths", eui("1234567"), eui("12345678901234567891")},
  };
  for (const auto& test : kCases) {
    const LunNames one = names({test.one});
    const LunNames other = names({test.other});
    EXPECT_EQ(wwid_of(one), "") << test.what;
    EXPECT_TRUE(difference(one, other, SerialNumberIs::the_luns)) << test.what;
    EXPECT_TRUE(difference(other, one, SerialNumberIs::the_paths)) << test.what;
    EXPECT_EQ(difference(one, one, SerialNumberIs::the_luns), std::nullopt) << test.what;
    EXPECT_EQ(difference(one, names({}), SerialNumberIs::the_luns), std::nullopt) << test.what;
    EXPECT_EQ(difference(names({test.one, test.other}), one, SerialNumberIs::the_luns),
              std::nullopt)
        << test.what;
    EXPECT_EQ(difference(names({naa(kLio), test.one}), names({naa(kLio), test.other}),
                         SerialNumberIs::the_luns),
              std::nullopt)
        << test.what << ": there is something better";
  }
  EXPECT_EQ(
      difference(names({naa("")}), names({naa("6001405000000001")}), SerialNumberIs::the_luns),
      std::nullopt);
  EXPECT_EQ(difference(names({naa("60000000")}), names({naa("5000000000000000")}),
                       SerialNumberIs::the_luns),
            std::nullopt)
      << "zeros of any form say nothing";
}

// A page of 4 KiB has room for a thousand; each comparison of each with each is a guest's time.
TEST(LunNames, AThousandNamesAreComparedInAMoment) {
  LunNames many = names({});
  for (int number = 0; number < 1000; ++number) {
    many.designators.push_back(vendor_specific("lun " + std::to_string(number)));
  }
  LunNames others = many;
  std::reverse(others.designators.begin(), others.designators.end());
  EXPECT_EQ(difference(many, many, SerialNumberIs::the_luns), std::nullopt);
  EXPECT_EQ(each_of(many).size(), kMostDesignators);
  EXPECT_TRUE(difference(many, others, SerialNumberIs::the_luns)) << "the first ones count";
  LunNames again = names({naa(kLio)});
  again.designators.insert(again.designators.end(), 1000, naa(kLio));
  again.designators.push_back(t10("IET     1"));
  EXPECT_EQ(each_of(again).size(), 2U) << "each once";
}

}  // namespace
}  // namespace iscsi_blkback
