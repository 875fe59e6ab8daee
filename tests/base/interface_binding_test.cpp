#include "base/interface_binding.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace iscsi_blkback {
namespace {

TEST(InterfaceBinding, TextTellsBindingsApart) {
  EXPECT_EQ(InterfaceBinding{}.to_string(), "");
  EXPECT_EQ(InterfaceBinding{.name = "eth1"}.to_string(), "eth1");
  const InterfaceBinding all{
      .name = "eth1", .hardware_address = "52:54:00:12:34:56", .address = "192.0.2.10"};
  EXPECT_EQ(all.to_string(), "eth1/52:54:00:12:34:56/192.0.2.10");
  EXPECT_FALSE(all.empty());
}

TEST(InterfaceBinding, HardwareAddressesHaveOneSpelling) {
  EXPECT_EQ(parse_hardware_address("52:54:00:AB:cd:EF"), "52:54:00:ab:cd:ef");
  EXPECT_EQ(parse_hardware_address("52-54-00-ab-cd-ef"), "52:54:00:ab:cd:ef");
}

TEST(InterfaceBinding, RefusesWhatIsNoHardwareAddress) {
  for (const char* text : {"", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:567",
                           "5254.0012.3456789", "52:54:00:12:34:5g", "52 54 00 12 34 56"}) {
    EXPECT_FALSE(parse_hardware_address(text)) << text;
  }
}

TEST(InterfaceBinding, RefusesWhatIsNoInterfaceName) {
  EXPECT_TRUE(is_interface_name("enp3s0f1.100"));
  for (const char* text : {"", "abcdefghijklmnop", "eth 1", "eth/1", "eth1:0", "eth1\n"}) {
    EXPECT_FALSE(is_interface_name(text)) << text;
  }
}

// The interfaces of this machine, as the kernel shows them elsewhere.
TEST(InterfaceBinding, FindsTheInterfaceOfAHardwareAddress) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/net")) {
    std::ifstream file(entry.path() / "address");
    std::string text;
    std::getline(file, text);
    const auto address = parse_hardware_address(text);
    if (!address || *address == "00:00:00:00:00:00") {
      continue;
    }
    const auto name = find_interface(*address);
    if (name) {
      ++found;
      EXPECT_EQ(*name, entry.path().filename());
    } else {
      EXPECT_EQ(name.error().code, ErrorCode::conflict);
    }
  }
  if (found == 0) {
    GTEST_SKIP() << "no interface with a hardware address of its own";
  }
}

TEST(InterfaceBinding, MeansAnInterfaceByWhicheverPart) {
  EXPECT_EQ(interface_of({.name = "eth1", .address = "127.0.0.1"}), "eth1");
  EXPECT_EQ(interface_of({.address = "127.0.0.1"}), "lo");
  EXPECT_FALSE(interface_of({.address = "192.0.2.77"}));
  EXPECT_FALSE(interface_of({.hardware_address = "02:de:ad:be:ef:99"}));
}

TEST(InterfaceBinding, RefusesHardwareAddressOfNobody) {
  const auto name = find_interface("02:de:ad:be:ef:99");
  ASSERT_FALSE(name);
  EXPECT_EQ(name.error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace iscsi_blkback
