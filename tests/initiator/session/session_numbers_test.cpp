// SessionNumbers: the command window and what is acknowledged.
#include "initiator/session/session_numbers.h"

#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

class SessionNumbersTest : public testing::Test {
 protected:
  static TargetNumbers told(std::uint32_t exp_cmd_sn, std::uint32_t max_cmd_sn) {
    TargetNumbers numbers;
    numbers.stat_sn = 100;
    numbers.exp_cmd_sn = exp_cmd_sn;
    numbers.max_cmd_sn = max_cmd_sn;
    return numbers;
  }
  // How many commands may be sent.
  [[nodiscard]] std::uint32_t window() {
    std::uint32_t sent = 0;
    for (; numbers.window_open() && sent < 100; ++sent) {
      ++numbers.cmd_sn;
    }
    return sent;
  }

  SessionNumbers numbers;
};

TEST_F(SessionNumbersTest, TheWindowEndsWithMaxCmdSn) {
  numbers.cmd_sn = 7;
  numbers.begin(told(7, 9));
  EXPECT_EQ(window(), 3U);
  EXPECT_FALSE(numbers.window_open());
}

TEST_F(SessionNumbersTest, ItMayWrap) {
  numbers.cmd_sn = 0xfffffffe;
  numbers.begin(told(0xfffffffe, 3));
  EXPECT_EQ(window(), 6U);
}

TEST_F(SessionNumbersTest, MaxCmdSnOneBelowExpCmdSnIsAClosedWindow) {
  numbers.cmd_sn = 7;
  numbers.begin(told(7, 6));
  EXPECT_EQ(window(), 0U);
}

TEST_F(SessionNumbersTest, ItGrowsAndNeverShrinks) {
  numbers.cmd_sn = 7;
  numbers.begin(told(7, 9));
  EXPECT_TRUE(numbers.take_window(told(7, 11)));
  EXPECT_FALSE(numbers.take_window(told(7, 11)));
  EXPECT_FALSE(numbers.take_window(told(7, 8)));
  EXPECT_EQ(window(), 5U);
}

TEST_F(SessionNumbersTest, AMaxCmdSnBelowExpCmdSnMinus1IsIgnored) {
  numbers.cmd_sn = 7;
  numbers.begin(told(7, 9));
  EXPECT_FALSE(numbers.take_window(told(30, 20)));
  EXPECT_EQ(window(), 3U);
}

TEST_F(SessionNumbersTest, AfterALoginWithoutAWindowOneCommandFindsOut) {
  numbers.cmd_sn = 7;
  numbers.begin(told(7, 3));
  EXPECT_EQ(window(), 1U);
}

TEST_F(SessionNumbersTest, TheWindowOfTheLastConnectionSaysNothing) {
  numbers.cmd_sn = 7;
  numbers.begin(told(7, 1000));
  numbers.cmd_sn = 7;
  numbers.begin(told(7, 8));
  EXPECT_EQ(window(), 2U);
}

TEST_F(SessionNumbersTest, WhatFollowsTheLoginsAnswerIsExpected) {
  numbers.begin(told(7, 9));
  EXPECT_EQ(numbers.exp_stat_sn(), 101U);
}

}  // namespace
}  // namespace iscsi_blkback
