// Reject: what a target's word that it has not taken a PDU means.
#include "initiator/session/reject.h"

#include <gtest/gtest.h>

#include <array>

#include "initiator/session/session_tags.h"

namespace iscsi_blkback {
namespace {

using Meaning = Reject::Meaning;

constexpr std::uint32_t kTag = 0x00010003;

Reject reject_of(Opcode opcode, std::uint8_t reason, std::uint32_t tag = kTag) {
  std::array<std::byte, kBhsBytes> header{};
  header[0] = static_cast<std::byte>(opcode);
  bhs_fields::put(header, bhs_fields::kInitiatorTaskTag, tag);
  return {RejectPdu{.reason = reason, .data_bytes = kBhsBytes, .numbers = {}}, header.data()};
}

Reject reject_of_nothing() {
  return {RejectPdu{.reason = 0x04, .data_bytes = 0, .numbers = {}}, nullptr};
}

void expect(const Reject::Verdict& verdict, Meaning meaning,
            std::optional<Tolerated> tolerated = std::nullopt) {
  EXPECT_EQ(verdict.meaning, meaning);
  EXPECT_EQ(verdict.tolerated, tolerated);
}

TEST(RejectTest, OfAPingShowsThatTheTargetLives) {
  const Reject busy = reject_of(Opcode::nop_out, 0x06, kPingTag);
  expect(busy.verdict({.ping_sent = true}), Meaning::ping_answered);
  const Reject unsupported = reject_of(Opcode::nop_out, 0x05, kPingTag);
  expect(unsupported.verdict({.ping_sent = true}), Meaning::ping_answered,
         Tolerated::ping_rejected);
}

TEST(RejectTest, OfAPingThatIsAnsweredSaysNothing) {
  expect(reject_of(Opcode::nop_out, 0x06, kPingTag).verdict({}), Meaning::nothing);
}

TEST(RejectTest, OfTheAnswerToAPingOfTheTargetsSaysNothingOfOurs) {
  expect(reject_of(Opcode::nop_out, 0x05, kReservedTag).verdict({.ping_sent = true}),
         Meaning::nothing, Tolerated::ping_rejected);
}

TEST(RejectTest, WithoutAHeaderIsOfThePingIfNothingElseIsOutstanding) {
  EXPECT_EQ(reject_of_nothing().tag(), kReservedTag);
  expect(reject_of_nothing().verdict({.ping_sent = true}), Meaning::ping_answered,
         Tolerated::ping_rejected);
  expect(reject_of_nothing().verdict({.ping_sent = true, .others_outstanding = true}),
         Meaning::broken_rule);
  expect(reject_of_nothing().verdict({}), Meaning::broken_rule);
}

TEST(RejectTest, OfAFunctionSaysWhatBecomesOfIt) {
  const Reject::Facts sent{.is_function = true};
  const auto verdict = [&](std::uint8_t reason) {
    return reject_of(Opcode::task_management_request, reason).verdict(sent);
  };
  expect(verdict(0x06), Meaning::function_deferred);
  expect(verdict(0x05), Meaning::function_unsupported);
  expect(verdict(0x09), Meaning::function_refused, Tolerated::function_rejected);
}

TEST(RejectTest, OfAFunctionThatIsNotAtTheTargetBreaksARule) {
  expect(reject_of(Opcode::task_management_request, 0x06).verdict({}), Meaning::broken_rule);
}

TEST(RejectTest, OfDamagedDataLeavesTheAnswerToTheCommand) {
  const Reject::Facts known{.is_command = true};
  for (const Opcode opcode : {Opcode::data_out, Opcode::scsi_command}) {
    expect(reject_of(opcode, 0x02).verdict(known), Meaning::data_damaged, Tolerated::data_rejected);
    expect(reject_of(opcode, 0x04).verdict(known), Meaning::broken_rule);
    expect(reject_of(opcode, 0x02).verdict({}), Meaning::broken_rule);
  }
  expect(reject_of(Opcode::text_request, 0x02).verdict(known), Meaning::broken_rule);
}

TEST(RejectTest, WhileALogoutIsWaitedForIsOfWhatever) {
  for (const Opcode opcode : {Opcode::scsi_command, Opcode::nop_out}) {
    expect(reject_of(opcode, 0x0c).verdict({.ping_sent = true, .is_command = true}),
           Meaning::logout);
  }
}

TEST(RejectTest, SaysWhatItIsOfAndWhy) {
  EXPECT_EQ(reject_of(Opcode::data_out, 0x02).to_string(),
            "a Reject of a Data-Out with reason 0x02 (data digest error)");
  EXPECT_EQ(reject_of(Opcode::scsi_command, 0x7f).to_string(),
            "a Reject of a SCSI Command with reason 0x7f (unknown reason)");
  EXPECT_EQ(reject_of_nothing().to_string(), "a Reject that does not say of what");
}

}  // namespace
}  // namespace iscsi_blkback
