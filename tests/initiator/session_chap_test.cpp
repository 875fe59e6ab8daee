// A session that logs in with CHAP: what it offers after a login that failed.
#include <gmock/gmock.h>

#include "tests/initiator/session_fixture.h"
#include "tests/support/scripted_target.h"

namespace iscsi_blkback {
namespace {

using ::testing::HasSubstr;

class SessionChapTest : public ::testing::Test {
 protected:
  SessionChapTest() {
    SessionOptions options = test_session_options();
    options.chap.username = "host1";
    options.chap.password = "initiator-secret";
    initiator = std::make_unique<TestSession>(reactor, options);
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

  SimReactor reactor{1};
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

TEST_F(SessionChapTest, ATargetThatHangsUpAtOurAnswerIsTriedWithoutThatAlgorithm) {
  initiator->session.start();
  answer(next_request(), {"AuthMethod=CHAP"}, false);
  answer(next_request(), {"CHAP_A=8", "CHAP_I=1", "CHAP_C=0x01"}, false);
  static_cast<void>(next_request());
  target.reset();
  ASSERT_TRUE(fails(1));
  EXPECT_EQ(authenticate(ChapAlgorithm::sha256, 0), "CHAP_A=7,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
}

// The connection to a target that can do only one was lost after it had chosen that one.
TEST_F(SessionChapTest, AfterALoginThatWasLostInTheMiddleATargetOfOneAlgorithmIsComeBackTo) {
  initiator->session.start();
  answer(next_request(), {"AuthMethod=CHAP"}, false);
  answer(next_request(), {"CHAP_A=5", "CHAP_I=1", "CHAP_C=0x01"}, false);
  static_cast<void>(next_request());
  target.reset();
  ASSERT_TRUE(fails(1));
  answer(next_request(), {"AuthMethod=CHAP"}, false);
  const LoginRequestPdu offer = next_request();
  EXPECT_STREQ(text.c_str(), "CHAP_A=8,7,6");
  answer(offer, {}, false, 0x0201);
  ASSERT_TRUE(fails(2));
  EXPECT_EQ(authenticate(ChapAlgorithm::md5, 0), "CHAP_A=8,7,6,5");
  finish_login();
  ASSERT_TRUE(initiator->up());
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
