#include "base/base64.h"

#include <gtest/gtest.h>

#include <string_view>

namespace iscsi_blkback {
namespace {

std::string encoded(std::string_view text) {
  return to_base64(std::as_bytes(std::span(text)));
}

// RFC 4648, 10.
TEST(Base64, IsThatOfTheStandardsExamples) {
  EXPECT_EQ(encoded(""), "");
  EXPECT_EQ(encoded("f"), "Zg==");
  EXPECT_EQ(encoded("fo"), "Zm8=");
  EXPECT_EQ(encoded("foo"), "Zm9v");
  EXPECT_EQ(encoded("foob"), "Zm9vYg==");
  EXPECT_EQ(encoded("fooba"), "Zm9vYmE=");
  EXPECT_EQ(encoded("foobar"), "Zm9vYmFy");
}

TEST(Base64, HasAllLetters) {
  EXPECT_EQ(encoded(std::string_view("\x00\x10\x83\x10\x51\x87\x20\x92\x8b\xfb\xff\xbf", 12)),
            "ABCDEFGHIJKL+/+/");
  EXPECT_EQ(encoded("\xff\xff\xff"), "////");
}

TEST(Base64, IsAsLongAsWasSaid) {
  for (std::size_t bytes = 0; bytes < 10; ++bytes) {
    EXPECT_EQ(encoded(std::string(bytes, 'x')).size(), base64_length(bytes)) << bytes;
  }
}

}  // namespace
}  // namespace iscsi_blkback
