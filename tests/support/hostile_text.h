// What a hostile target or guest says: texts that are meant for the terminal, the eye or the parser
// of whoever is given them; and what each way out of a program must not let through.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace iscsi_blkback {

struct HostileText {
  const char* name;
  std::string text;
};
inline void PrintTo(const HostileText& hostile, std::ostream* out) {
  *out << hostile.name;
}

// At most most_bytes of each, where what carries them takes no more.
inline std::vector<HostileText> hostile_texts(std::size_t most_bytes = std::string::npos) {
  using namespace std::string_literals;
  std::vector<HostileText> texts = {
      {"TitleOfTheTerminal", "\x1b]0;owned\x07"s},
      {"ClearedScreen", "\x1b[2J\x1b[H"s},
      {"OverwrittenLine", "bad\rall is well"s},
      {"ForgedLine", "bad\n<0>error: all is lost"s},
      {"Erased", "bad\b\b\bfine"s},
      {"Nul", "before\0behind"s},
      {"Delete", "a\x7f"s},
      {"RawC1",
       "\x9b"
       "31m"s},
      {"C1AsUtf8", "\u009b31m"s},
      {"NoUtf8", "\xff\xfe\xc0\xaf"s},
      {"CutUtf8", "caf\xc3"s},
      {"OverlongUtf8", "\xe0\x80\xaf"s},
      {"Surrogate", "\xed\xa0\x80"s},
      {"BeyondUnicode", "\xf4\x90\x80\x80"s},
      {"TurnedRound", "txt.\u202egnp"s},
      {"Isolate", "a\u2066b\u2069"s},
      {"ZeroWidth", "a\u200bb\ufeff"s},
      {"LineSeparator", "a\u2028b\u2029"s},
      {"Tags", "a\U000e0041"s},
      {"QuoteAndBackslash", "\"},{\"ok\":true}\\"s},
      {"FormatOfOurs", "{} {0} %s%n"s},
      {"Huge", std::string(65536, '\x1b')},
      {"HugeUtf8",
       [] {
         std::string text;
         while (text.size() < 65536) {
           text += "\u20ac";
         }
         return text;
       }()},
  };
  for (HostileText& text : texts) {
    text.text.resize(std::min(text.text.size(), most_bytes));
  }
  return texts;
}

// Decodes by itself, apart from the code that it tests.
inline testing::AssertionResult is_harmless(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = [&](std::size_t i) {
      return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
    };
    unsigned long code = byte(at);
    std::size_t length = 1;
    if (code >= 0x80) {
      length = code >= 0xf0 ? 4 : code >= 0xe0 ? 3 : 2;
      code &= 0xffU >> (length + 1);
      for (std::size_t i = 1; i < length; ++i) {
        if ((byte(at + i) & 0xc0) != 0x80) {
          return testing::AssertionFailure() << "no UTF-8 at byte " << at;
        }
        code = code << 6 | (byte(at + i) & 0x3f);
      }
      const unsigned long least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
      if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
        return testing::AssertionFailure() << "no character at byte " << at;
      }
    }
    const bool control = code < 0x20 || (code >= 0x7f && code <= 0x9f);
    const bool unseen = (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
                        (code >= 0x2060 && code <= 0x206f) || code == 0x061c || code == 0x00ad ||
                        code == 0xfeff || (code >= 0xe0000 && code <= 0xe0fff);
    if (control || unseen) {
      return testing::AssertionFailure() << "character " << code << " at byte " << at;
    }
    at += length;
  }
  return testing::AssertionSuccess();
}

// Of lines, each of which ends in a newline.
inline testing::AssertionResult are_harmless_lines(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) {
      return testing::AssertionFailure() << "the last line has no end";
    }
    if (auto harmless = is_harmless(text.substr(0, end)); !harmless) {
      return harmless;
    }
    text.remove_prefix(end + 1);
  }
  return testing::AssertionSuccess();
}

}  // namespace iscsi_blkback
