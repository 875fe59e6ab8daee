#include "initiator/scsi/vendor_pages.h"

#include <gtest/gtest.h>

#include <vector>

#include "initiator/scsi/vpd.h"

namespace iscsi_blkback {
namespace {

using RawBytes = std::vector<std::byte>;

RawBytes raw(std::initializer_list<int> bytes) {
  RawBytes result;
  for (const int byte : bytes) {
    result.push_back(static_cast<std::byte>(byte));
  }
  return result;
}

RawBytes access_page(int flags, int preference, int state = 0, int other_state = 0) {
  RawBytes page =
      raw({0, 0xc9, 0, 0x2c, 'v', 'a', 'c', 'e', flags, preference, state, 0, other_state, 0});
  page.resize(48);
  return page;
}

TEST(VendorPages, RdacVolumeAccess) {
  EXPECT_EQ(*parse_rdac_volume_access(access_page(0x01, 0x01)),
            (RdacVolumeAccess{.owned = true, .preference = 1}));
  EXPECT_EQ(*parse_rdac_volume_access(access_page(0x80, 0xf2)),
            (RdacVolumeAccess{.automatic_transfer = true, .preference = 2}));
  EXPECT_EQ(*parse_rdac_volume_access(access_page(0x20, 0x02)),
            (RdacVolumeAccess{.shared = true, .preference = 2}));
  EXPECT_EQ(*parse_rdac_volume_access(access_page(0x11, 0x01, 0x0f, 0x03)),
            (RdacVolumeAccess{.owned = true,
                              .preference = 1,
                              .state = AccessState::transitioning,
                              .other_state = AccessState::unavailable}));
}

TEST(VendorPages, AForeignPageC9IsNoVolumeAccessPage) {
  RawBytes page = access_page(0x01, 0x01);
  page[4] = std::byte{'x'};
  EXPECT_FALSE(parse_rdac_volume_access(page));
  page = access_page(0x01, 0x01);
  page[1] = std::byte{0xc8};
  EXPECT_FALSE(parse_rdac_volume_access(page));
}

TEST(VendorPages, CutOffPagesAreRefused) {
  const RawBytes access = access_page(0x11, 0x01);
  const RawBytes max_lun = raw({0, 0xc2, 0, 12, 's', 'w', 'r', '4', 7, 0, 0, 9, 1, 1, 0, 255});
  const RawBytes unit_path = raw({0, 0xc0, 0, 60, 2, 1, 0, 0, 1, 0});
  for (std::size_t length = 0; length < 10; ++length) {
    EXPECT_FALSE(parse_rdac_volume_access(std::span(access).first(length))) << length;
    EXPECT_FALSE(parse_emc_unit_path(std::span(unit_path).first(length))) << length;
  }
  for (std::size_t length = 0; length < max_lun.size(); ++length) {
    EXPECT_FALSE(parse_rdac_max_lun(std::span(max_lun).first(length))) << length;
  }
  EXPECT_TRUE(parse_emc_unit_path(unit_path) && parse_rdac_max_lun(max_lun));
  EXPECT_EQ(parse_rdac_volume_access(std::span(access).first(10))->state, std::nullopt);
}

TEST(VendorPages, RdacMaxLun) {
  EXPECT_EQ(parse_rdac_max_lun(raw({0, 0xc2, 0, 12, 's', 'w', 'r', '4', 7, 0, 0, 9, 1, 1, 0, 255})),
            255);
  EXPECT_FALSE(
      parse_rdac_max_lun(raw({0, 0xc2, 0, 12, 'x', 'w', 'r', '4', 7, 0, 0, 9, 1, 1, 0, 255})));
}

TEST(VendorPages, EmcUnitPath) {
  const EmcUnitPath owner = *parse_emc_unit_path(raw({0, 0xc0, 0, 60, 2, 1, 0, 0, 1, 0}));
  EXPECT_EQ(owner, (EmcUnitPath{.lun_state = 2, .default_owner = true}));
  const EmcUnitPath other = *parse_emc_unit_path(raw({0, 0xc0, 0, 60, 1, 1, 0, 0, 0, 0}));
  EXPECT_EQ(other, (EmcUnitPath{.lun_state = 1, .default_owner = false}));
  EXPECT_FALSE(parse_emc_unit_path(raw({0, 0xc0, 0, 60, 1, 1, 0, 0, 0, 1}))) << "revision";
}

TEST(VendorPages, TheTakeOverOfARdacLunInBothForms) {
  RawBytes list(kRdacLongListBytes, std::byte{0xee});
  encode_rdac_take_over(3, false, list);
  RawBytes expected(kRdacShortListBytes);
  expected[4] = std::byte{0x2c};
  expected[5] = std::byte{0x68};
  expected[6 + 33] = std::byte{0x02};
  expected[6 + 36] = std::byte{20};
  expected[6 + 37] = std::byte{0x02};
  expected[6 + 38 + 3] = std::byte{0x81};
  EXPECT_EQ(RawBytes(list.begin(), list.begin() + kRdacShortListBytes), expected);

  encode_rdac_take_over(200, true, list);
  expected.assign(kRdacLongListBytes, std::byte{0});
  expected[8] = std::byte{0x6c};
  expected[9] = std::byte{0x01};
  expected[10] = std::byte{0x01};
  expected[11] = std::byte{0x28};
  expected[12 + 33] = std::byte{0x02};
  expected[12 + 36] = std::byte{20};
  expected[12 + 37] = std::byte{0x02};
  expected[12 + 38 + 200] = std::byte{0x81};
  EXPECT_EQ(list, expected);
}

TEST(TargetPortIds, AreFoundAmongTheDesignators) {
  const TargetPortIds ids =
      parse_target_port_ids(raw({0, 0x83, 0, 24, 0x01, 0x94, 0,    4,    0, 0, 1, 2, 0x01, 0x95,
                                 0, 4,    0, 0,  3,    4,    0x01, 0x05, 0, 4, 0, 0, 9,    9}));
  EXPECT_EQ(ids.relative_port, 0x0102);
  EXPECT_EQ(ids.target_port_group, 0x0304) << "that of the LUN is none of a port";
}

TEST(TargetPortIds, CutOffOrOddOnesAreNone) {
  const RawBytes page = raw({0, 0x83, 0, 8, 0x01, 0x94, 0, 4, 0, 0, 1, 2});
  for (std::size_t length = 0; length < page.size(); ++length) {
    EXPECT_EQ(parse_target_port_ids(std::span(page).first(length)).relative_port, std::nullopt);
  }
  EXPECT_EQ(parse_target_port_ids(raw({0, 0x83, 0, 6, 0x01, 0x94, 0, 2, 1, 2})).relative_port,
            std::nullopt);
}

}  // namespace
}  // namespace iscsi_blkback
