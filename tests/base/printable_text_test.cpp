#include "base/printable_text.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/hostile_text.h"

namespace iscsi_blkback {
namespace {

using namespace std::string_literals;

constexpr std::size_t kPlenty = 1 << 20;

TEST(PrintableText, LeavesWhatCanBeReadAsItIs) {
  for (const char* text : {"", "LUN 1 at 10.0.0.1:3260: is not ready", "\\x1b \"quoted\" {}",
                           "Gr\u00f6\u00dfe \u20ac 1", "\u65e5\u672c\u8a9e", "\U0001f4be"}) {
    EXPECT_EQ(printable_text(text, kPlenty), text);
  }
}

TEST(PrintableText, WritesEveryByteOfAnythingElseInHexadecimal) {
  EXPECT_EQ(printable_text("\x1b]0;owned\x07", kPlenty), "\\x1b]0;owned\\x07");
  EXPECT_EQ(printable_text("a\r\n\0b\x7f"s, kPlenty), "a\\x0d\\x0a\\x00b\\x7f");
  EXPECT_EQ(printable_text("caf\xe9", kPlenty), "caf\\xe9") << "Latin-1";
  EXPECT_EQ(printable_text("\xc3", kPlenty), "\\xc3") << "cut off";
  EXPECT_EQ(printable_text("\xc3(\xe2\x82", kPlenty), "\\xc3(\\xe2\\x82");
  EXPECT_EQ(printable_text("\xc0\xaf \xe0\x80\xaf \xf0\x80\x80\xaf", kPlenty),
            "\\xc0\\xaf \\xe0\\x80\\xaf \\xf0\\x80\\x80\\xaf")
      << "overlong";
  EXPECT_EQ(printable_text("\xed\xa0\x80", kPlenty), "\\xed\\xa0\\x80") << "a surrogate";
  EXPECT_EQ(printable_text("\xf4\x90\x80\x80", kPlenty), "\\xf4\\x90\\x80\\x80");
  EXPECT_EQ(printable_text("\u009b31m", kPlenty), "\\xc2\\x9b31m") << "CSI of C1";
  EXPECT_EQ(printable_text("\u202egnp", kPlenty), "\\xe2\\x80\\xaegnp");
  EXPECT_EQ(printable_text("\ufdd0\uffff\U0001fffe", kPlenty),
            "\\xef\\xb7\\x90\\xef\\xbf\\xbf\\xf0\\x9f\\xbf\\xbe")
      << "noncharacters";
}

// The first and the last character of each range, and their neighbours.
TEST(PrintableText, KnowsWhatIsNotSeen) {
  const auto utf8 = [](char32_t code) {
    std::string text;
    if (code < 0x800) {
      text += static_cast<char>(0xc0 | code >> 6);
    } else {
      if (code < 0x10000) {
        text += static_cast<char>(0xe0 | code >> 12);
      } else {
        text += static_cast<char>(0xf0 | code >> 18);
        text += static_cast<char>(0x80 | (code >> 12 & 0x3f));
      }
      text += static_cast<char>(0x80 | (code >> 6 & 0x3f));
    }
    text += static_cast<char>(0x80 | (code & 0x3f));
    return text;
  };
  const auto shown = [&](char32_t code) {
    return printable_text(utf8(code), kPlenty) == utf8(code);
  };
  for (const auto& [first, last] : std::vector<std::pair<char32_t, char32_t>>{
           {0x80, 0x9f},       {0xad, 0xad},       {0x34f, 0x34f},     {0x61c, 0x61c},
           {0x115f, 0x1160},   {0x17b4, 0x17b5},   {0x180b, 0x180f},   {0x200b, 0x200f},
           {0x2028, 0x202e},   {0x2060, 0x206f},   {0x3164, 0x3164},   {0xfdd0, 0xfdef},
           {0xfe00, 0xfe0f},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0},   {0xfff0, 0xfffb},
           {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff}, {0xf0000, 0x10ffff}}) {
    SCOPED_TRACE(static_cast<unsigned>(first));
    EXPECT_FALSE(shown(first));
    EXPECT_FALSE(shown(last));
    EXPECT_TRUE(first == 0x80 || first >= 0xe0000 || shown(first - 1));
    EXPECT_TRUE(last == 0x10ffff || shown(last + 1));
  }
  EXPECT_FALSE(shown(0xe000));
  EXPECT_FALSE(shown(0xf8ff));
  EXPECT_TRUE(shown(0xd7ff));
  EXPECT_TRUE(shown(0xf900));
}

TEST(PrintableText, IsNeverLongerThanItsBound) {
  EXPECT_EQ(printable_text("12345678", 8), "12345678");
  EXPECT_EQ(printable_text("123456789", 8), "12345...");
  EXPECT_EQ(printable_text("123456789", 3), "...");
  EXPECT_EQ(printable_text("1234\x1b", 8), "1234\\x1b");
  EXPECT_EQ(printable_text("12345\x1b", 8), "12345...") << "no half of an escape";
  EXPECT_EQ(printable_text("1234\u20ac\u20ac", 8), "1234...") << "no half of a character";
  EXPECT_EQ(printable_text("12\x1b\x1b", 8), "12...") << "nor of one before it";
  for (std::size_t bound = 3; bound < 64; ++bound) {
    for (const HostileText& hostile : hostile_texts()) {
      EXPECT_LE(printable_text(hostile.text, bound).size(), bound);
    }
  }
}

TEST(PrintableText, ChangesNothingInItsOwnResult) {
  for (const std::size_t bound : {std::size_t{3}, std::size_t{10}, std::size_t{900}, kPlenty}) {
    for (const HostileText& hostile : hostile_texts()) {
      const std::string once = printable_text(hostile.text, bound);
      EXPECT_TRUE(is_harmless(once)) << hostile.name;
      EXPECT_EQ(printable_text(once, bound), once) << hostile.name;
    }
  }
}

TEST(PrintableIdentity, IsPrintableAsciiAndOtherForEveryOtherInput) {
  std::set<std::string> seen;
  std::size_t inputs = 0;
  const auto add = [&](const std::string& bytes) {
    const std::string identity = printable_identity(bytes);
    for (const char c : identity) {
      EXPECT_TRUE(c >= ' ' && c <= '~');
    }
    EXPECT_EQ(printable_text(identity, kPlenty), identity) << "the doors leave it alone";
    seen.insert(identity);
    ++inputs;
  };
  for (int one = 0; one < 256; ++one) {
    add({static_cast<char>(one)});
    for (int two = 0; two < 256; ++two) {
      add({static_cast<char>(one), static_cast<char>(two)});
    }
  }
  for (const char* lookalike : {"\\x1b", "\\\\x1b", "\\x5cx1b", "\\x5c\\x1b", "\\x1", "x1b"}) {
    add(lookalike);
  }
  EXPECT_EQ(seen.size(), inputs);
  EXPECT_EQ(printable_identity("SIM DISK 1"), "SIM DISK 1");
  EXPECT_EQ(printable_identity("A\x1b\\"), "A\\x1b\\x5c");
  EXPECT_EQ(printable_identity("\u20ac"), "\\xe2\\x82\\xac") << "what looks alike is told apart";
}

TEST(PrintableIdentity, CanBeTypedAsItIsShown) {
  for (const HostileText& hostile : hostile_texts()) {
    const std::string shown = printable_identity(hostile.text);
    EXPECT_EQ(printable_identity_as_written(shown), shown) << hostile.name;
  }
  EXPECT_EQ(printable_identity_as_written("A\x1b"), "A\\x1b") << "the byte itself";
  EXPECT_EQ(printable_identity_as_written("A\\x1B"), "A\\x1b") << "digits in either case";
  EXPECT_EQ(printable_identity_as_written("A\\x41"), "AA");
  EXPECT_EQ(printable_identity_as_written("A\\x5cx1b"), "A\\x5cx1b") << "a backslash, x, 1 and b";
  EXPECT_EQ(printable_identity_as_written("A\\"), "A\\x5c");
  EXPECT_EQ(printable_identity_as_written("\\xg1\\x1"), "\\x5cxg1\\x5cx1");
}

TEST(PrintableLines, KeepEachLineInOne) {
  PrintableLines lines;
  lines.add("size=1.0G");
  lines.add("vendor a\nstatus=active\r");
  PrintableLines more;
  more.add(std::string(100000, 'x'));
  lines.add(more);
  EXPECT_TRUE(lines.text().starts_with("size=1.0G\nvendor a\\x0astatus=active\\x0d\nxxx"));
  EXPECT_LE(lines.text().size(), 50 + PrintableLines::kMaxLineBytes);
  EXPECT_TRUE(are_harmless_lines(lines.text()));
}

}  // namespace
}  // namespace iscsi_blkback
