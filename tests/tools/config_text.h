// What the tests of the configuration file have in common: a text that is accepted, or the sentence
// that refuses it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tools/config.h"

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
