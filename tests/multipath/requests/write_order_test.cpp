// Which requests wait so that no lost write strikes after a newer one.
#include "multipath/requests/write_order.h"

#include <gtest/gtest.h>

#include <deque>

#include "base/log.h"
#include "tests/multipath/fencing/fenced_disk.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kSectors = 8;  // of each request

// Two paths, which keep what is sent there until the reactor runs.
class WriteOrderTest : public testing::Test {
 protected:
  WriteOrderTest() {
    set_log_level(LogLevel::error);
    disk_.add();
    disk_.add();
  }
  ~WriteOrderTest() override { reactor_.run_for(Duration::zero()); }

  Request& make(BlockOperation operation, std::uint64_t sector) {
    BlockRequest& block = blocks_.emplace_back();
    block.operation = operation;
    block.sector = sector;
    block.sector_count = operation == BlockOperation::flush ? 0 : kSectors;
    Request& request = requests_.emplace_back(
        reactor_, [](void* /*request*/) noexcept {}, nullptr, true);
    request.block = &block;
    request.serial = requests_.size();
    return request;
  }
  Request& write(std::uint64_t sector) { return make(BlockOperation::write, sector); }
  Request& at_path(BlockOperation operation, std::uint64_t sector) {
    Request& request = make(operation, sector);
    request.place = Request::Place::at_path;
    request.discard_form = DiscardForm::unmap;
    request.on_done = [](PathCommand& /*command*/, ErrorClass /*error*/) noexcept {};
    disk_.paths.set[1].submit(request, *request.block);
    return request;
  }
  void lose(FencedDisk& disk, const Request& request) {
    disk.fence.lost(disk.paths.set[0], request.first_sector(), request.end_sector(),
                    request.serial);
  }
  void lose(const Request& request) { lose(disk_, request); }

  SimReactor reactor_{1};
  SharedFencing fencing_{reactor_};
  FencedDisk disk_{reactor_, fencing_, {.lun_fence = {}, .most_writes = 4}};
  WriteOrder order_{disk_.paths.set, disk_.fence, disk_.turn};

 private:
  std::deque<BlockRequest> blocks_;
  std::deque<Request> requests_;
};

TEST_F(WriteOrderTest, NothingNewerIsWrittenWhereALostWriteMayStrike) {
  Request& lost = write(100);
  Request& newer = write(107);
  EXPECT_FALSE(order_.must_wait(newer)) << "nothing is lost";
  lose(lost);
  EXPECT_TRUE(order_.must_wait(newer));
  EXPECT_TRUE(order_.must_wait(make(BlockOperation::discard, 93)));
  EXPECT_FALSE(order_.must_wait(write(108))) << "beside it";
  EXPECT_FALSE(order_.must_wait(make(BlockOperation::read, 100)));
  EXPECT_FALSE(order_.must_wait(make(BlockOperation::flush, 0)));
  EXPECT_FALSE(order_.must_wait(lost)) << "it is the same data";
}

TEST_F(WriteOrderTest, ALostWriteIsNotRepeatedBeforeWhatOverlapsItUnderWayHasEnded) {
  struct Row {
    const char* what;
    BlockOperation operation;
    std::uint64_t sector;
    bool waits;
  };
  const Row rows[] = {
      {"a write", BlockOperation::write, 107, true},
      {"a write that begins before it", BlockOperation::write, 93, true},
      {"a discard", BlockOperation::discard, 100, true},
      {"a write before it", BlockOperation::write, 92, false},
      {"a write behind it", BlockOperation::write, 108, false},
      {"a read", BlockOperation::read, 100, false},
      {"a flush", BlockOperation::flush, 0, false},
  };
  Request& lost = write(100);
  for (const Row& row : rows) {
    Request& other = at_path(row.operation, row.sector);
    EXPECT_FALSE(order_.must_wait(lost)) << row.what << ": it is not lost yet";
    lose(lost);
    EXPECT_EQ(order_.must_wait(lost), row.waits) << row.what;
    EXPECT_EQ(other.has_waiter, row.waits) << row.what;
    reactor_.run_for(Duration::zero());
    EXPECT_FALSE(order_.must_wait(lost)) << row.what << ": it has ended";
    disk_.fence.on_fenced(disk_.paths.set[0].session(), login_nexus(disk_.paths.set[0].session()),
                          0);
  }
}

TEST_F(WriteOrderTest, WhereOthersWriteNoAnswerIsGivenBeforeTheLostCopyIsFenced) {
  for (const bool shared : {false, true}) {
    FencedDisk disk(reactor_, fencing_, {.lun_fence = {}, .shared = shared, .most_writes = 4});
    disk.add();
    const WriteOrder order(disk.paths.set, disk.fence, disk.turn);
    Request& lost = write(100);
    lose(disk, lost);
    EXPECT_EQ(order.withholds_answer(lost), shared);
    EXPECT_FALSE(order.withholds_answer(write(100))) << "of another request";
  }
}

}  // namespace
}  // namespace iscsi_blkback
