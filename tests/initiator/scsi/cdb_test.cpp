// CDBs and parameter data, byte for byte against the tables of SPC-4, SBC-3 and SAM-5.
#include "initiator/scsi/cdb.h"

#include <gmock/gmock.h>

#include "initiator/scsi/lun_address.h"
#include "initiator/scsi/mode_pages.h"
#include "initiator/scsi/persistent_reservation.h"
#include "initiator/scsi/target_port_groups.h"

namespace iscsi_blkback {
namespace {

using ::testing::ElementsAre;

using RawBytes = std::vector<std::byte>;

RawBytes raw(std::initializer_list<int> values) {
  RawBytes result;
  for (const int value : values) {
    result.push_back(static_cast<std::byte>(value));
  }
  return result;
}

// A CDB's bytes up to its own length; the rest is zero.
void expect_cdb(const Cdb& cdb, std::initializer_list<int> expected) {
  std::size_t at = 0;
  for (const int byte : expected) {
    EXPECT_EQ(cdb[at], byte) << "byte " << at;
    ++at;
  }
  for (; at < cdb.size(); ++at) {
    EXPECT_EQ(cdb[at], 0) << "byte " << at;
  }
}

TEST(Cdb, ReadsAndWrites) {
  expect_cdb(read10_cdb(0x01020304, 0x0506), {0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0});
  expect_cdb(write10_cdb(0x01020304, 0x0506), {0x2a, 0, 1, 2, 3, 4, 0, 5, 6, 0});
  expect_cdb(read16_cdb(0x0102030405060708, 0x090a0b0c),
             {0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0});
  expect_cdb(write16_cdb(0x0102030405060708, 0x090a0b0c),
             {0x8a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0});
}

TEST(Cdb, SynchronizeCache) {
  expect_cdb(synchronize_cache10_cdb(), {0x35});
  expect_cdb(synchronize_cache16_cdb(), {0x91});
  expect_cdb(synchronize_cache10_cdb(7, 9), {0x35, 0, 0, 0, 0, 7, 0, 0, 9});
  expect_cdb(synchronize_cache16_cdb(7, 9), {0x91, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 9});
}

TEST(Cdb, UnmapAndItsList) {
  RawBytes list(unmap_list_bytes(2));
  begin_unmap_list(2, list);
  put_unmap_range({.block = 0x0102030405060708, .block_count = 0x090a0b0c}, 0, list);
  put_unmap_range({.block = 16, .block_count = 1}, 1, list);
  EXPECT_EQ(list, raw({0, 38, 0, 32, 0, 0, 0, 0,                              //
                       1, 2,  3, 4,  5, 6, 7, 8,  9, 10, 11, 12, 0, 0, 0, 0,  //
                       0, 0,  0, 0,  0, 0, 0, 16, 0, 0,  0,  1,  0, 0, 0, 0}));
  expect_cdb(unmap_cdb(40), {0x42, 0, 0, 0, 0, 0, 0, 0, 40});
  EXPECT_LE(unmap_list_bytes(kMaxUnmapRanges), 0xffffU);
}

TEST(Cdb, WriteSame) {
  expect_cdb(write_same16_cdb(3, 5, false), {0x93, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5});
  EXPECT_EQ(write_same16_cdb(3, 5, true)[1], 0x08);
}

TEST(Cdb, ModeSense) {
  expect_cdb(mode_sense6_cdb(0x3f, 192), {0x1a, 0x08, 0x3f, 0, 192});
  expect_cdb(mode_sense10_cdb(0x08, 0x0102), {0x5a, 0x08, 0x08, 0, 0, 0, 0, 1, 2});
}

TEST(Cdb, TargetPortGroups) {
  expect_cdb(report_target_port_groups_cdb(0x01020304, false),
             {0xa3, 0x0a, 0, 0, 0, 0, 1, 2, 3, 4});
  expect_cdb(report_target_port_groups_cdb(4096, true), {0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 16, 0});
  expect_cdb(set_target_port_groups_cdb(12), {0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 12});
}

TEST(Cdb, PersistentReservations) {
  expect_cdb(persistent_reserve_in_cdb(0x02, 0x0108), {0x5e, 0x02, 0, 0, 0, 0, 0, 1, 8});
  expect_cdb(persistent_reserve_out_cdb(0x05, 0x07, 24), {0x5f, 0x05, 0x07, 0, 0, 0, 0, 0, 24});
}

TEST(LunAddress, AllMethodsOfOneLevel) {
  for (const auto& [number, field] : {std::pair<std::uint32_t, std::uint64_t>{0, 0},
                                      {255, 0x00ff000000000000},
                                      {256, 0x4100000000000000},
                                      {16383, 0x7fff000000000000},
                                      {16384, 0xd200400000000000},
                                      {0xffffff, 0xd2ffffff00000000}}) {
    EXPECT_EQ(encode_lun(number), field);
    EXPECT_EQ(decode_lun(field), number);
  }
  EXPECT_EQ(decode_lun(0x4005000000000000), 5U) << "flat below 256";
  EXPECT_EQ(decode_lun(0xd200000500000000), 5U) << "extended flat below 256";
}

TEST(LunAddress, WhatHasNoNumber) {
  for (const std::uint64_t field : {0x0105000000000000U,  // peripheral, another bus
                                    0x8005000000000000U,  // logical unit addressing
                                    0xc101000000000000U,  // well-known: REPORT LUNS
                                    0x0001000200000000U,  // a second level
                                    0x4001000000000001U,  // likewise
                                    0xd200000500000001U,  // likewise
                                    0xe200000000050000U,  // extended flat of 40 bits
                                    0xffffffffffffffffU}) {
    EXPECT_EQ(decode_lun(field), std::nullopt) << std::hex << field;
  }
  EXPECT_EQ(lun_text(0x0007000000000000), "7");
  EXPECT_EQ(lun_text(0xc101000000000000), "0xc101000000000000");
}

TEST(TargetPortGroups, BothFormats) {
  // Two groups: one of two ports, active/optimized and preferred; one of none, standby.
  const RawBytes groups = raw({0x80, 0x8f, 0, 1, 0, 2, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2,  //
                               0x02, 0x05, 1, 0, 0, 0, 0, 0});
  RawBytes plain = raw({0, 0, 0, 24});
  plain.insert(plain.end(), groups.begin(), groups.end());
  RawBytes extended = raw({0, 0, 0, 28, 0x10, 60, 0, 0});
  extended.insert(extended.end(), groups.begin(), groups.end());
  for (const RawBytes& bytes : {plain, extended}) {
    const auto parsed = parse_target_port_groups(bytes);
    ASSERT_TRUE(parsed) << parsed.error().message;
    ASSERT_EQ(parsed->groups.size(), 2U);
    EXPECT_EQ(parsed->implicit_transition_seconds, bytes.size() == extended.size() ? 60 : 0);
    EXPECT_EQ(parsed->groups[0].tag, 1);
    EXPECT_EQ(parsed->groups[0].state, AccessState::active_optimized);
    EXPECT_TRUE(parsed->groups[0].preferred);
    EXPECT_EQ(parsed->groups[0].supported_states, 0x8f);
    EXPECT_EQ(parsed->groups[0].status_code, 2);
    EXPECT_THAT(parsed->groups[0].ports, ElementsAre(1, 2));
    EXPECT_EQ(parsed->groups[1].tag, 256);
    EXPECT_EQ(parsed->groups[1].state, AccessState::standby);
    EXPECT_TRUE(parsed->groups[1].ports.empty());
  }
  EXPECT_TRUE(parse_target_port_groups(raw({0, 0, 0, 0}))->groups.empty());
}

TEST(TargetPortGroups, RefusesEveryCut) {
  const RawBytes whole = raw({0, 0, 0, 16, 0x00, 0x8f, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2});
  ASSERT_TRUE(parse_target_port_groups(whole));
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const RawBytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_FALSE(parse_target_port_groups(cut)) << length;
    RawBytes consistent = cut;
    if (length > 4) {
      consistent[3] = static_cast<std::byte>(length - 4);
      EXPECT_FALSE(parse_target_port_groups(consistent)) << length;
    }
  }
  EXPECT_FALSE(parse_target_port_groups(raw({0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})));
}

TEST(TargetPortGroups, EveryStateHasAName) {
  EXPECT_STREQ(to_string(AccessState::active_optimized), "active/optimized");
  EXPECT_STREQ(to_string(AccessState::transitioning), "transitioning");
  EXPECT_STREQ(to_string(static_cast<AccessState>(9)), "unknown");
}

TEST(TargetPortGroups, ListOfSet) {
  RawBytes list(set_target_port_groups_list_bytes(2), std::byte{0xee});
  const std::array<SetTargetPortGroup, 2> groups = {
      {{.tag = 0x0102, .state = AccessState::active_optimized},
       {.tag = 3, .state = AccessState::standby}}};
  encode_set_target_port_groups_list(groups, list);
  EXPECT_EQ(list, raw({0, 0, 0, 0, 0, 0, 1, 2, 2, 0, 0, 3}));
}

TEST(PersistentReservation, Keys) {
  const auto keys = parse_reservation_keys(
      raw({0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8}));
  ASSERT_TRUE(keys);
  EXPECT_EQ(keys->generation, 7U);
  EXPECT_TRUE(keys->complete);
  EXPECT_THAT(keys->keys, ElementsAre(1U, 0x0102030405060708U));
  const auto cut = parse_reservation_keys(
      raw({0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2}));
  ASSERT_TRUE(cut);
  EXPECT_FALSE(cut->complete);
  EXPECT_THAT(cut->keys, ElementsAre(1U));
  EXPECT_FALSE(parse_reservation_keys(raw({0, 0, 0, 7, 0, 0, 0})));
}

TEST(PersistentReservation, NoneAndOne) {
  const auto none = parse_reservation(raw({0, 0, 0, 3, 0, 0, 0, 0}));
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->reservation);
  const RawBytes held =
      raw({0, 0, 0, 3, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0xab, 0xcd, 0, 0, 0, 0, 0, 0x05, 0, 0});
  const auto one = parse_reservation(held);
  ASSERT_TRUE(one && one->reservation);
  EXPECT_EQ(one->reservation->key, 0xabcdU);
  EXPECT_EQ(one->reservation->type, ReservationType::write_exclusive_registrants_only);
  for (std::size_t length = 0; length < held.size(); ++length) {
    EXPECT_FALSE(parse_reservation(std::span{held}.first(length))) << length;
  }
}

TEST(PersistentReservation, ListOfOut) {
  RawBytes list(kReserveOutListBytes, std::byte{0xee});
  encode_reserve_out_list({.key = 1,
                           .service_action_key = 0x0102030405060708,
                           .all_target_ports = true,
                           .persist_through_power_loss = true},
                          list);
  EXPECT_EQ(list, raw({0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 5, 0, 0, 0}));
}

RawBytes mode6(int device_specific, std::initializer_list<int> pages) {
  RawBytes bytes = raw({static_cast<int>(pages.size()) + 3, 0, device_specific, 0});
  const RawBytes rest = raw(pages);
  bytes.insert(bytes.end(), rest.begin(), rest.end());
  return bytes;
}

TEST(ModePages, CachingAndControl) {
  const RawBytes bytes = mode6(0x90, {0x08, 4, 0x05, 0, 0, 0,                // WCE, RCD
                                      0x8a, 6, 0x24, 0, 0x08, 0x40, 0, 0});  // TST 1, D_SENSE ...
  const auto mode = parse_mode_sense6(bytes);
  ASSERT_TRUE(mode && mode->caching && mode->control);
  EXPECT_TRUE(mode->write_protected);
  EXPECT_TRUE(mode->force_unit_access);
  EXPECT_TRUE(mode->caching->write_cache);
  EXPECT_FALSE(mode->caching->read_cache);
  EXPECT_EQ(mode->control->task_set_type, 1);
  EXPECT_TRUE(mode->control->software_write_protect);
  EXPECT_TRUE(mode->control->task_aborted_status);
  EXPECT_TRUE(mode->control->descriptor_sense);
}

TEST(ModePages, BothHeadersWithAndWithoutBlockDescriptors) {
  const auto six =
      parse_mode_sense6(raw({3 + 8 + 3, 0, 0x80, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x08, 1, 0x04}));
  ASSERT_TRUE(six && six->caching);
  EXPECT_TRUE(six->caching->write_cache);
  const auto ten = parse_mode_sense10(
      raw({0, 6 + 8 + 3, 0, 0x80, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x08, 1, 0x04}));
  ASSERT_TRUE(ten && ten->caching);
  EXPECT_TRUE(ten->write_protected);
  EXPECT_TRUE(ten->caching->write_cache);
}

TEST(ModePages, SubpagesAndOthersArePassedOver) {
  const auto mode =
      parse_mode_sense6(mode6(0, {0x48, 0x01, 0, 2, 0xff, 0xff,  // not the caching page
                                  0x01, 2, 0xff, 0xff, 0x08, 1, 0x04}));
  ASSERT_TRUE(mode && mode->caching);
  EXPECT_TRUE(mode->caching->write_cache);
}

TEST(ModePages, WhatIsCutOffIsLeftOut) {
  const RawBytes whole = mode6(0x80, {0x01, 1, 0, 0x08, 1, 0x04});
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const RawBytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    const auto mode = parse_mode_sense6(cut);
    EXPECT_EQ(mode.has_value(), length >= 4) << length;
    EXPECT_FALSE(mode && mode->caching) << length;
    EXPECT_EQ(parse_mode_sense10(cut).has_value(), length >= 8);
  }
  // Lengths that point beyond everything.
  EXPECT_FALSE(parse_mode_sense6(raw({0xff, 0, 0, 0xff, 0x08, 1, 0x04}))->caching);
  EXPECT_FALSE(
      parse_mode_sense10(raw({0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0x08, 1, 0x04}))->caching);
  EXPECT_FALSE(parse_mode_sense6(raw({0xff, 0, 0, 0, 0x08, 0xff, 0x04}))->caching);
}

// A page that has not arrived is none that is not there.
TEST(ModePages, WhetherTheCachingPageMayBeCutOffIsTold) {
  const RawBytes caching = mode6(0, {0x01, 1, 0, 0x08, 1, 0x04, 0x0a, 1, 0});
  const RawBytes none = mode6(0, {0x01, 1, 0, 0x0a, 1, 0, 0x1c, 1, 0});
  for (std::size_t length = 4; length <= caching.size(); ++length) {
    const auto arrived = static_cast<std::ptrdiff_t>(length);
    EXPECT_EQ(
        parse_mode_sense6(RawBytes(caching.begin(), caching.begin() + arrived))->caching_cut_off,
        length < 10)
        << length;
    EXPECT_EQ(parse_mode_sense6(RawBytes(none.begin(), none.begin() + arrived))->caching_cut_off,
              length < none.size())
        << length;
  }
  EXPECT_FALSE(parse_mode_sense6(mode6(0, {}))->caching_cut_off);
  EXPECT_TRUE(parse_mode_sense10(raw({0, 9, 0, 0, 0, 0, 0, 0}))->caching_cut_off);
  EXPECT_FALSE(parse_mode_sense10(raw({0, 6, 0, 0, 0, 0, 0, 0}))->caching_cut_off);
}

}  // namespace
}  // namespace iscsi_blkback
