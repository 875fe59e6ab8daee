// The initiator against a real target on loopback, on the real reactor.
#include <gtest/gtest.h>

#include <csignal>
#include <set>
#include <string>
#include <vector>

#include "tests/initiator/targets/target_fixture.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

TEST_F(TgtTest, IdentifiesTheLogicalUnit) {
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  const auto identity = identify();
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->vendor, "IET");
  EXPECT_EQ(identity->serial, "SN1");
  EXPECT_FALSE(identity->wwid.empty());
  EXPECT_EQ(identity->block_count, kDiskBytes / 512);
  EXPECT_EQ(identity->logical_block_bytes, 512U);
  EXPECT_FALSE(identity->write_protected);
  EXPECT_TRUE(session->negotiated().target_portal_group_tag_known);
}

// tgtd reads a scsi_id as hexadecimal digits, and everything else as 0: what it makes an NAA of is
// equal for many LUNs, of which each has the whole as its T10 vendor id.
TEST_F(TgtTest, LunsWhoseNamesAreNoNumbersAreTold) {
  const std::vector<std::string> kIds = {"mysql-g", "mysql-h", "beef-g", "beef-h",
                                         "IET     00010001"};
  for (std::size_t i = 0; i < kIds.size(); ++i) {
    const auto number = static_cast<std::uint16_t>(2 + i);
    ASSERT_TRUE(tgt.add_lun(number, 1 << 20));
    ASSERT_TRUE(
        tgt.administer({"--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun",
                        std::to_string(number), "--params", "scsi_id=" + kIds[i] + ",scsi_sn=SN"}));
  }
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  std::vector<LunNames> luns;
  std::set<std::string> barriers;
  for (std::size_t i = 0; i < kIds.size(); ++i) {
    unit = std::make_unique<LogicalUnit>(*reactor, *session,
                                         encode_lun(static_cast<std::uint16_t>(2 + i)));
    const auto identity = identify();
    ASSERT_TRUE(identity) << identity.error().message;
    EXPECT_TRUE(is_called(identity->names, "1" + kIds[i])) << identity->wwid;
    EXPECT_TRUE(is_called(identity->names, identity->wwid)) << identity->wwid;
    luns.push_back(identity->names);
    barriers.insert(barrier_name_of(identity->names));
  }
  for (const LunNames& one : luns) {
    for (const LunNames& other : luns) {
      EXPECT_EQ(difference(one, other, SerialNumberIs::the_luns).has_value(), &one != &other)
          << wwid_of(one) << ", " << wwid_of(other);
    }
  }
  EXPECT_EQ(barriers.size(), kIds.size());
}

TEST_F(TgtTest, WritesFlushesAndReadsBackAtDepth) {
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  ASSERT_TRUE(identify());
  for (const std::size_t bytes : {4096U, 65536U, 524288U}) {
    std::vector<std::unique_ptr<Io>> writes;
    SimRandom random(bytes);
    for (std::uint64_t i = 0; i < 16; ++i) {
      writes.push_back(std::make_unique<Io>());
      writes.back()->data.resize(bytes);
      for (std::byte& byte : writes.back()->data) {
        byte = static_cast<std::byte>(random.next());
      }
      writes.back()->submit(*unit, BlockOperation::write, i * bytes / kSectorBytes);
    }
    for (const auto& write : writes) {
      ASSERT_TRUE(run_until([&] { return write->done; })) << session->last_error().message;
      EXPECT_TRUE(write->task.succeeded());
    }
    Io flush;
    flush.submit(*unit, BlockOperation::flush, 0);
    ASSERT_TRUE(run_until([&] { return flush.done; }));
    EXPECT_TRUE(flush.task.succeeded());
    for (std::uint64_t i = 0; i < 16; ++i) {
      Io read;
      read.data.assign(bytes, std::byte{0});
      read.submit(*unit, BlockOperation::read, i * bytes / kSectorBytes);
      ASSERT_TRUE(run_until([&] { return read.done; }));
      EXPECT_TRUE(read.task.succeeded());
      EXPECT_EQ(read.data, writes[i]->data);
    }
  }
  EXPECT_EQ(session->statistics().connection_losses, 0U);
}

TEST_F(TgtTest, ComesBackAfterTheTargetWasKilled) {
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  ASSERT_TRUE(identify());
  Io write;
  write.data.assign(65536, std::byte{0x5a});
  write.submit(*unit, BlockOperation::write, 8);
  ASSERT_TRUE(run_until([&] { return write.done; }));
  ASSERT_TRUE(write.task.succeeded());

  tgt.kill();
  ASSERT_TRUE(run_until([this] { return session->state() == SessionState::transport_wait; }));
  Io refused;
  refused.data.resize(4096);
  refused.submit(*unit, BlockOperation::read, 8);
  EXPECT_FALSE(refused.done);
  ASSERT_TRUE(run_until([&] { return refused.done; }));
  EXPECT_EQ(refused.task.outcome, TaskOutcome::not_sent);

  ASSERT_TRUE(tgt.start({.disk_bytes = kDiskBytes}));
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  ASSERT_TRUE(identify());
  Io read;
  read.data.resize(65536);
  read.submit(*unit, BlockOperation::read, 8);
  ASSERT_TRUE(run_until([&] { return read.done; }));
  EXPECT_TRUE(read.task.succeeded());
  EXPECT_EQ(read.data, write.data);
  EXPECT_EQ(session->login_epoch(), 2U);
}

TEST_F(TgtTest, DropsATargetThatHangs) {
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  ASSERT_TRUE(identify());
  tgt.signal(SIGSTOP);
  Io read;
  read.data.resize(4096);
  read.submit(*unit, BlockOperation::read, 0);
  ASSERT_TRUE(run_until([&] { return read.done; }));
  EXPECT_EQ(read.task.outcome, TaskOutcome::connection_lost);
  tgt.signal(SIGCONT);
  ASSERT_TRUE(logged_in()) << session->last_error().message;
}

TEST_F(TgtTest, LunThatDoesNotExistIsSaidSo) {
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  unit = std::make_unique<LogicalUnit>(*reactor, *session, encode_lun(9));
  const auto identity = identify();
  ASSERT_FALSE(identity);
  EXPECT_EQ(identity.error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace iscsi_blkback
