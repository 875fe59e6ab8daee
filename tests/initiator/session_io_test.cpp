#include "tests/initiator/session_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(SessionTest, LogsInAndOut) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(initiator.observer.ups, 1);
  EXPECT_EQ(target->sessions(), 1U);
  EXPECT_EQ(initiator.session.login_epoch(), 1U);
  initiator.stop();
  EXPECT_EQ(initiator.observer.downs, 1);
  EXPECT_EQ(target->counters.logouts, 1U);
  reactor.run_for(seconds(1));
  EXPECT_EQ(target->sessions(), 0U);
}

TEST_F(SessionTest, WritesAndReadsBack) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  for (const std::size_t bytes : {512U, 4096U, 65536U, 66048U, 262144U, 1048576U}) {
    TestCommand write;
    write.submit_write(initiator.session, 7, test_pattern(bytes, static_cast<unsigned>(bytes)));
    ASSERT_TRUE(runs_until(reactor, [&] { return write.done; }));
    EXPECT_TRUE(write.task.succeeded()) << bytes;
    TestCommand read;
    read.submit_read(initiator.session, 7, static_cast<std::uint32_t>(bytes / 512));
    ASSERT_TRUE(runs_until(reactor, [&] { return read.done; }));
    EXPECT_TRUE(read.task.succeeded()) << bytes;
    EXPECT_EQ(read.data, write.data) << bytes;
  }
}

}  // namespace
}  // namespace iscsi_blkback
