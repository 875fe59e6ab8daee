// Discovery by our own engine against a target that does exactly what it is told: answers in
// several PDUs, CHAP, digests, redirects, several addresses, and everything that ends it.
#include "initiator/discovery/discovery_session.h"

#include <gmock/gmock.h>

#include <functional>

#include "tests/initiator/session/session_fixture.h"
#include "tests/support/scripted_target.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;

class HopResolver final : public NameResolver {
 public:
  std::unique_ptr<NameLookup> look_up(Reactor& reactor, const std::string&, const std::string&,
                                      std::uint16_t, Answer answer, void* owner) override {
    if (!addresses.empty()) {
      reactor.post([this, answer, owner] { answer(owner, addresses); });
    }
    return std::make_unique<NameLookup>();
  }
  std::vector<SocketAddress> addresses;  // none: it never answers
};

class DiscoverySessionTest : public ::testing::Test {
 protected:
  DiscoverySessionTest() {
    options.initiator_name = "iqn.2026-01.test:initiator";
    options.addresses = {test_address(1)};
    options.portal_name = "san1:3260";
  }
  ~DiscoverySessionTest() override {
    if (session && !result) {
      session->cancel();
      EXPECT_TRUE(done());
    }
  }
  void start() {
    result.reset();
    session = std::make_unique<DiscoverySession>(reactor, options, resolver, memory);
    session->start(
        [](void* self, Result<Discovery> discovery) noexcept {
          static_cast<DiscoverySessionTest*>(self)->result = std::move(discovery);
        },
        this);
    EXPECT_FALSE(result) << "from inside the call";
  }
  [[nodiscard]] bool done() {
    return reactor.run_until([this] { return result.has_value(); }, std::chrono::minutes(1));
  }
  std::string error() {
    EXPECT_TRUE(done());
    return result && !*result ? result->error().message : "(none)";
  }
  std::string targets() {
    EXPECT_TRUE(done());
    if (!result || !*result) {
      return result ? result->error().message : "(none)";
    }
    std::string all;
    for (const DiscoveredTarget& one : (*result)->targets) {
      all += (all.empty() ? "" : " ") + one.name + "@" +
             (one.portals.empty() ? "-" : one.portals.front().host);
    }
    return all;
  }

  // The next text request; its text is in text.
  TextRequestPdu next_question(ScriptedTarget& of) {
    ReceivedPdu pdu;
    EXPECT_TRUE(of.next(Opcode::text_request, pdu));
    if (pdu.bytes.empty()) {
      return {};
    }
    text.assign(reinterpret_cast<const char*>(pdu.data().data()), pdu.data().size());
    return decode_text_request(pdu.bhs());
  }
  TextRequestPdu next_question() { return next_question(target); }
  void answer(ScriptedTarget& of, const TextRequestPdu& question,
              const std::vector<std::string>& pairs, bool last = true, bool more = false,
              std::uint32_t tag = kReservedTag) {
    send_text(of, question, text_bytes(pairs), last, more, tag);
  }
  static void send_text(ScriptedTarget& of, const TextRequestPdu& question,
                        const std::vector<std::byte>& bytes, bool last, bool more,
                        std::uint32_t tag) {
    of.send(TextResponsePdu{.final = last,
                            .more = more,
                            .data_bytes = static_cast<std::uint32_t>(bytes.size()),
                            .lun = 0x0102000000000000,
                            .initiator_task_tag = question.initiator_task_tag,
                            .target_transfer_tag = tag,
                            .numbers = of.status_numbers()},
            bytes);
  }
  void expect_logout(ScriptedTarget& of) {
    ReceivedPdu pdu;
    ASSERT_TRUE(of.next(Opcode::logout_request, pdu));
    of.send(LogoutResponsePdu{.initiator_task_tag = pdu.header.initiator_task_tag,
                              .numbers = of.status_numbers()});
  }
  // Until the question, whose answer is this.
  void play(ScriptedTarget& of, const std::vector<std::string>& pairs) {
    ASSERT_TRUE(of.accept_login());
    answer(of, next_question(of), pairs);
    expect_logout(of);
  }
  void answer_login(const LoginRequestPdu& request, const std::vector<std::string>& pairs,
                    bool transit, std::uint16_t status = 0) {
    const std::vector<std::byte> data = text_bytes(pairs);
    LoginResponsePdu response;
    response.transit = transit;
    response.current_stage = request.current_stage;
    response.next_stage = request.next_stage;
    response.data_bytes = static_cast<std::uint32_t>(data.size());
    response.isid = request.isid;
    response.tsih = 1;
    response.initiator_task_tag = request.initiator_task_tag;
    response.numbers = target.status_numbers();
    response.status_class = static_cast<std::uint8_t>(status >> 8);
    response.status_detail = static_cast<std::uint8_t>(status & 0xff);
    target.send(response, data);
  }
  LoginRequestPdu next_login_request() {
    ReceivedPdu pdu;
    EXPECT_TRUE(target.next(Opcode::login_request, pdu));
    if (pdu.bytes.empty()) {
      return {};
    }
    text.assign(reinterpret_cast<const char*>(pdu.data().data()), pdu.data().size());
    return decode_login_request(pdu.bhs());
  }

  SimReactor reactor{1};
  ScriptedTarget target{reactor, test_address(1)};
  HopResolver resolver;
  ChapMemory memory;
  DiscoveryOptions options;
  std::unique_ptr<DiscoverySession> session;
  std::optional<Result<Discovery>> result;
  std::string text;
};

TEST_F(DiscoverySessionTest, AsksForAllTargetsInADiscoverySession) {
  start();
  const LoginRequestPdu login = next_login_request();
  EXPECT_THAT(text, HasSubstr("SessionType=Discovery"));
  EXPECT_THAT(text, Not(HasSubstr("TargetName")));
  EXPECT_EQ(login.isid[0], 0x80);
  answer_login(login, {"AuthMethod=None", "TargetPortalGroupTag=3"}, true);
  const LoginRequestPdu operational = next_login_request();
  // What a discovery session has no use for is not negotiated (RFC 7143 13).
  for (const char* key : {"MaxConnections", "InitialR2T", "ImmediateData", "MaxBurstLength",
                          "FirstBurstLength", "MaxOutstandingR2T", "DataPDUInOrder"}) {
    EXPECT_THAT(text, Not(HasSubstr(key)));
  }
  EXPECT_THAT(text, HasSubstr("MaxRecvDataSegmentLength=262144"));
  answer_login(operational, {"HeaderDigest=None", "InitialR2T=Yes"}, true);
  const TextRequestPdu question = next_question();
  EXPECT_EQ(text, std::string("SendTargets=All\0", 16));
  EXPECT_TRUE(question.final && question.immediate && !question.more);
  EXPECT_EQ(question.target_transfer_tag, kReservedTag);
  answer(target, question, {"TargetName=iqn.a:b"});
  expect_logout(target);
  EXPECT_EQ(targets(), "iqn.a:b@10.0.0.1") << "the portal that was asked";
  EXPECT_EQ((*result)->targets.front().portals.front().group_tag, 3);
}

TEST_F(DiscoverySessionTest, AnAnswerMayComeInManyPdus) {
  struct Case {
    const char* name;
    std::size_t piece_bytes;
    bool more;   // the C bit, where the text is cut within a pair
    bool final;  // and with the F bit in all of them
  };
  const std::vector<std::byte> whole =
      text_bytes({"TargetName=iqn.a:b", "TargetAddress=192.0.2.1:3260,1", "TargetName=iqn.a:c",
                  "TargetAddress=192.0.2.2:3260,1", "X-unknown=1", "TargetName=iqn.a:d"});
  for (const Case& one : {Case{"whole", 1000, false, true}, Case{"with C", 40, true, false},
                          Case{"with F and C", 40, true, true}, Case{"without C", 40, false, false},
                          Case{"byte by byte", 1, true, false}}) {
    start();
    ASSERT_TRUE(target.accept_login()) << one.name;
    for (std::size_t at = 0; at < whole.size(); at += one.piece_bytes) {
      const TextRequestPdu question = next_question();
      EXPECT_EQ(question.target_transfer_tag, at == 0 ? kReservedTag : 77U) << one.name;
      EXPECT_EQ(question.lun, at == 0 ? 0U : 0x0102000000000000U) << one.name;
      EXPECT_EQ(text.empty(), at != 0) << one.name;
      EXPECT_EQ(question.exp_stat_sn, target.stat_sn) << one.name;
      const std::size_t end = std::min(at + one.piece_bytes, whole.size());
      const bool last = end == whole.size();
      send_text(target, question,
                {whole.begin() + static_cast<std::ptrdiff_t>(at),
                 whole.begin() + static_cast<std::ptrdiff_t>(end)},
                last || one.final, !last && one.more, last ? kReservedTag : 77);
    }
    expect_logout(target);
    EXPECT_EQ(targets(), "iqn.a:b@192.0.2.1 iqn.a:c@192.0.2.2 iqn.a:d@10.0.0.1") << one.name;
    EXPECT_THAT((*result)->left_out, HasSubstr("X-unknown"));
  }
}

TEST_F(DiscoverySessionTest, AnAnswerThatCannotBeAskedForFurtherIsSaidToBeCutOff) {
  start();
  ASSERT_TRUE(target.accept_login());
  answer(target, next_question(), {"TargetName=iqn.a:b"}, false, false, kReservedTag);
  expect_logout(target);
  EXPECT_EQ(targets(), "iqn.a:b@10.0.0.1");
  EXPECT_THAT((*result)->left_out, HasSubstr("the rest"));
}

TEST_F(DiscoverySessionTest, ATargetWithoutTargetsIsNoError) {
  start();
  play(target, {});
  EXPECT_EQ(targets(), "");
  ASSERT_TRUE(*result);
}

TEST_F(DiscoverySessionTest, TheAnswerCountsHoweverTheTargetTakesTheLogout) {
  for (const char* way : {"answers nothing", "hangs up"}) {
    start();
    ASSERT_TRUE(target.accept_login()) << way;
    answer(target, next_question(), {"TargetName=iqn.a:b"});
    ReceivedPdu pdu;
    ASSERT_TRUE(target.next(Opcode::logout_request, pdu)) << way;
    if (std::string_view(way) == "hangs up") {
      target.reset();
    }
    EXPECT_EQ(targets(), "iqn.a:b@10.0.0.1") << way;
  }
}

// ---- rounds: a target that is just being started

TEST_F(DiscoverySessionTest, WhatRefusesIsAskedAgain) {
  options.rounds = 3;
  for (const int status : {0x0200, 0x0201, 0x0203, 0x0206, 0x0300, 0x0301, 0x0302}) {
    for (int refused = 1; refused <= 3; ++refused) {
      start();
      for (int number = 0; number < refused; ++number) {
        answer_login(next_login_request(), {}, false, static_cast<std::uint16_t>(status));
      }
      if (refused == 3) {
        EXPECT_THAT(error(), HasSubstr("discovery at san1:3260 failed: ")) << status;
        EXPECT_THAT(error(), Not(HasSubstr("; 10.0.0.1"))) << "each round says the same";
        continue;
      }
      play(target, {"TargetName=iqn.a:b"});
      EXPECT_EQ(targets(), "iqn.a:b@10.0.0.1") << status;
    }
  }
}

TEST_F(DiscoverySessionTest, AConnectionThatIsLostIsTriedAgainAtEveryAddress) {
  options.rounds = 2;
  options.addresses = {test_address(2), test_address(1)};  // nobody listens at the first
  start();
  (void)next_login_request();
  target.reset();
  play(target, {"TargetName=iqn.a:b"});
  EXPECT_EQ(targets(), "iqn.a:b@10.0.0.1");
}

TEST_F(DiscoverySessionTest, WithoutRoundsTheFirstRefusalIsTheEnd) {
  start();
  answer_login(next_login_request(), {}, false, 0x0301);
  EXPECT_THAT(error(), HasSubstr("discovery at san1:3260 failed: "));
}

TEST_F(DiscoverySessionTest, SilenceIsWaitedForOnce) {
  options.rounds = 3;
  const TimePoint began = reactor.now();
  start();
  (void)next_login_request();
  EXPECT_THAT(error(), HasSubstr("got no answer in time while logging in"));
  EXPECT_LT(reactor.now() - began, seconds(16));
  reactor.network().set_dropping(test_address(1), true);
  const TimePoint second = reactor.now();
  start();
  EXPECT_THAT(error(), HasSubstr("connect_timeout"));
  EXPECT_LT(reactor.now() - second, seconds(2));
  reactor.network().set_dropping(test_address(1), false);
}

TEST_F(DiscoverySessionTest, RoundsEndWithTheTime) {
  options.rounds = 1000;
  options.timeout = seconds(2);
  const TimePoint began = reactor.now();
  start();
  int logins = 0;
  for (; !result && logins < 100; ++logins) {
    ReceivedPdu pdu;
    if (!target.next(Opcode::login_request, pdu)) {
      break;
    }
    answer_login(decode_login_request(pdu.bhs()), {}, false, 0x0301);
    reactor.run_for(milliseconds(20));
  }
  EXPECT_THAT(error(), HasSubstr("discovery at san1:3260 failed: "));
  EXPECT_LT(reactor.now() - began, seconds(5));
  EXPECT_GE(logins, 3);
  EXPECT_LE(logins, 5);
}

TEST_F(DiscoverySessionTest, IsStoppedBetweenRounds) {
  options.rounds = 3;
  start();
  answer_login(next_login_request(), {}, false, 0x0301);
  reactor.run_for(milliseconds(100));
  ASSERT_FALSE(result);
  session->cancel();
  EXPECT_THAT(error(), HasSubstr("was stopped"));
}

TEST_F(DiscoverySessionTest, PingsAreAnswered) {
  start();
  ASSERT_TRUE(target.accept_login());
  const TextRequestPdu question = next_question();
  target.send(NopInPdu{.target_transfer_tag = 99, .numbers = target.numbers()});
  target.send(NopInPdu{.numbers = target.numbers()});
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::nop_out, pdu));
  EXPECT_EQ(decode_nop_out(pdu.bhs()).target_transfer_tag, 99U);
  answer(target, question, {"TargetName=iqn.a:b"});
  expect_logout(target);
  EXPECT_EQ(targets(), "iqn.a:b@10.0.0.1");
}

// Before the question, between the pieces of the answer, and before the logout is answered.
TEST_F(DiscoverySessionTest, WhatComesInBetweenChangesNothing) {
  struct Case {
    const char* name;
    std::function<void()> act;
  };
  const auto async = [this](AsyncEvent event, std::uint16_t limit_seconds) {
    return [this, event, limit_seconds] {
      AsyncMessagePdu message;
      message.event = event;
      message.parameter3 = limit_seconds;
      message.numbers = target.status_numbers();
      target.send(message);
    };
  };
  const auto rejects = [this](const auto& pdu, std::uint8_t reason) {
    const auto header = pdu_bytes(pdu);
    target.send(
        RejectPdu{.reason = reason, .data_bytes = kBhsBytes, .numbers = target.status_numbers()},
        header);
  };
  const Case cases[] = {
      {"a ping",
       [this] { target.send(NopInPdu{.target_transfer_tag = 99, .numbers = target.numbers()}); }},
      {"a NOP-In for its numbers", [this] { target.send(NopInPdu{.numbers = target.numbers()}); }},
      {"a SCSI event", async(AsyncEvent::scsi_event, 0)},
      {"a request to log out", async(AsyncEvent::logout_request, 10)},
      {"a request for new parameters", async(AsyncEvent::negotiation_request, 10)},
      {"a vendor's event", async(static_cast<AsyncEvent>(0xff), 0)},
      {"a Reject of our answer to a ping",
       [rejects] { rejects(NopOutPdu{.target_transfer_tag = 99}, 0x04); }},
      {"a Reject of too many of our answers to pings",
       [rejects] { rejects(NopOutPdu{.target_transfer_tag = 99}, 0x06); }},
  };
  for (const Case& one : cases) {
    for (const int place : {0, 1, 2}) {
      start();
      ASSERT_TRUE(target.accept_login()) << one.name;
      const auto here = [&](int now) {
        if (place == now) {
          one.act();
          target.send(NopInPdu{.target_transfer_tag = 98, .numbers = target.numbers()});
          reactor.run_for(milliseconds(5));
          ASSERT_FALSE(target.received.empty()) << one.name;
          const NopOutPdu pong = decode_nop_out(target.received.back().bhs());
          EXPECT_EQ(pong.target_transfer_tag, 98U) << one.name;
          EXPECT_EQ(pong.exp_stat_sn, target.stat_sn) << one.name << " " << place;
          std::erase_if(target.received, [](const ReceivedPdu& pdu) {
            return pdu.header.opcode == Opcode::nop_out;
          });
        }
      };
      TextRequestPdu question = next_question();
      here(0);
      answer(target, question, {"TargetName=iqn.a:b"}, false, false, 77);
      question = next_question();
      EXPECT_EQ(question.exp_stat_sn, target.stat_sn) << one.name;
      here(1);
      answer(target, question, {"TargetName=iqn.a:c"});
      ReceivedPdu logout;
      ASSERT_TRUE(target.next(Opcode::logout_request, logout)) << one.name << " " << place;
      EXPECT_EQ(decode_logout_request(logout.bhs()).exp_stat_sn, target.stat_sn) << one.name;
      here(2);
      EXPECT_EQ(targets(), "iqn.a:b@10.0.0.1 iqn.a:c@10.0.0.1") << one.name << " " << place;
      target.received.clear();
    }
  }
}

// Wherever the target cuts its answer, with the C bit or without it, with F or without.
TEST_F(DiscoverySessionTest, AnAnswerMayBeCutAnywhere) {
  const std::vector<std::byte> whole =
      text_bytes({"TargetName=iqn.a:b", "TargetAddress=[2001:db8::1]:3260,1", "TargetName=iqn.a:b",
                  "TargetAddress=192.0.2.2", "TargetName=iqn.a:d"});
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    const auto middle = whole.begin() + static_cast<std::ptrdiff_t>(cut);
    const bool more = cut % 2 == 0;
    start();
    ASSERT_TRUE(target.accept_login());
    send_text(target, next_question(), {whole.begin(), middle}, more && cut % 4 == 0, more, 77);
    send_text(target, next_question(), {middle, whole.end()}, true, false, kReservedTag);
    expect_logout(target);
    EXPECT_EQ(targets(), "iqn.a:b@2001:db8::1 iqn.a:d@10.0.0.1") << cut;
    EXPECT_EQ((*result)->targets.front().portals.size(), 2U) << cut;
    EXPECT_EQ((*result)->left_out, "") << cut;
  }
}

TEST_F(DiscoverySessionTest, HasDigests) {
  options.header_digest = options.data_digest = DigestOffer::crc32c_or_none;
  start();
  ASSERT_TRUE(target.accept_login({{"HeaderDigest", "CRC32C"}, {"DataDigest", "CRC32C"}}));
  answer(target, next_question(), {"TargetName=iqn.a:b", "TargetAddress=192.0.2.1,1"});
  expect_logout(target);
  EXPECT_EQ(targets(), "iqn.a:b@192.0.2.1");
  EXPECT_EQ(target.digest_errors, 0);
}

TEST_F(DiscoverySessionTest, ADigestThatIsWrongEndsIt) {
  options.header_digest = options.data_digest = DigestOffer::crc32c_or_none;
  for (const bool header : {true, false}) {
    start();
    ASSERT_TRUE(target.accept_login({{"HeaderDigest", "CRC32C"}, {"DataDigest", "CRC32C"}}));
    const TextRequestPdu question = next_question();
    const auto data = text_bytes({"TargetName=iqn.a:b"});
    auto bytes = pdu_bytes(TextResponsePdu{.final = true,
                                           .data_bytes = static_cast<std::uint32_t>(data.size()),
                                           .initiator_task_tag = question.initiator_task_tag,
                                           .numbers = target.status_numbers()},
                           data, target.digests);
    bytes[header ? 47 : 55] ^= std::byte{1};
    target.send_bytes(bytes);
    EXPECT_THAT(error(), HasSubstr(header ? "wrong header digest" : "wrong data digest"));
  }
}

// Every binary field, in every spelling that the RFC has.
TEST_F(DiscoverySessionTest, ChapInEverySpelling) {
  const std::vector<std::byte> challenge = {std::byte{0xab}, std::byte{0xcd}, std::byte{0xef}};
  const auto expected = chap_response(ChapAlgorithm::sha1, 0x1f, "discovery-secret", challenge);
  options.chap.username = "finder";
  options.chap.password = "discovery-secret";
  for (const char* spelling :
       {"0xabcdef", "0XABCDEF", "0xABcdEF", "0Xabcdef", "0bq83v", "0Bq83v"}) {
    for (const char* identifier : {"31", "0x1f", "0X1F"}) {
      start();
      answer_login(next_login_request(), {"AuthMethod=CHAP"}, false);
      const LoginRequestPdu offer = next_login_request();
      EXPECT_STREQ(text.c_str(), "CHAP_A=8,7,6,5");
      answer_login(
          offer,
          {"CHAP_A=6", std::string("CHAP_I=") + identifier, std::string("CHAP_C=") + spelling},
          false);
      const LoginRequestPdu proof = next_login_request();
      const std::size_t at = text.find("CHAP_R=") + 7;
      EXPECT_EQ(parse_large_binary(text.substr(at, text.find('\0', at) - at), 32), expected)
          << spelling;
      answer_login(proof, {}, true);
      answer_login(next_login_request(), {}, true);
      answer(target, next_question(), {"TargetName=iqn.a:b"});
      expect_logout(target);
      EXPECT_EQ(targets(), "iqn.a:b@10.0.0.1") << spelling;
    }
  }
}

// tgt means SHA-1 by 7; the next question begins with what has worked.
TEST_F(DiscoverySessionTest, ClimbsTheLadderOfChapAlgorithms) {
  options.chap.username = "finder";
  options.chap.password = "discovery-secret";
  for (const bool again : {false, true}) {
    start();
    if (!again) {
      answer_login(next_login_request(), {"AuthMethod=CHAP"}, false);
      const LoginRequestPdu offer = next_login_request();
      EXPECT_STREQ(text.c_str(), "CHAP_A=8,7,6,5");
      answer_login(offer, {"CHAP_A=7", "CHAP_I=1", "CHAP_C=0x01"}, false);
      answer_login(next_login_request(), {}, false, 0x0200);
    }
    answer_login(next_login_request(), {"AuthMethod=CHAP"}, false);
    const LoginRequestPdu offer = next_login_request();
    EXPECT_STREQ(text.c_str(), "CHAP_A=8,6,5");
    answer_login(offer, {"CHAP_A=5", "CHAP_I=1", "CHAP_C=0x01"}, false);
    answer_login(next_login_request(), {}, true);
    answer_login(next_login_request(), {}, true);
    answer(target, next_question(), {"TargetName=iqn.a:b"});
    expect_logout(target);
    EXPECT_EQ(targets(), "iqn.a:b@10.0.0.1");
  }
}

TEST_F(DiscoverySessionTest, AWrongSecretEndsItWithASentenceThatNamesTheOptionsOfDiscovery) {
  options.chap.username = "finder";
  options.chap.password = "discovery-secret";
  start();
  for (const char* algorithm : {"8", "7", "6", "5"}) {
    answer_login(next_login_request(), {"AuthMethod=CHAP"}, false);
    answer_login(next_login_request(),
                 {std::string("CHAP_A=") + algorithm, "CHAP_I=1", "CHAP_C=0x01"}, false);
    answer_login(next_login_request(), {}, false, 0x0201);
  }
  const std::string sentence = error();
  EXPECT_THAT(sentence, HasSubstr("discovery at san1:3260 failed: 10.0.0.1:3260: the login failed: "
                                  "authentication failed"));
  EXPECT_THAT(sentence, HasSubstr("discovery.sendtargets.auth.username"));
  EXPECT_THAT(sentence, HasSubstr("(CHAP with SHA3-256)"));
  EXPECT_THAT(sentence, Not(HasSubstr("discovery-secret")));
}

TEST_F(DiscoverySessionTest, RedirectsAreFollowed) {
  for (const char* to : {"10.0.0.2:3260,1", "10.0.0.2", "san2.example:3260"}) {
    ScriptedTarget other(reactor, test_address(2));
    resolver.addresses = {test_address(4), test_address(2)};
    start();
    answer_login(next_login_request(), {std::string("TargetAddress=") + to}, true, 0x0101);
    play(other, {"TargetName=iqn.a:b"});
    EXPECT_EQ(targets(), "iqn.a:b@10.0.0.2") << to;
  }
}

TEST_F(DiscoverySessionTest, RedirectsThatLeadNowhereEndIt) {
  start();
  for (int hop = 0; hop <= 10; ++hop) {
    answer_login(next_login_request(), {"TargetAddress=10.0.0.1"}, true, 0x0101);
  }
  EXPECT_THAT(error(), HasSubstr("circle"));
  start();
  answer_login(next_login_request(), {"TargetAddress=10.0.0.1:0"}, true, 0x0101);
  EXPECT_THAT(error(), HasSubstr("redirects to nowhere"));
  start();
  answer_login(next_login_request(), {"TargetAddress=silent.example"}, true, 0x0101);
  EXPECT_THAT(error(), HasSubstr("in time while looking up"));
}

TEST_F(DiscoverySessionTest, WhereNoAddressOfARedirectAnswersThePortalsNextOneIsTried) {
  ScriptedTarget other(reactor, test_address(2));
  options.addresses = {test_address(1), test_address(2)};
  resolver.addresses = {test_address(4), test_address(5)};
  start();
  answer_login(next_login_request(), {"TargetAddress=san2.example"}, true, 0x0101);
  play(other, {"TargetName=iqn.a:b"});
  EXPECT_EQ(targets(), "iqn.a:b@10.0.0.2");
}

TEST_F(DiscoverySessionTest, RedirectsOfManyAddressesHaveAnEnd) {
  options.addresses.assign(20, test_address(1));
  start();
  for (int login = 0; login < 64; ++login) {
    ASSERT_FALSE(result) << login;
    answer_login(next_login_request(), {"TargetAddress=10.0.0.1"}, true, 0x0101);
  }
  EXPECT_THAT(error(), HasSubstr("failed: 10.0.0.1:3260: it redirects in a circle"));
}

TEST_F(DiscoverySessionTest, EachAddressIsTried) {
  options.addresses = {test_address(4), test_address(5), test_address(1)};
  start();
  play(target, {"TargetName=iqn.a:b"});
  EXPECT_EQ(targets(), "iqn.a:b@10.0.0.1");
  // One whose login fails is not the end either.
  ScriptedTarget other(reactor, test_address(2));
  options.addresses = {test_address(1), test_address(2)};
  start();
  answer_login(next_login_request(), {}, true, 0x0301);
  play(other, {"TargetName=iqn.a:c"});
  EXPECT_EQ(targets(), "iqn.a:c@10.0.0.2");
  options.addresses = {test_address(4), test_address(5)};
  start();
  const std::string sentence = error();
  EXPECT_THAT(sentence, HasSubstr("discovery at san1:3260 failed: "));
  EXPECT_THAT(sentence, HasSubstr("10.0.0.4:3260: Connection refused"));
  EXPECT_THAT(sentence, HasSubstr("10.0.0.5:3260: Connection refused"));
  EXPECT_EQ(result->error().code, ErrorCode::unavailable);
}

TEST_F(DiscoverySessionTest, WhatEndsItIsSaid) {
  struct Case {
    const char* sentence;
    std::function<void(const TextRequestPdu& question)> act;
  };
  const Case cases[] = {
      {"reset", [this](const auto&) { target.reset(); }},
      {"10.0.0.1:3260", [this](const auto&) { target.finish(); }},
      {"in time while asking for its targets", [](const auto&) {}},
      {"answers SendTargets=All with Reject",
       [this](const auto& q) { answer(target, q, {"SendTargets=Reject"}); }},
      {"rejects the question (reason 0x04)",
       [this](const auto&) {
         target.send(RejectPdu{.reason = 4, .numbers = target.status_numbers()});
       }},
      {"rejects the question (reason 0x05)",
       [this](const auto& q) {
         target.send(
             RejectPdu{.reason = 5, .data_bytes = kBhsBytes, .numbers = target.status_numbers()},
             pdu_bytes(q));
       }},
      {"a question that was not asked",
       [this](const auto&) {
         answer(target, TextRequestPdu{.initiator_task_tag = 5}, {"TargetName=iqn.a:b"});
       }},
      {"unexpected SCSI Response",
       [this](const auto&) { target.send(ScsiResponsePdu{.numbers = target.status_numbers()}); }},
      {"more data than MaxRecvDataSegmentLength",
       [this](const auto& q) {
         std::vector<std::byte> bytes(262145, std::byte{'x'});
         send_text(target, q, bytes, true, false, kReservedTag);
       }},
      {"more pings",
       [this](const auto&) {
         for (int ping = 0; ping < 100; ++ping) {
           target.send(NopInPdu{.target_transfer_tag = 9, .numbers = target.numbers()});
         }
       }},
  };
  for (const Case& one : cases) {
    start();
    ASSERT_TRUE(target.accept_login()) << one.sentence;
    one.act(next_question());
    EXPECT_THAT(error(), HasSubstr(one.sentence));
    EXPECT_THAT(error(), HasSubstr("discovery at san1:3260"));
  }
}

TEST_F(DiscoverySessionTest, ItsTimeIsThatOfEverythingTogether) {
  reactor.network().set_dropping(test_address(1), true);
  options.addresses.assign(8, test_address(1));
  options.timeout = seconds(5);
  const TimePoint begin = reactor.now();
  start();
  EXPECT_THAT(error(), HasSubstr("in time while connecting"));
  EXPECT_EQ(result->error().code, ErrorCode::timed_out);
  EXPECT_LE(reactor.now() - begin, Duration{seconds(5)} + Duration{milliseconds(1)});
}

TEST_F(DiscoverySessionTest, AnAnswerWithoutEndHasAnEnd) {
  start();
  ASSERT_TRUE(target.accept_login());
  const std::vector<std::byte> piece(262144, std::byte{'x'});
  for (std::size_t bytes = 0; bytes < SendTargetsAnswer::kMaxTextBytes; bytes += piece.size()) {
    send_text(target, next_question(), piece, false, true, 77);
  }
  expect_logout(target);
  EXPECT_EQ(targets(), "");
  EXPECT_THAT((*result)->left_out, HasSubstr("16 MiB"));
}

TEST_F(DiscoverySessionTest, MayBeCancelledAtAnyTime) {
  for (int phase = 0; phase < 5; ++phase) {
    start();
    if (phase >= 1) {
      reactor.run_for(milliseconds(phase));
    }
    if (phase == 3) {
      ASSERT_TRUE(target.accept_login());
    }
    if (phase == 4) {
      answer_login(next_login_request(), {"TargetAddress=silent.example"}, true, 0x0101);
      reactor.run_for(milliseconds(10));
    }
    session->cancel();
    EXPECT_THAT(error(), HasSubstr("stopped")) << phase;
    target.received.clear();
  }
}

}  // namespace
}  // namespace iscsi_blkback
