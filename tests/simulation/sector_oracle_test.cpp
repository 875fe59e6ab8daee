#include "tests/simulation/sector_oracle.h"

#include <gtest/gtest.h>

#include "base/block_device.h"

namespace iscsi_blkback {
namespace {

class SectorOracleTest : public testing::Test {
 protected:
  // What the oracle says to a read of sector 0 that sees version.
  std::string read_seeing(SectorOracle::Version version) {
    return end_read(oracle_.read_begins(), version);
  }
  std::string end_read(std::uint64_t ticket, SectorOracle::Version version) {
    std::vector<std::byte> data(kSectorBytes);
    SectorOracle::fill(data, 0, version);
    return oracle_.read_ends(0, data, ticket);
  }
  void write(SectorOracle::Version version) {
    oracle_.write_begins(0, 1, version);
    oracle_.write_ends(0, 1, version, true);
  }

  SectorOracle oracle_{4};
};

TEST_F(SectorOracleTest, AnAcknowledgedWriteMustBeRead) {
  EXPECT_EQ(read_seeing(0), "");
  write(1);
  EXPECT_EQ(read_seeing(1), "");
  EXPECT_NE(read_seeing(0), "");
}

TEST_F(SectorOracleTest, AnOverwrittenWriteMustNotComeBack) {
  write(1);
  write(2);
  EXPECT_EQ(read_seeing(2), "");
  EXPECT_NE(read_seeing(1), "");
}

TEST_F(SectorOracleTest, AnOpenWriteMayBeReadOrNot) {
  write(1);
  oracle_.write_begins(0, 1, 2);
  EXPECT_EQ(read_seeing(1), "");
  EXPECT_EQ(read_seeing(2), "");
}

TEST_F(SectorOracleTest, ConcurrentWritesMayEndInEitherOrderButStay) {
  oracle_.write_begins(0, 1, 1);
  oracle_.write_begins(0, 1, 2);
  oracle_.write_ends(0, 1, 2, true);
  oracle_.write_ends(0, 1, 1, true);
  EXPECT_EQ(read_seeing(2), "");
  EXPECT_EQ(read_seeing(2), "");
  EXPECT_NE(read_seeing(1), "") << "it was 2 before";
}

TEST_F(SectorOracleTest, AFailedWriteMayHaveTakenEffectUntilItIsOverwritten) {
  write(1);
  oracle_.write_begins(0, 1, 2);
  oracle_.write_ends(0, 1, 2, false);
  EXPECT_EQ(read_seeing(1), "");
  EXPECT_EQ(read_seeing(2), "") << "late, but nobody was promised otherwise";
  oracle_.write_begins(0, 1, 3);
  oracle_.write_ends(0, 1, 3, true);
  EXPECT_NE(read_seeing(2), "");
}

TEST_F(SectorOracleTest, AReadMayReturnWhatWasThereWhenItBegan) {
  write(1);
  const std::uint64_t ticket = oracle_.read_begins();
  write(2);
  EXPECT_EQ(end_read(ticket, 1), "");
}

TEST_F(SectorOracleTest, AWriteThatWasOverwrittenMustNotReachTheMedium) {
  const auto landing = [this](SectorOracle::Version version) {
    std::vector<std::byte> data(kSectorBytes);
    SectorOracle::fill(data, 0, version);
    return oracle_.lands(0, data);
  };
  oracle_.write_begins(0, 1, 1);
  EXPECT_EQ(landing(1), "");
  EXPECT_NE(landing(2), "") << "nobody has written it";
  oracle_.write_ends(0, 1, 1, true);
  EXPECT_EQ(landing(1), "") << "twice is as good as once";
  oracle_.write_begins(0, 1, 2);
  EXPECT_EQ(landing(1), "") << "the newer one may still fail";
  oracle_.write_ends(0, 1, 2, true);
  EXPECT_NE(landing(1), "");
  EXPECT_EQ(landing(2), "");
}

TEST_F(SectorOracleTest, ATornOrMisplacedSectorIsNoOnesData) {
  write(1);
  std::vector<std::byte> data(kSectorBytes);
  SectorOracle::fill(data, 0, 1);
  data[300] ^= std::byte{1};
  EXPECT_NE(oracle_.read_ends(0, data, oracle_.read_begins()), "");
  SectorOracle::fill(data, 1, 1);
  EXPECT_NE(oracle_.read_ends(0, data, oracle_.read_begins()), "");
}

}  // namespace
}  // namespace iscsi_blkback
