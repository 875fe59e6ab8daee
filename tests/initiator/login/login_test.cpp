#include "initiator/login/login.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/support/scripted_target.h"

namespace iscsi_blkback {
namespace {

using ::testing::HasSubstr;

std::string text_of(std::initializer_list<std::string> pairs) {
  std::string text;
  for (const std::string& pair : pairs) {
    text += pair + '\0';
  }
  return text;
}

TEST(LoginText, ParsesPairsInOrder) {
  const std::string text = text_of({"A=1", "B=", "", "C=x=y"});
  const auto pairs = parse_login_text(text);
  ASSERT_TRUE(pairs);
  ASSERT_EQ(pairs->size(), 3U);
  EXPECT_EQ((*pairs)[1].value, "");
  EXPECT_EQ((*pairs)[2].value, "x=y");
}

TEST(LoginText, TheLastPairMayLackItsNul) {
  const std::string text = text_of({"A=1"}) + "B=2";
  const auto pairs = parse_login_text(text);
  ASSERT_TRUE(pairs);
  ASSERT_EQ(pairs->size(), 2U);
  EXPECT_EQ(pairs->back().value, "2");
  EXPECT_FALSE(parse_login_text("A"));
}
TEST(LoginText, RefusesPairWithoutEquals) {
  EXPECT_FALSE(parse_login_text(text_of({"abc"})));
}
TEST(LoginText, RefusesPairWithoutKey) {
  EXPECT_FALSE(parse_login_text(text_of({"=abc"})));
}
TEST(LoginText, RefusesKeyThatIsTooLong) {
  EXPECT_TRUE(parse_login_text(text_of({std::string(63, 'k') + "=1"})));
  EXPECT_FALSE(parse_login_text(text_of({std::string(64, 'k') + "=1"})));
}
TEST(LoginText, RefusesValueThatIsFarTooLong) {
  EXPECT_TRUE(parse_login_text(text_of({"k=" + std::string(2050, 'v')})));
  EXPECT_FALSE(parse_login_text(text_of({"k=" + std::string(2051, 'v')})));
}
TEST(LoginText, APairThatIsRepeatedAsItIsCountsOnce) {
  const std::string text = text_of({"A=1", "B=2", "A=1", "A=2", "A=1"});
  EXPECT_EQ(parse_login_text(text)->size(), 3U);
}
TEST(LoginText, RefusesTooManyPairs) {
  std::string text;
  for (int i = 0; i < 129; ++i) {
    text += fmt::format("k{}=1", i) + '\0';
  }
  EXPECT_FALSE(parse_login_text(text));
}

TEST(LoginText, ParsesNumbersWithinTheirRangeOnly) {
  EXPECT_EQ(parse_text_number("512", 512, 1000), 512U);
  EXPECT_EQ(parse_text_number("0x200", 512, 1000), 512U);
  EXPECT_FALSE(parse_text_number("511", 512, 1000));
  EXPECT_FALSE(parse_text_number("1001", 512, 1000));
  EXPECT_FALSE(parse_text_number("", 0, 1000));
  EXPECT_FALSE(parse_text_number("-1", 0, 1000));
  EXPECT_FALSE(parse_text_number("12x", 0, 1000));
  EXPECT_FALSE(parse_text_number("4294967296", 0, 0xffffffff));
}

SessionOptions options() {
  SessionOptions options;
  options.initiator_name = "iqn.2026-01.test:i";
  options.target_name = "iqn.2026-01.test:t";
  options.isid = {0x80, 0, 0, 1, 0, 2};
  return options;
}

// The outcome of negotiating with a target that answers these keys.
Result<NegotiatedParameters> negotiate(
    const SessionOptions& with, std::initializer_list<std::pair<const char*, const char*>> answers,
    LoginText* said = nullptr) {
  Negotiation negotiation(with);
  LoginText text;
  negotiation.offer(text);
  text.clear();
  for (const auto& [key, value] : answers) {
    if (auto taken = negotiation.take({key, value}, text); !taken) {
      return tl::unexpected(taken.error());
    }
  }
  if (said != nullptr) {
    *said = text;
  }
  return negotiation.outcome();
}

TEST(Negotiation, TakesTheResultOfEachRule) {
  const auto outcome = negotiate(options(), {{"InitialR2T", "No"},
                                             {"ImmediateData", "Yes"},
                                             {"MaxBurstLength", "131072"},
                                             {"FirstBurstLength", "65536"},
                                             {"MaxRecvDataSegmentLength", "16384"},
                                             {"DefaultTime2Wait", "5"},
                                             {"DefaultTime2Retain", "0"},
                                             {"MaxOutstandingR2T", "1"},
                                             {"TargetPortalGroupTag", "7"},
                                             {"TargetAlias", "array"}});
  ASSERT_TRUE(outcome);
  EXPECT_FALSE(outcome->initial_r2t);
  EXPECT_TRUE(outcome->immediate_data);
  EXPECT_EQ(outcome->max_burst_length, 131072U);
  EXPECT_EQ(outcome->first_burst_length, 65536U);
  EXPECT_EQ(outcome->max_send_data_segment_length, 16384U);
  EXPECT_EQ(outcome->max_recv_data_segment_length, 262144U);
  EXPECT_EQ(outcome->default_time2wait, 5);
  EXPECT_EQ(outcome->max_outstanding_r2t, 1);
  EXPECT_TRUE(outcome->target_portal_group_tag_known);
  EXPECT_EQ(outcome->target_portal_group_tag, 7);
  EXPECT_EQ(outcome->target_alias, "array");
}

TEST(Negotiation, TheTargetsAliasIsPrintable) {
  const auto outcome = negotiate(options(), {{"TargetAlias", "a\x1b]0;b\xff"}});
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->target_alias, "a\\x1b]0;b\\xff");
}

TEST(Negotiation, SilentTargetMeansTheDefaults) {
  const auto outcome = negotiate(options(), {});
  ASSERT_TRUE(outcome);
  EXPECT_TRUE(outcome->initial_r2t);
  EXPECT_EQ(outcome->max_send_data_segment_length, 8192U);
  EXPECT_EQ(outcome->max_burst_length, 262144U);
  EXPECT_EQ(outcome->first_burst_length, 65536U);
  EXPECT_FALSE(outcome->target_portal_group_tag_known);
}

TEST(Negotiation, NothingBecomesLargerThanOffered) {
  SessionOptions small = options();
  small.max_burst_length = 65536;
  small.first_burst_length = 8192;
  small.immediate_data = false;
  small.initial_r2t = true;
  const auto outcome = negotiate(small, {{"MaxBurstLength", "16776192"},
                                         {"FirstBurstLength", "262144"},
                                         {"ImmediateData", "Yes"},
                                         {"InitialR2T", "No"}});
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->max_burst_length, 65536U);
  EXPECT_EQ(outcome->first_burst_length, 8192U);
  EXPECT_FALSE(outcome->immediate_data);
  EXPECT_TRUE(outcome->initial_r2t);
}

TEST(Negotiation, FirstBurstNeverExceedsMaxBurst) {
  const auto outcome =
      negotiate(options(), {{"MaxBurstLength", "8192"}, {"FirstBurstLength", "65536"}});
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->first_burst_length, 8192U);
}

TEST(Negotiation, MarkersAreRejected) {
  LoginText said;
  ASSERT_TRUE(negotiate(options(), {{"OFMarker", "Yes"}, {"IFMarkInt", "2048~8192"}}, &said));
  EXPECT_EQ(said.text(), text_of({"OFMarker=Reject", "IFMarkInt=Reject"}));
}

TEST(Negotiation, DeclarationsThatAreOursChangeNothing) {
  LoginText said;
  ASSERT_TRUE(negotiate(options(), {{"InitiatorName", "iqn.x"}, {"SessionType", "Normal"}}, &said));
  EXPECT_TRUE(said.empty());
}

// Nothing of what is offered is the default, so that the two can be told apart.
TEST(Negotiation, KeysThatTheTargetDoesNotUseKeepTheirDefault) {
  SessionOptions other = options();
  other.initial_r2t = false;
  other.immediate_data = true;
  other.max_burst_length = 1048576;
  other.first_burst_length = 131072;
  other.max_outstanding_r2t = 4;
  other.default_time2wait = 0;
  other.default_time2retain = 60;
  for (const char* answer : {"NotUnderstood", "Irrelevant"}) {
    const auto outcome = negotiate(other, {{"InitialR2T", answer},
                                           {"ImmediateData", answer},
                                           {"MaxBurstLength", answer},
                                           {"FirstBurstLength", answer},
                                           {"MaxOutstandingR2T", answer},
                                           {"DefaultTime2Wait", answer},
                                           {"DefaultTime2Retain", answer}});
    ASSERT_TRUE(outcome);
    EXPECT_TRUE(outcome->initial_r2t);
    EXPECT_TRUE(outcome->immediate_data);
    EXPECT_EQ(outcome->max_burst_length, 262144U);
    EXPECT_EQ(outcome->first_burst_length, 65536U);
    EXPECT_EQ(outcome->max_outstanding_r2t, 1);
    EXPECT_EQ(outcome->default_time2wait, 2);
    EXPECT_EQ(outcome->default_time2retain, 20);
  }
}

TEST(Negotiation, APortalGroupTagOfZeroIsOneThatWasTold) {
  const auto outcome = negotiate(options(), {{"TargetPortalGroupTag", "0"}});
  ASSERT_TRUE(outcome);
  EXPECT_TRUE(outcome->target_portal_group_tag_known);
  EXPECT_EQ(outcome->target_portal_group_tag, 0);
}

TEST(Negotiation, UnknownKeyIsAnsweredWithNotUnderstood) {
  LoginText said;
  ASSERT_TRUE(negotiate(options(), {{"X-com.example.key", "1"}, {"Y", "NotUnderstood"}}, &said));
  EXPECT_EQ(said.text(), text_of({"X-com.example.key=NotUnderstood"}));
}

struct Refusal {
  const char* name;
  const char* key;
  const char* value;
  const char* message;
};
void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.name;
}

class NegotiationRefuses : public ::testing::TestWithParam<Refusal> {};
TEST_P(NegotiationRefuses, Answer) {
  const auto outcome = negotiate(options(), {{GetParam().key, GetParam().value}});
  ASSERT_FALSE(outcome);
  EXPECT_THAT(outcome.error().message, HasSubstr(GetParam().message));
}
INSTANTIATE_TEST_SUITE_P(
    Negotiation, NegotiationRefuses,
    ::testing::Values(
        Refusal{"NoNumber", "MaxOutstandingR2T", "one", "no number"},
        Refusal{"HeaderDigest", "HeaderDigest", "CRC32C", "HeaderDigest=None"},
        Refusal{"DataDigest", "DataDigest", "CRC16", "DataDigest=None"},
        Refusal{"SegmentLengthBelowRange", "MaxRecvDataSegmentLength", "511", "below 512"},
        Refusal{"SegmentLengthThatIsNoNumber", "MaxRecvDataSegmentLength", "8k", "no number"}),
    [](const auto& test) { return std::string(test.param.name); });

// What the target's word comes to where it breaks a rule: what we may do, and may not, of
// everything.
struct Leniency {
  const char* name;
  const char* key;
  const char* value;
  const char* said;
  void (*check)(const NegotiatedParameters& outcome);
};
void PrintTo(const Leniency& leniency, std::ostream* out) {
  *out << leniency.name;
}

class NegotiationTolerates : public ::testing::TestWithParam<Leniency> {};
TEST_P(NegotiationTolerates, Answer) {
  Negotiation negotiation(options());
  LoginText text;
  negotiation.offer(text);
  ASSERT_TRUE(negotiation.take({GetParam().key, GetParam().value}, text));
  EXPECT_THAT(negotiation.tolerated(), HasSubstr(GetParam().said));
  EXPECT_THAT(negotiation.tolerated(), HasSubstr(GetParam().key));
  GetParam().check(negotiation.outcome());
}
using Outcome = NegotiatedParameters;
INSTANTIATE_TEST_SUITE_P(
    Negotiation, NegotiationTolerates,
    ::testing::Values(
        Leniency{"BooleanInLowerCase", "InitialR2T", "no", "neither",
                 [](const Outcome& outcome) { EXPECT_FALSE(outcome.initial_r2t); }},
        Leniency{"InitialR2tThatIsNone", "InitialR2T", "Maybe", "neither",
                 [](const Outcome& outcome) { EXPECT_TRUE(outcome.initial_r2t); }},
        Leniency{"ImmediateDataThatIsNone", "ImmediateData", "", "neither",
                 [](const Outcome& outcome) { EXPECT_FALSE(outcome.immediate_data); }},
        Leniency{"ImmediateDataRejected", "ImmediateData", "Reject", "rejects",
                 [](const Outcome& outcome) { EXPECT_FALSE(outcome.immediate_data); }},
        Leniency{"FirstBurstBelowRange", "FirstBurstLength", "511", "outside 512",
                 [](const Outcome& outcome) { EXPECT_EQ(outcome.first_burst_length, 0U); }},
        Leniency{"FirstBurstAboveRange", "FirstBurstLength", "4294967295", "outside 512",
                 [](const Outcome& outcome) { EXPECT_EQ(outcome.first_burst_length, 262144U); }},
        Leniency{"FirstBurstRejected", "FirstBurstLength", "Reject", "rejects",
                 [](const Outcome& outcome) { EXPECT_EQ(outcome.first_burst_length, 65536U); }},
        Leniency{"MaxBurstOfNothing", "MaxBurstLength", "0", "outside 512",
                 [](const Outcome& outcome) { EXPECT_EQ(outcome.first_burst_length, 0U); }},
        Leniency{"MaxBurstAboveRange", "MaxBurstLength", "16777216", "outside 512",
                 [](const Outcome& outcome) { EXPECT_EQ(outcome.max_burst_length, 16776192U); }},
        Leniency{"NoR2tAtAll", "MaxOutstandingR2T", "0", "outside 1",
                 [](const Outcome& outcome) { EXPECT_EQ(outcome.max_outstanding_r2t, 1); }},
        Leniency{"Time2WaitAboveRange", "DefaultTime2Wait", "100000", "outside 0",
                 [](const Outcome& outcome) { EXPECT_EQ(outcome.default_time2wait, 3600); }},
        Leniency{"RejectedKey", "MaxConnections", "Reject", "rejects", [](const Outcome&) {}},
        Leniency{"SegmentLengthAboveRange", "MaxRecvDataSegmentLength", "99999999", "above",
                 [](const Outcome& outcome) {
                   EXPECT_EQ(outcome.max_send_data_segment_length, 16777215U);
                 }},
        Leniency{
            "PortalGroupTag", "TargetPortalGroupTag", "65536", "outside 0..65535",
            [](const Outcome& outcome) { EXPECT_FALSE(outcome.target_portal_group_tag_known); }},
        Leniency{
            "PortalGroupTagBelowZero", "TargetPortalGroupTag", "-1", "outside 0..65535",
            [](const Outcome& outcome) { EXPECT_FALSE(outcome.target_portal_group_tag_known); }}),
    [](const auto& test) { return std::string(test.param.name); });

// Whichever of both the target goes by.
TEST(Negotiation, OfTwoAnswersTheStricterOneHolds) {
  for (const bool first : {true, false}) {
    const char* large = "131072";
    const char* small = "8192";
    const auto outcome = negotiate(options(), {{"FirstBurstLength", first ? large : small},
                                               {"FirstBurstLength", first ? small : large},
                                               {"ImmediateData", first ? "Yes" : "No"},
                                               {"ImmediateData", first ? "No" : "Yes"},
                                               {"InitialR2T", first ? "No" : "Yes"},
                                               {"InitialR2T", first ? "Yes" : "No"}});
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->first_burst_length, 8192U);
    EXPECT_FALSE(outcome->immediate_data);
    EXPECT_TRUE(outcome->initial_r2t);
  }
}

Result<NegotiatedParameters> negotiate_digest(DigestOffer offer, const char* answer) {
  SessionOptions with = options();
  with.header_digest = with.data_digest = offer;
  return negotiate(with, {{"HeaderDigest", answer}, {"DataDigest", answer}});
}

TEST(Negotiation, TheTargetPicksTheDigestFromTheOffer) {
  for (const DigestOffer offer :
       {DigestOffer::crc32c, DigestOffer::crc32c_or_none, DigestOffer::none_or_crc32c}) {
    const auto outcome = negotiate_digest(offer, "CRC32C");
    ASSERT_TRUE(outcome);
    EXPECT_TRUE(outcome->digests.header && outcome->digests.data);
  }
  for (const DigestOffer offer :
       {DigestOffer::none, DigestOffer::crc32c_or_none, DigestOffer::none_or_crc32c}) {
    const auto outcome = negotiate_digest(offer, "None");
    ASSERT_TRUE(outcome);
    EXPECT_FALSE(outcome->digests.header || outcome->digests.data);
  }
}

TEST(Negotiation, RefusesDigestThatWasNotOffered) {
  EXPECT_FALSE(negotiate_digest(DigestOffer::none, "CRC32C"));
  EXPECT_FALSE(negotiate_digest(DigestOffer::crc32c_or_none, "CRC16"));
}

TEST(Negotiation, RefusesNoDigestWhereOneIsDemanded) {
  for (const char* answer : {"None", "NotUnderstood", "Reject"}) {
    const auto outcome = negotiate_digest(DigestOffer::crc32c, answer);
    ASSERT_FALSE(outcome);
    EXPECT_THAT(outcome.error().message, HasSubstr("HeaderDigest=CRC32C"));
  }
  SessionOptions with = options();
  with.data_digest = DigestOffer::crc32c;
  Negotiation silent(with);
  LoginText said;
  silent.offer(said);
  EXPECT_THAT(said.text(), HasSubstr("DataDigest=CRC32C"));
  EXPECT_FALSE(silent.check_complete());
}

TEST(Negotiation, RefusesTwoDifferentAnswersAboutADigest) {
  SessionOptions with = options();
  with.header_digest = DigestOffer::crc32c_or_none;
  EXPECT_FALSE(negotiate(with, {{"HeaderDigest", "CRC32C"}, {"HeaderDigest", "None"}}));
  EXPECT_FALSE(negotiate(with, {{"HeaderDigest", "None"}, {"HeaderDigest", "CRC32C"}}));
  EXPECT_TRUE(negotiate(with, {{"HeaderDigest", "CRC32C"}, {"HeaderDigest", "CRC32C"}}));
}
TEST(Negotiation, ADigestThatIsRejectedIsNoneWhereNoneWillDo) {
  for (const DigestOffer offer :
       {DigestOffer::none, DigestOffer::crc32c_or_none, DigestOffer::none_or_crc32c}) {
    const auto outcome = negotiate_digest(offer, "Reject");
    ASSERT_TRUE(outcome);
    EXPECT_FALSE(outcome->digests.header || outcome->digests.data);
  }
}

TEST(Negotiation, RefusesOperationalKeyBeforeTheOffer) {
  Negotiation negotiation(options());
  LoginText said;
  EXPECT_FALSE(negotiation.take({"MaxBurstLength", "8192"}, said));
}

// A conversation with a Login: what it asks, and answers to that.
class LoginTest : public ::testing::Test {
 protected:
  LoginRequestPdu ask() {
    login.next_request(request_bytes);
    const LoginRequestPdu request = decode_login_request(BhsBytes{request_bytes.data(), kBhsBytes});
    request_text.assign(reinterpret_cast<const char*>(request_bytes.data()) + kBhsBytes,
                        request.data_bytes);
    return request;
  }
  Result<Login::Progress> answer(LoginResponsePdu response, std::vector<std::string> pairs = {}) {
    const std::vector<std::byte> text = text_bytes(pairs);
    response.data_bytes = static_cast<std::uint32_t>(text.size());
    response.initiator_task_tag = tag;
    response.numbers.stat_sn = stat_sn++;
    std::array<std::byte, kBhsBytes> header;
    encode(response, BhsBuffer{header});
    return login.receive(BhsBytes{header}, text);
  }
  // text as it is: its pairs need not end as they should.
  Result<Login::Progress> answer_text(LoginResponsePdu response, std::string_view text) {
    response.data_bytes = static_cast<std::uint32_t>(text.size());
    response.numbers.stat_sn = stat_sn++;
    std::array<std::byte, kBhsBytes> header;
    encode(response, BhsBuffer{header});
    return login.receive(BhsBytes{header}, std::as_bytes(std::span{text}));
  }
  // With the C bit, so that more than 8192 bytes get through.
  Result<Login::Progress> answer_in_two(LoginResponsePdu response, std::vector<std::string> pairs) {
    const std::vector<std::string> second(
        pairs.begin() + static_cast<std::ptrdiff_t>(pairs.size() / 2), pairs.end());
    pairs.resize(pairs.size() / 2);
    LoginResponsePdu part = response;
    part.more = true;
    if (auto first = answer(part, pairs); !first) {
      return first;
    }
    static_cast<void>(ask());
    return answer(response, second);
  }
  static LoginResponsePdu security_done() {
    LoginResponsePdu response;
    response.transit = true;
    response.current_stage = LoginStage::security_negotiation;
    response.next_stage = LoginStage::operational_negotiation;
    return response;
  }
  static LoginResponsePdu operational_done() {
    LoginResponsePdu response;
    response.transit = true;
    response.current_stage = LoginStage::operational_negotiation;
    response.next_stage = LoginStage::full_feature_phase;
    return response;
  }
  static LoginResponsePdu refused(std::uint8_t status_class, std::uint8_t detail) {
    LoginResponsePdu response;
    response.status_class = status_class;
    response.status_detail = detail;
    return response;
  }

  static constexpr std::uint32_t tag = 0xfff0;
  SessionOptions session_options = options();
  Login login{session_options, tag, 17};
  std::vector<std::byte> request_bytes;
  std::string request_text;
  std::uint32_t stat_sn = 0xfffffffe;
};

TEST_F(LoginTest, GoesThroughSecurityAndOperationalStage) {
  const LoginRequestPdu security = ask();
  EXPECT_EQ(security.current_stage, LoginStage::security_negotiation);
  EXPECT_EQ(security.next_stage, LoginStage::operational_negotiation);
  EXPECT_TRUE(security.transit);
  EXPECT_EQ(security.tsih, 0);
  EXPECT_EQ(security.cmd_sn, 17U);
  EXPECT_EQ(security.isid, session_options.isid);
  EXPECT_EQ(request_text,
            text_of({"InitiatorName=iqn.2026-01.test:i", "TargetName=iqn.2026-01.test:t",
                     "SessionType=Normal", "AuthMethod=None"}));
  EXPECT_EQ(request_bytes.size() % 4, 0U);
  EXPECT_EQ(answer(security_done(), {"AuthMethod=None", "TargetPortalGroupTag=3"}),
            Login::Progress::request);

  const LoginRequestPdu operational = ask();
  EXPECT_EQ(operational.current_stage, LoginStage::operational_negotiation);
  EXPECT_EQ(operational.next_stage, LoginStage::full_feature_phase);
  EXPECT_EQ(operational.exp_stat_sn, 0xffffffff) << "StatSN near its wrap is followed";
  for (const char* key :
       {"HeaderDigest=None", "DataDigest=None", "MaxRecvDataSegmentLength=", "InitialR2T=No",
        "ImmediateData=Yes", "MaxBurstLength=", "FirstBurstLength=", "MaxOutstandingR2T=1",
        "ErrorRecoveryLevel=0", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes",
        "MaxConnections=1"}) {
    EXPECT_THAT(request_text, HasSubstr(key));
  }
  EXPECT_EQ(answer(operational_done(), {"InitialR2T=No"}), Login::Progress::complete);
  EXPECT_EQ(login.negotiated().target_portal_group_tag, 3);
  EXPECT_FALSE(login.negotiated().initial_r2t);
  EXPECT_EQ(login.numbers().stat_sn, 0xffffffffU);
}

TEST_F(LoginTest, JoinsTextThatComesInSeveralPdus) {
  static_cast<void>(ask());
  LoginResponsePdu part;
  part.more = true;
  part.current_stage = LoginStage::security_negotiation;
  // The cut goes through the middle of a key: the pieces are not terminated.
  const std::string first = "TargetPortal";
  std::array<std::byte, kBhsBytes> header;
  part.initiator_task_tag = tag;
  part.numbers.stat_sn = stat_sn++;
  part.data_bytes = static_cast<std::uint32_t>(first.size());
  encode(part, BhsBuffer{header});
  EXPECT_EQ(login.receive(BhsBytes{header}, std::as_bytes(std::span{first})),
            Login::Progress::request);
  const LoginRequestPdu empty = ask();
  EXPECT_EQ(empty.data_bytes, 0U);
  EXPECT_FALSE(empty.transit);
  LoginResponsePdu rest = security_done();
  rest.transit = false;
  EXPECT_EQ(answer(rest, {"GroupTag=5"}), Login::Progress::request);
  EXPECT_TRUE(ask().transit);
  EXPECT_EQ(answer(security_done()), Login::Progress::request);
  static_cast<void>(ask());
  EXPECT_EQ(answer(operational_done()), Login::Progress::complete);
  EXPECT_EQ(login.negotiated().target_portal_group_tag, 5);
}

TEST_F(LoginTest, AnswersUnknownKeysInTheNextRequest) {
  static_cast<void>(ask());
  LoginResponsePdu stay = security_done();
  stay.transit = false;
  EXPECT_EQ(answer(stay, {"X-key=1"}), Login::Progress::request);
  static_cast<void>(ask());
  EXPECT_EQ(request_text, text_of({"X-key=NotUnderstood"}));
}

TEST_F(LoginTest, RefusesTransitWhileTextContinues) {
  static_cast<void>(ask());
  LoginResponsePdu both = security_done();
  both.more = true;
  EXPECT_FALSE(answer(both));
}

// The answer ends the target's text, but the request that it answers did not ask to leave the
// stage.
TEST_F(LoginTest, RefusesTransitThatWasNotAskedFor) {
  static_cast<void>(ask());
  LoginResponsePdu part = security_done();
  part.transit = false;
  part.more = true;
  ASSERT_EQ(answer(part, {"TargetPortalGroupTag=5"}), Login::Progress::request);
  ASSERT_FALSE(ask().transit);
  const auto progress = answer(security_done());
  ASSERT_FALSE(progress);
  EXPECT_THAT(progress.error().message, HasSubstr("without being asked"));
}

TEST_F(LoginTest, RefusesEndlessNegotiation) {
  LoginResponsePdu stay = security_done();
  stay.transit = false;
  Result<Login::Progress> progress = Login::Progress::request;
  int rounds = 0;
  for (; progress && rounds < 1000; ++rounds) {
    static_cast<void>(ask());
    progress = answer(stay);
  }
  EXPECT_FALSE(progress);
  EXPECT_LT(rounds, 100);
}

TEST_F(LoginTest, RefusesTextThatIsTooLong) {
  static_cast<void>(ask());
  Result<Login::Progress> progress = Login::Progress::request;
  const std::vector<std::byte> text(8000, std::byte{'a'});
  for (int i = 0; progress && i < 20; ++i) {
    LoginResponsePdu part;
    part.more = true;
    part.initiator_task_tag = tag;
    part.numbers.stat_sn = stat_sn++;
    part.data_bytes = 8000;
    std::array<std::byte, kBhsBytes> header;
    encode(part, BhsBuffer{header});
    progress = login.receive(BhsBytes{header}, text);
    static_cast<void>(ask());
  }
  ASSERT_FALSE(progress);
  EXPECT_THAT(progress.error().message, HasSubstr("too long"));
}

TEST_F(LoginTest, RefusesAuthenticationThatIsNotConfigured) {
  static_cast<void>(ask());
  const auto progress = answer(security_done(), {"AuthMethod=CHAP"});
  ASSERT_FALSE(progress);
  EXPECT_THAT(progress.error().message, HasSubstr("CHAP"));
}

TEST_F(LoginTest, RefusesAnswerOfAnotherKind) {
  static_cast<void>(ask());
  std::array<std::byte, kBhsBytes> header;
  encode(NopInPdu{}, BhsBuffer{header});
  const auto progress = login.receive(BhsBytes{header}, {});
  ASSERT_FALSE(progress);
  EXPECT_THAT(progress.error().message, HasSubstr("NOP-In"));
}

TEST_F(LoginTest, RefusesAnswerOfAnotherStage) {
  static_cast<void>(ask());
  EXPECT_FALSE(answer(operational_done()));
}

TEST_F(LoginTest, RefusesJumpsToStagesThatDoNotFollow) {
  for (const LoginStage to : {LoginStage::security_negotiation, static_cast<LoginStage>(2)}) {
    Login fresh{session_options, tag, 17};
    fresh.next_request(request_bytes);
    LoginResponsePdu jump = security_done();
    jump.next_stage = to;
    jump.initiator_task_tag = tag;
    std::array<std::byte, kBhsBytes> header;
    encode(jump, BhsBuffer{header});
    EXPECT_FALSE(fresh.receive(BhsBytes{header}, {})) << static_cast<int>(to);
  }
}

// Each request has its answer before the next one: a wrong number can mean nothing else.
TEST_F(LoginTest, TakesWrongStatSnAndAcknowledgesIt) {
  static_cast<void>(ask());
  ASSERT_TRUE(answer(security_done()));
  static_cast<void>(ask());
  stat_sn += 7;
  const std::uint32_t told = stat_sn;
  EXPECT_EQ(answer(operational_done()), Login::Progress::complete);
  EXPECT_EQ(login.numbers().stat_sn, told);
  EXPECT_THAT(login.tolerated(), HasSubstr("StatSN out of order"));
}

TEST_F(LoginTest, TakesAuthMethodNoneTwice) {
  static_cast<void>(ask());
  ASSERT_TRUE(answer(security_done(), {"AuthMethod=None"}));
  static_cast<void>(ask());
  EXPECT_EQ(answer(operational_done(), {"AuthMethod=None"}), Login::Progress::complete);
  EXPECT_THAT(login.tolerated(), HasSubstr("AuthMethod twice"));
}

TEST_F(LoginTest, RefusesAnotherAuthMethodTheSecondTime) {
  static_cast<void>(ask());
  ASSERT_TRUE(answer(security_done(), {"AuthMethod=None"}));
  static_cast<void>(ask());
  EXPECT_FALSE(answer(operational_done(), {"AuthMethod=CHAP"}));
}

// What a target says with the two responses of a login, '|' for the NULs.
struct LoginLeniency {
  const char* name;
  std::string security;
  std::string operational;
  const char* said;  // of what is tolerated; empty: nothing is broken
  void (*check)(const NegotiatedParameters& outcome);
  std::uint32_t tag = 0xfff0;
};
void PrintTo(const LoginLeniency& leniency, std::ostream* out) {
  *out << leniency.name;
}
class LoginTolerates : public LoginTest, public ::testing::WithParamInterface<LoginLeniency> {};
TEST_P(LoginTolerates, Text) {
  const auto with_nuls = [](std::string text) {
    std::replace(text.begin(), text.end(), '|', '\0');
    return text;
  };
  static_cast<void>(ask());
  LoginResponsePdu response = security_done();
  response.initiator_task_tag = GetParam().tag;
  const auto security = answer_text(response, with_nuls(GetParam().security));
  ASSERT_TRUE(security) << security.error().message;
  static_cast<void>(ask());
  response = operational_done();
  response.initiator_task_tag = GetParam().tag;
  const auto progress = answer_text(response, with_nuls(GetParam().operational));
  ASSERT_TRUE(progress) << progress.error().message;
  EXPECT_EQ(*progress, Login::Progress::complete);
  GetParam().check(login.negotiated());
  EXPECT_THAT(login.tolerated(), HasSubstr(GetParam().said));
  EXPECT_EQ(login.tolerated().empty(), std::string_view(GetParam().said).empty())
      << login.tolerated();
  EXPECT_EQ(login.tolerated().find(GetParam().said), login.tolerated().rfind(GetParam().said))
      << "once";
}
using Parameters = NegotiatedParameters;
INSTANTIATE_TEST_SUITE_P(
    Login, LoginTolerates,
    ::testing::Values(
        LoginLeniency{
            "NoNulAtTheEndOfTheSecurityStage", "AuthMethod=None|TargetPortalGroupTag=7", "",
            "does not end in a NUL",
            [](const Parameters& outcome) { EXPECT_EQ(outcome.target_portal_group_tag, 7); }},
        LoginLeniency{
            "NoNulAtTheEndOfTheOperationalStage", "AuthMethod=None|",
            "InitialR2T=No|MaxBurstLength=8192", "does not end in a NUL",
            [](const Parameters& outcome) { EXPECT_EQ(outcome.max_burst_length, 8192U); }},
        LoginLeniency{
            "PaddingBetweenPairs", "|AuthMethod=None|||TargetPortalGroupTag=7|||", "|||", "",
            [](const Parameters& outcome) { EXPECT_EQ(outcome.target_portal_group_tag, 7); }},
        LoginLeniency{"AMethodAndMore", "AuthMethod=None,CHAP|", "", "AuthMethod with a list",
                      [](const Parameters&) {}},
        LoginLeniency{"TheMethodBehindOthers", "AuthMethod=CHAP,SRP,None|", "",
                      "AuthMethod with a list", [](const Parameters&) {}},
        LoginLeniency{"ATagOfZero", "AuthMethod=None|", "InitialR2T=No|", "another task tag",
                      [](const Parameters& outcome) { EXPECT_FALSE(outcome.initial_r2t); }, 0},
        LoginLeniency{"AReservedTag", "AuthMethod=None|", "", "another task tag",
                      [](const Parameters&) {}, 0xffffffff},
        LoginLeniency{
            "TwoPortalGroups", "TargetPortalGroupTag=1|TargetPortalGroupTag=2|", "",
            "TargetPortalGroupTag twice",
            [](const Parameters& outcome) { EXPECT_FALSE(outcome.target_portal_group_tag_known); }},
        LoginLeniency{
            "APortalGroupOfEachStage", "TargetPortalGroupTag=1|",
            "TargetPortalGroupTag=2|TargetPortalGroupTag=1|", "TargetPortalGroupTag twice",
            [](const Parameters& outcome) { EXPECT_FALSE(outcome.target_portal_group_tag_known); }},
        LoginLeniency{"OnePortalGroupInBothStages", "TargetPortalGroupTag=1|",
                      "TargetPortalGroupTag=0x1|", "",
                      [](const Parameters& outcome) {
                        EXPECT_TRUE(outcome.target_portal_group_tag_known);
                        EXPECT_EQ(outcome.target_portal_group_tag, 1);
                      }},
        LoginLeniency{
            "TwoBurstsInOneText", "", "MaxBurstLength=8192|MaxBurstLength=65536|",
            "MaxBurstLength twice",
            [](const Parameters& outcome) { EXPECT_EQ(outcome.max_burst_length, 8192U); }},
        LoginLeniency{"TwoBooleansInOneText", "", "InitialR2T=No|InitialR2T=Yes|InitialR2T=No|",
                      "InitialR2T twice",
                      [](const Parameters& outcome) { EXPECT_TRUE(outcome.initial_r2t); }},
        LoginLeniency{"TwoSegmentLengths", "MaxRecvDataSegmentLength=4096|",
                      "MaxRecvDataSegmentLength=65536|MaxRecvDataSegmentLength=8192|",
                      "MaxRecvDataSegmentLength twice",
                      [](const Parameters& outcome) {
                        EXPECT_EQ(outcome.max_send_data_segment_length, 4096U);
                      }},
        LoginLeniency{"OneSegmentLengthTwice", "",
                      "MaxRecvDataSegmentLength=65536|MaxRecvDataSegmentLength=0x10000|", "",
                      [](const Parameters& outcome) {
                        EXPECT_EQ(outcome.max_send_data_segment_length, 65536U);
                      }},
        LoginLeniency{"TwoAliases", "TargetAlias=a|TargetAlias=b|", "", "",
                      [](const Parameters& outcome) { EXPECT_EQ(outcome.target_alias, "b"); }},
        LoginLeniency{"AnUnknownKeyTwice", "X-a=1|X-a=2|", "", "", [](const Parameters&) {}},
        LoginLeniency{"ALongAlias", "TargetAlias=" + std::string(300, 'a') + "|", "",
                      "more than 255",
                      [](const Parameters& outcome) {
                        EXPECT_EQ(outcome.target_alias, std::string(300, 'a'));
                      }},
        LoginLeniency{"ALongVendorsKey", "X-com.example.a=" + std::string(2000, 'a') + "|", "",
                      "more than 255", [](const Parameters&) {}},
        LoginLeniency{"ANumberOf33Bits", "", "MaxBurstLength=4294967296|", "outside 512",
                      [](const Parameters& outcome) {
                        EXPECT_EQ(outcome.max_burst_length, options().max_burst_length);
                      }},
        LoginLeniency{"ASegmentLengthOf33Bits", "", "MaxRecvDataSegmentLength=0x100000000|",
                      "above",
                      [](const Parameters& outcome) {
                        EXPECT_EQ(outcome.max_send_data_segment_length, 16777215U);
                      }},
        LoginLeniency{"ANumberOfManyBits", "",
                      "MaxRecvDataSegmentLength=99999999999999999999999999|", "above",
                      [](const Parameters& outcome) {
                        EXPECT_EQ(outcome.max_send_data_segment_length, 16777215U);
                      }},
        LoginLeniency{"LeadingZeros", "", "MaxBurstLength=00008192|FirstBurstLength=0X001000|", "",
                      [](const Parameters& outcome) {
                        EXPECT_EQ(outcome.max_burst_length, 8192U);
                        EXPECT_EQ(outcome.first_burst_length, 4096U);
                      }},
        LoginLeniency{
            "BlanksAroundANumber", "", "MaxBurstLength=8192 |MaxOutstandingR2T= 1|", "blanks",
            [](const Parameters& outcome) { EXPECT_EQ(outcome.max_burst_length, 8192U); }},
        LoginLeniency{
            "MoreThanWasOffered", "",
            "MaxConnections=8|ErrorRecoveryLevel=2|MaxOutstandingR2T=16|DataPDUInOrder=No|", "",
            [](const Parameters& outcome) { EXPECT_EQ(outcome.max_outstanding_r2t, 1); }}),
    [](const auto& test) { return std::string(test.param.name); });

// RFC defaults hold for whatever was not negotiated; Linux's initiator goes there, too.
TEST_F(LoginTest, FollowsAJumpToTheFullFeaturePhase) {
  session_options.immediate_data = false;
  static_cast<void>(ask());
  LoginResponsePdu jump = security_done();
  jump.next_stage = LoginStage::full_feature_phase;
  EXPECT_EQ(answer(jump, {"AuthMethod=None", "TargetPortalGroupTag=2"}), Login::Progress::complete);
  EXPECT_THAT(login.tolerated(), HasSubstr("leaves the operational stage out"));
  const NegotiatedParameters outcome = login.negotiated();
  EXPECT_TRUE(outcome.initial_r2t);
  EXPECT_EQ(outcome.max_burst_length, 262144U);
  EXPECT_EQ(outcome.first_burst_length, 65536U);
  EXPECT_EQ(outcome.max_send_data_segment_length, 8192U);
  EXPECT_EQ(outcome.max_outstanding_r2t, 1);
  EXPECT_FALSE(outcome.digests.header || outcome.digests.data);
}

// Linux's initiator looks at the class.
TEST_F(LoginTest, ASuccessIsOneWhateverItsDetail) {
  static_cast<void>(ask());
  LoginResponsePdu response = security_done();
  response.status_detail = 1;
  ASSERT_EQ(answer(response, {"AuthMethod=None"}), Login::Progress::request);
  static_cast<void>(ask());
  EXPECT_EQ(answer(operational_done()), Login::Progress::complete);
  EXPECT_THAT(login.tolerated(), HasSubstr("details of a success"));
}

TEST_F(LoginTest, RefusesIscsiVersionOtherThanZero) {
  static_cast<void>(ask());
  LoginResponsePdu newer = security_done();
  newer.version_active = 1;
  EXPECT_FALSE(answer(newer));
}

TEST_F(LoginTest, FollowsARedirect) {
  static_cast<void>(ask());
  EXPECT_EQ(answer(refused(1, 1), {"TargetAddress=10.0.0.9:3261,1"}), Login::Progress::redirected);
  EXPECT_EQ(login.redirect_address(), "10.0.0.9:3261,1");
}

// Linux's initiator takes the address and asks for nothing else.
TEST_F(LoginTest, OfARedirectOnlyTheAddressCounts) {
  const std::pair<const char*, const char*> cases[] = {
      {"no NUL at the end", "TargetAddress=10.0.0.9:3261,1"},
      {"what is no pair before it", "abc|=x|TargetAddress=10.0.0.9:3261,1|"},
      {"what is no pair behind it", "TargetAddress=10.0.0.9:3261,1|abc"},
      {"a key twice", "TargetAlias=a|TargetAlias=b|TargetAddress=10.0.0.9:3261,1|"},
      {"an empty address before it", "TargetAddress=|TargetAddress=10.0.0.9:3261,1|"},
      {"several addresses", "TargetAddress=10.0.0.9:3261,1|TargetAddress=10.0.0.8|"},
      {"padding", "|||TargetAddress=10.0.0.9:3261,1|||"},
      {"keys of the login", "AuthMethod=CHAP|CHAP_A=5|TargetAddress=10.0.0.9:3261,1|"},
  };
  for (const auto& [name, pairs] : cases) {
    std::string text = pairs;
    std::replace(text.begin(), text.end(), '|', '\0');
    Login fresh{session_options, tag, 17};
    fresh.next_request(request_bytes);
    LoginResponsePdu response = refused(1, 1);
    response.initiator_task_tag = tag;
    response.data_bytes = static_cast<std::uint32_t>(text.size());
    std::array<std::byte, kBhsBytes> header;
    encode(response, BhsBuffer{header});
    const auto progress = fresh.receive(BhsBytes{header}, std::as_bytes(std::span{text}));
    ASSERT_TRUE(progress) << name << ": " << progress.error().message;
    EXPECT_EQ(*progress, Login::Progress::redirected) << name;
    EXPECT_EQ(fresh.redirect_address(), "10.0.0.9:3261,1") << name;
  }
}

TEST_F(LoginTest, RefusesRedirectToNowhere) {
  static_cast<void>(ask());
  const auto progress = answer(refused(1, 2), {"TargetAddress="});
  ASSERT_FALSE(progress);
  EXPECT_THAT(progress.error().message, HasSubstr("does not say where"));
}

// Each row of 11.13.5 has its own sentence, and the part of it that says what to do.
TEST_F(LoginTest, RefusedLoginsSayWhatToFix) {
  const std::map<std::uint16_t, const char*> remedies = {
      {0x0101, "moved temporarily"},
      {0x0102, "moved permanently"},
      {0x0200, "its log"},
      {0x0201, "set username and password (CHAP)"},
      {0x0202, "access list"},
      {0x0203, "check the IQN"},
      {0x0204, "take the portal out of the configuration"},
      {0x0205, "iSCSI version"},
      {0x0206, "close some or raise its limit"},
      {0x0207, "may want CHAP"},
      {0x0208, "same initiator name"},
      {0x0209, "for discovery only"},
      {0x020a, "next login makes a new one"},
      {0x020b, "its log should say why"},
      {0x0300, "internal error"},
      {0x0301, "enabled at this portal"},
      {0x0302, "close sessions"},
  };
  EXPECT_EQ(remedies.size(), all_login_statuses().size());
  for (const auto& [status, remedy] : remedies) {
    Login fresh{session_options, tag, 1};
    fresh.next_request(request_bytes);
    LoginResponsePdu response =
        refused(static_cast<std::uint8_t>(status >> 8), static_cast<std::uint8_t>(status & 0xff));
    response.initiator_task_tag = tag;
    std::array<std::byte, kBhsBytes> header;
    encode(response, BhsBuffer{header});
    const auto progress = fresh.receive(BhsBytes{header}, {});
    ASSERT_FALSE(progress);
    EXPECT_THAT(progress.error().message, HasSubstr(remedy)) << status;
  }
}

TEST(LoginThatDemandsDigests, RefusesTargetThatSaysNothingOfThem) {
  SessionOptions demanding = options();
  demanding.header_digest = DigestOffer::crc32c;
  Login login(demanding, 1, 1);
  std::vector<std::byte> request;
  const auto answer = [&](LoginStage now, LoginStage next) {
    login.next_request(request);
    std::array<std::byte, kBhsBytes> header;
    LoginResponsePdu response;
    response.transit = true;
    response.current_stage = now;
    response.next_stage = next;
    response.initiator_task_tag = 1;
    response.numbers.stat_sn = now == LoginStage::security_negotiation ? 0 : 1;
    encode(response, BhsBuffer{header});
    return login.receive(BhsBytes{header}, {});
  };
  ASSERT_EQ(answer(LoginStage::security_negotiation, LoginStage::operational_negotiation),
            Login::Progress::request);
  const auto progress = answer(LoginStage::operational_negotiation, LoginStage::full_feature_phase);
  ASSERT_FALSE(progress);
  Login jumping(demanding, 1, 1);
  jumping.next_request(request);
  LoginResponsePdu jump;
  jump.transit = true;
  jump.current_stage = LoginStage::security_negotiation;
  jump.next_stage = LoginStage::full_feature_phase;
  jump.initiator_task_tag = 1;
  std::array<std::byte, kBhsBytes> header;
  encode(jump, BhsBuffer{header});
  EXPECT_FALSE(jumping.receive(BhsBytes{header}, {})) << "it leaves the stage out";
  EXPECT_THAT(progress.error().message, HasSubstr("says nothing to HeaderDigest=CRC32C"));
}

TEST(LoginStatus, OneThatNoStandardDefinesSaysItsNumber) {
  EXPECT_THAT(describe_login_status(0x02ff).message, HasSubstr("0x02ff"));
  EXPECT_THAT(describe_login_status(0x03ff).message, HasSubstr("0x03ff"));
  EXPECT_EQ(describe_login_status(0x0377).code, ErrorCode::unavailable);
  EXPECT_THAT(describe_login_status(0x0901).message, HasSubstr("0x0901"));
}

// Our answer to so many keys that we do not know has more than 8192 bytes.
std::vector<std::string> many_unknown_keys() {
  std::vector<std::string> keys;
  for (int i = 0; i < 120; ++i) {
    keys.push_back(fmt::format("X-{:061}=1", i));
  }
  return keys;
}

TEST_F(LoginTest, TextThatIsTooLongForOnePduGoesInSeveral) {
  static_cast<void>(ask());
  LoginResponsePdu stay = security_done();
  stay.transit = false;
  ASSERT_EQ(answer_in_two(stay, many_unknown_keys()), Login::Progress::request);
  LoginRequestPdu request = ask();
  EXPECT_TRUE(request.data_bytes == 8192 && !request.transit);
  EXPECT_TRUE(decode_login_request(BhsBytes{request_bytes.data(), kBhsBytes}).more);
  std::string all = request_text;
  ASSERT_EQ(answer(stay), Login::Progress::request);
  request = ask();
  EXPECT_TRUE(request.transit);
  EXPECT_FALSE(decode_login_request(BhsBytes{request_bytes.data(), kBhsBytes}).more);
  all += request_text;
  const auto pairs = parse_login_text(all);
  ASSERT_TRUE(pairs);
  EXPECT_EQ(pairs->size(), 120U);
  EXPECT_EQ(answer(security_done()), Login::Progress::request);
  EXPECT_EQ(ask().current_stage, LoginStage::operational_negotiation);
}

TEST_F(LoginTest, RefusesAnswerBeforeAllOfOurTextIsThere) {
  static_cast<void>(ask());
  LoginResponsePdu stay = security_done();
  stay.transit = false;
  ASSERT_EQ(answer_in_two(stay, many_unknown_keys()), Login::Progress::request);
  static_cast<void>(ask());
  EXPECT_FALSE(answer(stay, {"Y=1"}));
}

TEST_F(LoginTest, RemembersThatTheTargetHasMovedForGood) {
  static_cast<void>(ask());
  ASSERT_EQ(answer(refused(1, 2), {"TargetAddress=10.0.0.9"}), Login::Progress::redirected);
  EXPECT_TRUE(login.moved_permanently());
}

TEST(Login, RefusesUnusableNames) {
  for (const std::string& name : {std::string(), std::string(224, 'a'), std::string("with blank"),
                                  std::string("new\nline"), std::string("nul\0", 4)}) {
    SessionOptions wrong = options();
    wrong.initiator_name = name;
    EXPECT_FALSE(Login(wrong, 1, 1).check_options());
    wrong = options();
    wrong.target_name = name;
    EXPECT_FALSE(Login(wrong, 1, 1).check_options());
  }
  EXPECT_TRUE(Login(options(), 1, 1).check_options());
}

}  // namespace
}  // namespace iscsi_blkback
