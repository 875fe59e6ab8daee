// Errors, socket addresses, file descriptor owner and buffer pool.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "base/block_device.h"
#include "base/buffer_pool.h"
#include "base/byte_stream.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {
namespace {

TEST(SystemError, SaysWhatAndWhyAndChoosesTheCode) {
  const Error refused = system_error("connect to 192.0.2.1:3260", ECONNREFUSED);
  EXPECT_EQ(refused.message, "connect to 192.0.2.1:3260: Connection refused");
  EXPECT_EQ(refused.code, ErrorCode::unavailable);
  EXPECT_EQ(system_error("x", ENOENT).code, ErrorCode::not_found);
  EXPECT_EQ(system_error("x", EACCES).code, ErrorCode::permission_denied);
  EXPECT_EQ(system_error("x", ETIMEDOUT).code, ErrorCode::timed_out);
  EXPECT_EQ(system_error("x", EMFILE).code, ErrorCode::exhausted);
  EXPECT_EQ(system_error("x", EIO).code, ErrorCode::io);
}

TEST(Names, OfEnumerators) {
  EXPECT_STREQ(to_string(ErrorCode::timed_out), "timed out");
  EXPECT_STREQ(to_string(IoStatus::no_path), "no path");
  EXPECT_STREQ(to_string(BlockOperation::flush), "flush");
}

std::string round_trip(const std::string& host, std::uint16_t port) {
  const Result<SocketAddress> address = SocketAddress::parse(host, port);
  return address ? address->to_string() : "refused: " + address.error().message;
}

TEST(SocketAddress, ParsesAndPrints) {
  EXPECT_EQ(round_trip("192.0.2.1", 3260), "192.0.2.1:3260");
  EXPECT_EQ(round_trip("2001:DB8:0::1", 860), "[2001:db8::1]:860");
  EXPECT_EQ(round_trip("fe80::1%1", 3260), "[fe80::1%1]:3260");
  EXPECT_EQ(round_trip("fe80::1%lo", 3260), "[fe80::1%1]:3260");
}

TEST(SocketAddress, RefusesWhatIsNotNumeric) {
  for (const char* host : {"", "localhost", "192.0.2", "192.0.2.256", "[::1]", "::1%", "1.2.3.4%1",
                           "192.0.2.1 ", "::1%nosuchif0"}) {
    EXPECT_FALSE(SocketAddress::parse(host, 3260)) << host;
  }
}

TEST(SocketAddress, ComparesByValue) {
  const auto parse = [](const char* host, std::uint16_t port) {
    return SocketAddress::parse(host, port).value();
  };
  EXPECT_EQ(parse("192.0.2.1", 1), parse("192.0.2.1", 1));
  EXPECT_NE(parse("192.0.2.1", 1), parse("192.0.2.1", 2));
  EXPECT_NE(parse("192.0.2.1", 1), parse("192.0.2.2", 1));
  EXPECT_EQ(parse("2001:db8::1", 1), parse("2001:db8:0::1", 1));
  EXPECT_NE(parse("fe80::1%1", 1), parse("fe80::1", 1));
  EXPECT_NE(parse("::ffff:192.0.2.1", 1), parse("192.0.2.1", 1));
}

TEST(UniqueFd, ClosesOnce) {
  int number = -1;
  {
    UniqueFd first(open("/dev/null", O_RDONLY | O_CLOEXEC));
    number = first.get();
    ASSERT_TRUE(first.valid());
    UniqueFd second = std::move(first);
    EXPECT_FALSE(first.valid());  // NOLINT(bugprone-use-after-move): what is tested
    EXPECT_EQ(second.get(), number);
    EXPECT_NE(fcntl(number, F_GETFD), -1);
  }
  EXPECT_EQ(fcntl(number, F_GETFD), -1);
}

TEST(BufferPool, HandsOutEachBufferOnceAlignedAndLastInFirstOut) {
  constexpr std::size_t kBufferBytes = 3 * BufferPool::kPageBytes;
  auto pool = BufferPool::create(kBufferBytes, 4).value();
  EXPECT_EQ(pool->capacity(), 4U);
  std::set<std::byte*> taken;
  for (std::size_t left = 4; left > 0; --left) {
    EXPECT_EQ(pool->available(), left);
    std::byte* buffer = pool->acquire();
    ASSERT_NE(buffer, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer) % BufferPool::kPageBytes, 0U);
    for (std::byte* other : taken) {
      EXPECT_TRUE(buffer >= other + kBufferBytes || other >= buffer + kBufferBytes);
    }
    std::fill(buffer, buffer + kBufferBytes, std::byte{1});
    taken.insert(buffer);
  }
  EXPECT_EQ(pool->acquire(), nullptr);
  std::byte* last = *taken.rbegin();
  pool->release(last);
  EXPECT_EQ(pool->acquire(), last);
  for (std::byte* buffer : taken) {
    pool->release(buffer);
  }
}

TEST(BufferPool, RefusesSizesItCannotAlign) {
  EXPECT_FALSE(BufferPool::create(0, 1));
  EXPECT_FALSE(BufferPool::create(1000, 1));
  EXPECT_FALSE(BufferPool::create(BufferPool::kPageBytes, 0));
  EXPECT_FALSE(BufferPool::create(BufferPool::kPageBytes, ~std::size_t{0} / 2));
}

TEST(BufferPool, RefusesForeignAndMisalignedBuffers) {
  auto pool = BufferPool::create(BufferPool::kPageBytes, 2).value();
  std::byte* buffer = pool->acquire();
  std::byte foreign{};
  EXPECT_DEATH(pool->release(&foreign), "assertion failed");
  EXPECT_DEATH(pool->release(buffer + 1), "assertion failed");
  EXPECT_DEATH(pool.reset(), "assertion failed");
  pool->release(buffer);
}

}  // namespace
}  // namespace iscsi_blkback
