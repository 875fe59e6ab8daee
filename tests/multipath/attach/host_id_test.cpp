#include "multipath/attach/host_id.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

class HostIdTest : public testing::Test {
 protected:
  void put(const std::string& path, const std::string& text) {
    const std::filesystem::path file = folder_.path() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  [[nodiscard]] std::string id() const { return read_host_id(folder_.path()); }

  static constexpr const char* kMachine = "/etc/machine-id";
  static constexpr const char* kDbus = "/var/lib/dbus/machine-id";
  static constexpr const char* kBoard = "/sys/class/dmi/id/product_uuid";
  TemporaryFolder folder_;
};

TEST_F(HostIdTest, IsMadeOfTheInstallationAndTheBoard) {
  EXPECT_EQ(id(), "");
  put(kBoard, "4C4C4544-0051-4A10-8052-B4C04F4A3232\n");
  EXPECT_EQ(id(), "4C4C4544-0051-4A10-8052-B4C04F4A3232");
  put(kMachine, "8c7e2a3f4b5d4e6f8a9b0c1d2e3f4a5b\n");
  EXPECT_EQ(id(), "8c7e2a3f4b5d4e6f8a9b0c1d2e3f4a5b/4C4C4544-0051-4A10-8052-B4C04F4A3232");
}

TEST_F(HostIdTest, ACopiedInstallationIsToldApartByItsBoard) {
  put(kMachine, "8c7e2a3f4b5d4e6f8a9b0c1d2e3f4a5b\n");
  put(kBoard, "4C4C4544-0051-4A10-8052-B4C04F4A3232\n");
  const std::string one = id();
  put(kBoard, "4C4C4544-0051-4A10-8052-B4C04F4A3233\n");
  EXPECT_NE(id(), one);
}

TEST_F(HostIdTest, WithoutSystemdItIsTheIdOfDbus) {
  put(kDbus, "1234567890abcdef1234567890abcdef\n");
  EXPECT_EQ(id(), "1234567890abcdef1234567890abcdef");
  put(kMachine, "");
  EXPECT_EQ(id(), "1234567890abcdef1234567890abcdef");
}

TEST_F(HostIdTest, WhatIsNoIdCountsForNothing) {
  for (const char* none : {"", "\n", "uninitialized\n", "00000000000000000000000000000000\n",
                           "00000000-0000-0000-0000-000000000000", "Not Settable"}) {
    put(kMachine, none);
    put(kBoard, none);
    EXPECT_EQ(id(), "") << none;
  }
  put(kMachine, std::string(100000, 'a'));
  EXPECT_EQ(id(), "");
}

}  // namespace
}  // namespace iscsi_blkback
