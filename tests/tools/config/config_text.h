// What the tests of the configuration file have in common: a text that is accepted, or the sentence
// that refuses it; tables of refusals for ConfigRefuses.InOneSentence (config_refusal_test.cpp).
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "tools/config/config.h"

namespace iscsi_blkback {

inline Configuration accepted(const std::string& text) {
  auto configuration = parse_configuration(text, "c.toml");
  EXPECT_TRUE(configuration.has_value()) << configuration.error().message;
  return configuration.value_or(Configuration{});
}

inline std::string refusal(const std::string& text) {
  const auto configuration = parse_configuration(text, "c.toml");
  return configuration ? "accepted" : configuration.error().message;
}

struct ConfigRefusal {
  const char* name;  // what is refused
  std::string text;
  testing::Matcher<std::string> sentence;
};
inline void PrintTo(const ConfigRefusal& refusal, std::ostream* out) {
  *out << refusal.name;
}
inline std::string name_of_refusal(const testing::TestParamInfo<ConfigRefusal>& test) {
  return test.param.name;
}
class ConfigRefuses : public testing::TestWithParam<ConfigRefusal> {};

inline const std::string kLun =
    "[luns.root]\n"
    "target = 'iqn.2009-02.com.example:t'\n"
    "lun = 1\n";

inline const std::string kChap =
    "[defaults]\n"
    "node.session.auth.authmethod = 'CHAP'\n"
    "node.session.auth.username = 'host1'\n"
    "node.session.auth.password = 'initiator-secret'\n";

}  // namespace iscsi_blkback
