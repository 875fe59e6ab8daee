// Pages for guests, read back by what reads a LUN's.
#include "initiator/scsi/vpd_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "initiator/scsi/vpd.h"
#include "tests/support/vpd_bytes.h"

namespace iscsi_blkback {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const Designator kNaa6{1, 3, "\x60\x01\x40\x5a\xab\xbc\xcd\xde\xef\xf0\x01\x12\x23\x34\x45\x56"};
const Designator kT10Id{2, 1, "LIO-ORG vm1:aabbcc"};
const Designator kEui{1, 2, "\x02\x11\x22\x33\x44\x55\x66\x77"};

TEST(VpdWriter, ASerialNumberIsAPage) {
  EXPECT_EQ(write_serial_number_page({.serial = "ABC123"}), page(0x80, text("ABC123")));
}

TEST(VpdWriter, ASerialNumberThatSaysNothingOrIsTooLongIsNone) {
  EXPECT_THAT(write_serial_number_page({}), IsEmpty());
  EXPECT_THAT(write_serial_number_page({.serial = "000000"}), IsEmpty());
  EXPECT_EQ(write_serial_number_page({.serial = std::string(251, 'x')}).size(), 255U);
  EXPECT_THAT(write_serial_number_page({.serial = std::string(252, 'x')}), IsEmpty());
}

TEST(VpdWriter, DesignatorsAreAPage) {
  const auto bytes = write_designator_page({.designators = {kNaa6, kT10Id}});
  EXPECT_EQ(bytes, page(0x83, joined({designator(kBinary, kNaa, text(kNaa6.bytes)),
                                      designator(kAscii, kT10, text(kT10Id.bytes))})));
}

// What is read first is what Windows goes by, whatever order the target has.
TEST(VpdWriter, TheBestDesignatorsComeFirst) {
  const auto bytes = write_designator_page({.designators = {kT10Id, kEui, kNaa6}});
  EXPECT_THAT(parse_designators(bytes).value(), ElementsAre(kNaa6, kEui, kT10Id));
}

TEST(VpdWriter, WhatTellsNoLunsApartOrIsATargetsOwnIsLeftOut) {
  const Designator zeros{1, 3, std::string(1, '\x60') + std::string(15, '\0')};
  const Designator local{1, 3, "\x30\x01\x02\x03\x04\x05\x06\x07"};
  const Designator own{2, 0, "target 7, LUN 1"};
  EXPECT_THAT(write_designator_page({.designators = {zeros, local, own}}), IsEmpty());
  EXPECT_THAT(
      parse_designators(write_designator_page({.designators = {zeros, local, own, kNaa6}})).value(),
      ElementsAre(kNaa6));
}

TEST(VpdWriter, APageHoldsWhatFits) {
  const Designator name{3, 8, "iqn.2026-01.test:" + std::string(215, 'n')};
  const Designator other{3, 8, "iqn.2026-01.test:m"};
  const auto bytes = write_designator_page({.designators = {name, kT10Id, other, kNaa6}});
  EXPECT_LE(bytes.size(), kMaxWrittenPageBytes);
  EXPECT_THAT(parse_designators(bytes).value(), ElementsAre(kNaa6, kT10Id, other))
      << "one that does not fit makes room for shorter ones";
}

TEST(VpdWriter, APageMayBeFull) {
  // 4 of the page, 20 of the NAA designator, 4 of this one's header.
  const Designator fits{3, 8, "iqn." + std::string(223, 'n')};
  const Designator too_long{3, 8, "iqn." + std::string(224, 'n')};
  EXPECT_EQ(write_designator_page({.designators = {kNaa6, fits}}).size(), kMaxWrittenPageBytes);
  EXPECT_EQ(write_designator_page({.designators = {kNaa6, too_long}}).size(), 24U);
}

}  // namespace
}  // namespace iscsi_blkback
