// A session that logs in with CHAP: what it offers after a login that failed, what the sentence
// says then, and what the next session to the same target begins with.
#include <gmock/gmock.h>

#include "tests/initiator/session/session_fixture.h"
#include "tests/support/scripted_target.h"

namespace iscsi_blkback {
namespace {

using ::testing::HasSubstr;

class SessionChapTest : public ::testing::Test {
 protected:
  SessionChapTest() { initiator = session_to(1); }
  std::unique_ptr<TestSession> session_to(int portal, std::vector<ChapAlgorithm> algorithms = {}) {
    SessionOptions options = test_session_options(portal);
    options.chap.username = "host1";
    options.chap.password = "initiator-secret";
    options.chap.algorithms = std::move(algorithms);
    return std::make_unique<TestSession>(reactor, options, memory);
  }
  void answer(const LoginRequestPdu& request, const std::vector<std::string>& pairs, bool transit,
              std::uint16_t status = 0) {
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
  LoginRequestPdu next_request() {
    ReceivedPdu pdu;
    EXPECT_TRUE(target.next(Opcode::login_request, pdu));
    text.assign(reinterpret_cast<const char*>(pdu.data().data()), pdu.data().size());
    return decode_login_request(pdu.bhs());
  }
  // The security stage up to the target's verdict, for a target that chooses this algorithm.
  // Returns what was offered.
  std::string authenticate(ChapAlgorithm algorithm, std::uint16_t verdict) {
    answer(next_request(), {"AuthMethod=CHAP", "TargetPortalGroupTag=1"}, false);
    const LoginRequestPdu offer = next_request();
    const std::string offered = text.substr(0, text.find('\0'));
    answer(offer,
           {"CHAP_A=" + std::to_string(static_cast<unsigned>(algorithm)), "CHAP_I=1",
            "CHAP_C=0x0123456789abcdef"},
           false);
    const LoginRequestPdu proof = next_request();
    EXPECT_THAT(text, HasSubstr("CHAP_R=0x"));
    answer(proof, {}, verdict == 0, verdict);
    return offered;
  }
  void finish_login() { answer(next_request(), {}, true); }
  [[nodiscard]] bool fails(std::uint64_t times) {
    return runs_until(reactor,
                      [&] { return initiator->session.statistics().login_failures == times; });
  }

  // A login up to the offer, and what it offers; the target says this to it, or hangs up.
  std::string offer_and(const std::vector<std::string>& pairs, std::uint16_t status = 0,
                        bool hangs_up = false) {
    answer(next_request(), {"AuthMethod=CHAP"}, false);
    const LoginRequestPdu offer = next_request();
    const std::string offered = text.substr(0, text.find('\0'));
    if (hangs_up) {
      target.reset();
    } else {
      answer(offer, pairs, false, status);
    }
    return offered;
  }

  SimReactor reactor{1};
  ChapMemory memory;
  ScriptedTarget target{reactor, test_address(1)};
  std::unique_ptr<TestSession> initiator;
  std::string text;
};

TEST_F(SessionChapTest, AnAlgorithmThatFailedIsLeftOutNextTime) {
  initiator->session.start();
  EXPECT_EQ(authenticate(ChapAlgorithm::sha256, 0x0200), "CHAP_A=8,7,6,5");
  ASSERT_TRUE(fails(1));
  EXPECT_EQ(authenticate(ChapAlgorithm::md5, 0), "CHAP_A=8,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
  // What has worked is not tried out again.
  target.reset();
  EXPECT_EQ(authenticate(ChapAlgorithm::md5, 0), "CHAP_A=8,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
}

TEST_F(SessionChapTest, WhenAllHaveFailedAllAreOfferedAgain) {
  initiator->session.start();
  std::uint64_t failures = 0;
  for (const ChapAlgorithm algorithm :
       {ChapAlgorithm::sha3_256, ChapAlgorithm::sha256, ChapAlgorithm::sha1, ChapAlgorithm::md5}) {
    static_cast<void>(authenticate(algorithm, 0x0201));
    ASSERT_TRUE(fails(++failures));
  }
  EXPECT_EQ(authenticate(ChapAlgorithm::sha3_256, 0), "CHAP_A=8,7,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
}

// Once may be the network's fault.
TEST_F(SessionChapTest, ATargetThatHangsUpTwiceAtOurAnswerIsTriedWithoutThatAlgorithm) {
  initiator->session.start();
  for (std::uint64_t time = 1; time <= 2; ++time) {
    EXPECT_EQ(offer_and({"CHAP_A=8", "CHAP_I=1", "CHAP_C=0x01"}), "CHAP_A=8,7,6,5");
    static_cast<void>(next_request());
    target.reset();
    ASSERT_TRUE(fails(time));
    EXPECT_THAT(initiator->session.last_error().message,
                HasSubstr("(of chap_algs = SHA3-256,SHA256,SHA1,MD5 the target had chosen "
                          "SHA3-256)"));
  }
  EXPECT_EQ(authenticate(ChapAlgorithm::sha256, 0), "CHAP_A=7,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
}

TEST_F(SessionChapTest, OneLoginThatWasLostInTheMiddleBlamesNoAlgorithm) {
  initiator->session.start();
  static_cast<void>(offer_and({"CHAP_A=5", "CHAP_I=1", "CHAP_C=0x01"}));
  static_cast<void>(next_request());
  target.reset();
  ASSERT_TRUE(fails(1));
  EXPECT_EQ(authenticate(ChapAlgorithm::md5, 0), "CHAP_A=8,7,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
  EXPECT_FALSE(memory.recall("iqn.2026-01.test:target", reactor.now()));
}

// Connections to a target that can do only one were lost, and it is come back to.
TEST_F(SessionChapTest, AfterLostLoginsATargetOfOneAlgorithmIsComeBackTo) {
  initiator->session.start();
  for (std::uint64_t time = 1; time <= 2; ++time) {
    static_cast<void>(offer_and({"CHAP_A=5", "CHAP_I=1", "CHAP_C=0x01"}));
    static_cast<void>(next_request());
    target.reset();
    ASSERT_TRUE(fails(time));
  }
  EXPECT_EQ(offer_and({}, 0x0201), "CHAP_A=8,7,6");
  ASSERT_TRUE(fails(3));
  EXPECT_EQ(authenticate(ChapAlgorithm::md5, 0), "CHAP_A=8,7,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
}

// The target could not do it just now; its next answer may be another one.
TEST_F(SessionChapTest, ATargetWithoutResourcesBlamesNoAlgorithm) {
  initiator->session.start();
  static_cast<void>(authenticate(ChapAlgorithm::sha3_256, 0x0302));
  ASSERT_TRUE(fails(1));
  EXPECT_EQ(authenticate(ChapAlgorithm::sha3_256, 0), "CHAP_A=8,7,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
}

TEST_F(SessionChapTest, ATargetThatTakesTheListForOneValueIsOfferedMd5Alone) {
  struct Way {
    const char* name;
    std::vector<std::string> pairs;
    std::uint16_t status = 0;
    int hangs_up = 0;
  };
  for (const Way& way :
       {Way{"Reject", {"CHAP_A=Reject"}}, Way{"NotUnderstood", {"CHAP_A=NotUnderstood"}},
        Way{"authentication failure", {}, 0x0201}, Way{"initiator error", {}, 0x0200},
        Way{"None", {"CHAP_A=None"}},
        Way{"the list itself", {"CHAP_A=8,7,6,5", "CHAP_I=1", "CHAP_C=0x01"}},
        Way{"another number", {"CHAP_A=9", "CHAP_I=1", "CHAP_C=0x01"}}, Way{"nothing", {}},
        Way{"hangs up", {}, 0, 2}}) {
    memory.remember("iqn.2026-01.test:target", std::nullopt, reactor.now());
    initiator = session_to(1);
    target.received.clear();
    initiator->session.start();
    for (int time = 0; time < std::max(way.hangs_up, 1); ++time) {
      EXPECT_EQ(offer_and(way.pairs, way.status, way.hangs_up != 0), "CHAP_A=8,7,6,5") << way.name;
      ASSERT_TRUE(fails(static_cast<std::uint64_t>(time) + 1)) << way.name;
    }
    EXPECT_THAT(initiator->session.last_error().message, HasSubstr("chap_algs")) << way.name;
    EXPECT_EQ(authenticate(ChapAlgorithm::md5, 0), "CHAP_A=5") << way.name;
    finish_login();
    ASSERT_TRUE(initiator->up()) << way.name;
    target.reset();
    EXPECT_EQ(authenticate(ChapAlgorithm::md5, 0), "CHAP_A=5") << way.name;
    finish_login();
    ASSERT_TRUE(initiator->up()) << way.name;
  }
}

TEST_F(SessionChapTest, WhatHasWorkedIsWhatTheNextSessionToTheTargetBeginsWith) {
  initiator->session.start();
  static_cast<void>(authenticate(ChapAlgorithm::sha256, 0x0200));
  ASSERT_TRUE(fails(1));
  static_cast<void>(authenticate(ChapAlgorithm::md5, 0));
  finish_login();
  ASSERT_TRUE(initiator->up());
  // By the same path, and by one where chap_algs allows less.
  initiator = session_to(1);
  target.received.clear();
  initiator->session.start();
  EXPECT_EQ(authenticate(ChapAlgorithm::md5, 0), "CHAP_A=8,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
  initiator = session_to(1, {ChapAlgorithm::sha256, ChapAlgorithm::md5});
  target.received.clear();
  initiator->session.start();
  EXPECT_EQ(authenticate(ChapAlgorithm::md5, 0), "CHAP_A=5");
  finish_login();
  ASSERT_TRUE(initiator->up());
}

TEST_F(SessionChapTest, OtherOffersFollowAtOnce) {
  initiator->session.start();
  static_cast<void>(authenticate(ChapAlgorithm::sha3_256, 0x0201));
  const TimePoint first = reactor.now();
  static_cast<void>(authenticate(ChapAlgorithm::sha256, 0x0201));
  static_cast<void>(authenticate(ChapAlgorithm::sha1, 0x0201));
  static_cast<void>(authenticate(ChapAlgorithm::md5, 0x0201));
  EXPECT_LT(reactor.now() - first, 4 * initiator->session.options().relogin_backoff_min);
}

// The sentence of a ladder that has come to its end is the one that says what to compare.
TEST_F(SessionChapTest, AWrongSecretIsSaidSoWhateverIsOffered) {
  initiator->session.start();
  static_cast<void>(authenticate(ChapAlgorithm::sha256, 0x0200));
  ASSERT_TRUE(fails(1));
  static_cast<void>(authenticate(ChapAlgorithm::md5, 0x0201));
  ASSERT_TRUE(fails(2));
  EXPECT_EQ(offer_and({"CHAP_A=Reject"}), "CHAP_A=8,6");
  ASSERT_TRUE(fails(3));
  EXPECT_THAT(initiator->session.last_error().message,
              ::testing::EndsWith("authentication failed: compare username and password with the "
                                  "CHAP user and secret on the target (CHAP with MD5)"));
  EXPECT_EQ(authenticate(ChapAlgorithm::md5, 0), "CHAP_A=8,7,6,5");
}

// What the target said of the others does not make it a target that breaks a rule.
TEST_F(SessionChapTest, AWrongSecretIsAllThatIsSaidHoweverOftenTheRestFails) {
  initiator->session.start();
  for (std::uint64_t round = 0; round < 3; ++round) {
    static_cast<void>(authenticate(ChapAlgorithm::sha3_256, 0x0201));
    static_cast<void>(authenticate(ChapAlgorithm::sha256, 0x0200));
    static_cast<void>(authenticate(ChapAlgorithm::sha1, 0x0200));
    static_cast<void>(authenticate(ChapAlgorithm::md5, 0x0200));
    ASSERT_TRUE(fails(4 * round + 4));
    EXPECT_THAT(initiator->session.last_error().message,
                ::testing::EndsWith("secret on the target (CHAP with SHA3-256)"));
  }
}

// Another one may be what the target wants.
TEST_F(SessionChapTest, AWrongSecretIsSaidWithTheAlgorithmsThatWereChosenHere) {
  initiator = session_to(1, {ChapAlgorithm::md5});
  initiator->session.start();
  static_cast<void>(authenticate(ChapAlgorithm::md5, 0x0201));
  ASSERT_TRUE(fails(1));
  EXPECT_THAT(initiator->session.last_error().message,
              HasSubstr("(of chap_algs = MD5 the target had chosen MD5)"));
}

TEST_F(SessionChapTest, AFailureAfterAuthenticationBlamesNoAlgorithm) {
  initiator->session.start();
  static_cast<void>(authenticate(ChapAlgorithm::sha3_256, 0));
  answer(next_request(), {}, false, 0x0302);
  ASSERT_TRUE(fails(1));
  EXPECT_EQ(authenticate(ChapAlgorithm::sha3_256, 0), "CHAP_A=8,7,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
}

}  // namespace
}  // namespace iscsi_blkback
