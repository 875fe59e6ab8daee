// ByteStream::peer_silence() where the way to the peer ends, with the real kernel.
#include <gtest/gtest.h>

#include "tests/base/isolated_network.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;

TEST(PeerSilence, GrowsWhenTheWayToThePeerEnds) {
  isolated([] {
    ASSERT_TRUE(set_up("lo", true));
    Connection connection("127.0.0.1", seconds(60));
    EXPECT_LT(connection.stream->peer_silence(), seconds(1));
    ASSERT_TRUE(ip("address del 127.0.0.1/8 dev lo"));
    EXPECT_TRUE(
        connection.run_until([&] { return connection.stream->peer_silence() >= seconds(3); }));
  });
}

}  // namespace
}  // namespace iscsi_blkback
