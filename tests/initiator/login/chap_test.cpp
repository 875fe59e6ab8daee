// CHAP: the hash, the encodings, what the exchange says and everything that it refuses; then the
// same within a login.
#include "initiator/login/chap.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "initiator/login/login.h"
#include "tests/support/scripted_target.h"

namespace iscsi_blkback {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kSecret = "initiator-secret";
constexpr const char* kTargetSecret = "the-target-secret";

ChapOptions one_way() {
  ChapOptions options;
  options.username = "host1";
  options.password = kSecret;
  return options;
}

ChapOptions mutual() {
  ChapOptions options = one_way();
  options.username_in = "array";
  options.password_in = kTargetSecret;
  return options;
}

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) {
    bytes.push_back(static_cast<std::byte>(value));
  }
  return bytes;
}

std::string hex(std::span<const std::byte> bytes) {
  std::string text = "0x";
  for (const std::byte byte : bytes) {
    text += fmt::format("{:02X}", std::to_integer<unsigned>(byte));
  }
  return text;
}

std::string value_of(const std::string& text, std::string_view key) {
  const auto pairs = parse_login_text(text);
  for (const TextPair& pair : *pairs) {
    if (pair.key == key) {
      return std::string(pair.value);
    }
  }
  return "(none)";
}

TEST(Chap, HashesIdentifierSecretAndChallenge) {
  // By sha1sum and its like, over the byte 1, "secret secret" and the byte 2.
  const auto challenge = bytes_of({2});
  EXPECT_EQ(hex(chap_response(ChapAlgorithm::md5, 1, "secret secret", challenge)),
            "0xAF5197D1A958FBB0097DD1694B92B77D");
  EXPECT_EQ(hex(chap_response(ChapAlgorithm::sha1, 1, "secret secret", challenge)),
            "0x76D976A96C5435532B679909F412D48B801B8B1F");
  EXPECT_EQ(hex(chap_response(ChapAlgorithm::sha256, 1, "secret secret", challenge)),
            "0xBBC37A765A56A231E454A785001EEAAE31C75AF7571C45427E148C002A49B315");
  EXPECT_EQ(hex(chap_response(ChapAlgorithm::sha3_256, 1, "secret secret", challenge)),
            "0xAF55A357DB2B09E65B0C805801DED035E77E850D719E773883D838C2E62F46FA");
}

TEST(Chap, AlgorithmsHaveTheNamesOfIscsidConf) {
  for (const char* name : {"MD5", "SHA1", "SHA256", "SHA3-256"}) {
    const auto algorithm = parse_chap_algorithm(name);
    ASSERT_TRUE(algorithm) << name;
    EXPECT_EQ(to_string(*algorithm), name);
  }
  EXPECT_FALSE(parse_chap_algorithm("MD4"));
}

TEST(LargeBinary, ReadsHexadecimalAndBase64) {
  EXPECT_EQ(parse_large_binary("0x00fF10", 3), bytes_of({0, 255, 16}));
  EXPECT_EQ(parse_large_binary("0XABC", 3), bytes_of({0x0a, 0xbc})) << "a leading zero is missing";
  EXPECT_EQ(parse_large_binary("0bAP8Q", 3), bytes_of({0, 255, 16}));
  EXPECT_EQ(parse_large_binary("0BAP8=", 3), bytes_of({0, 255}));
  EXPECT_EQ(parse_large_binary("0bAA==", 3), bytes_of({0}));
  EXPECT_EQ(parse_large_binary("0bAP8", 3), bytes_of({0, 255})) << "without padding";
}

TEST(LargeBinary, RefusesWhatIsNone) {
  for (const char* text : {"", "0", "0x", "0b", "00ff", "x00", "0xfg", "0x ff",
                           "0b====", "0bA===", "0bA", "0bAP=Q", "0bA*==", "0bAAAAA", "ff"}) {
    EXPECT_FALSE(parse_large_binary(text, 100)) << text;
  }
}

TEST(LargeBinary, RefusesMoreThanTheBound) {
  EXPECT_TRUE(parse_large_binary("0x" + std::string(2048, 'a'), 1024));
  EXPECT_FALSE(parse_large_binary("0x" + std::string(2049, 'a'), 1024));
  EXPECT_FALSE(parse_large_binary("0x" + std::string(2050, 'a'), 1024));
  EXPECT_TRUE(parse_large_binary("0b" + std::string(1364, 'A'), 1024));
  EXPECT_FALSE(parse_large_binary("0b" + std::string(1368, 'A'), 1024));
}

TEST(ChapOptions, RefusesSecretOfLessThan96Bits) {
  ChapOptions options = mutual();
  options.password = "12345678901";
  const auto checked = check_chap_options(options);
  ASSERT_FALSE(checked);
  EXPECT_THAT(checked.error().message, HasSubstr("password must have 12"));
  EXPECT_THAT(checked.error().message, Not(HasSubstr("12345678901")));
  options = mutual();
  options.password_in = "12345678901";
  EXPECT_FALSE(check_chap_options(options));
}
TEST(ChapOptions, RefusesSecretThatIsTooLong) {
  ChapOptions options = one_way();
  options.password = std::string(255, 'x');
  EXPECT_TRUE(check_chap_options(options));
  options.password = std::string(256, 'x');
  EXPECT_FALSE(check_chap_options(options));
}
TEST(ChapOptions, RefusesOneSecretForBothDirections) {
  ChapOptions options = mutual();
  options.password_in = options.password;
  const auto checked = check_chap_options(options);
  ASSERT_FALSE(checked);
  EXPECT_THAT(checked.error().message, HasSubstr("must not be the same"));
}
TEST(ChapOptions, RefusesSecretWithoutItsName) {
  ChapOptions options;
  options.password = kSecret;
  EXPECT_FALSE(check_chap_options(options));
  options = one_way();
  options.password_in = kTargetSecret;
  EXPECT_FALSE(check_chap_options(options));
}
TEST(ChapOptions, RefusesNameWithoutItsSecret) {
  ChapOptions options = one_way();
  options.password.clear();
  auto checked = check_chap_options(options);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().message, "username is set, and there is no password for it");
  options = mutual();
  options.password_in.clear();
  checked = check_chap_options(options);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().message, "username_in is set, and there is no password_in for it");
}
TEST(ChapOptions, RefusesTargetThatProvesItselfWithoutUs) {
  ChapOptions options = mutual();
  options.username.clear();
  options.password.clear();
  EXPECT_FALSE(check_chap_options(options));
}
TEST(ChapOptions, RefusesNameThatNoTextCanCarry) {
  ChapOptions options = one_way();
  options.username = "a\nb";
  EXPECT_FALSE(check_chap_options(options));
  options.username = std::string(256, 'a');
  EXPECT_FALSE(check_chap_options(options));
}
TEST(ChapOptions, NothingAtAllIsFine) {
  EXPECT_TRUE(check_chap_options({}));
}

// The target's side: takes what the initiator says, answers as a good target would.
class ChapExchangeTest : public ::testing::Test {
 protected:
  void reset() { exchange.emplace(options); }
  Result<void> say(std::initializer_list<std::pair<const char*, std::string>> pairs) {
    said.clear();
    for (const auto& [key, value] : pairs) {
      if (auto taken = exchange->take({key, value}); !taken) {
        return taken;
      }
    }
    return exchange->advance(said);
  }
  Result<void> challenge_us(ChapAlgorithm algorithm = ChapAlgorithm::sha256) {
    return say({{"CHAP_A", fmt::to_string(static_cast<unsigned>(algorithm))},
                {"CHAP_I", "7"},
                {"CHAP_C", hex(challenge)}});
  }
  [[nodiscard]] std::string answer_to_ours(ChapAlgorithm algorithm, std::string_view secret) const {
    const auto theirs = parse_large_binary(value_of(said.text(), "CHAP_C"), 1024);
    const auto identifier = parse_text_number(value_of(said.text(), "CHAP_I"), 0, 255);
    return hex(chap_response(algorithm, static_cast<std::uint8_t>(*identifier), secret, *theirs));
  }

  std::vector<std::byte> challenge = bytes_of({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});
  ChapOptions options = mutual();
  std::optional<ChapExchange> exchange{options};
  LoginText said;
};

TEST_F(ChapExchangeTest, OffersTheStrongestFirst) {
  ASSERT_TRUE(exchange->offer(said));
  EXPECT_EQ(value_of(said.text(), "CHAP_A"), "8,7,6,5");
}

TEST_F(ChapExchangeTest, OffersWhatIsAllowedOnly) {
  options.algorithms = {ChapAlgorithm::sha256, ChapAlgorithm::md5};
  reset();
  ASSERT_TRUE(exchange->offer(said));
  EXPECT_EQ(value_of(said.text(), "CHAP_A"), "7,5");
  said.clear();
  const ChapAlgorithm left = ChapAlgorithm::md5;
  exchange.emplace(options, std::span{&left, 1});
  ASSERT_TRUE(exchange->offer(said));
  EXPECT_EQ(value_of(said.text(), "CHAP_A"), "5");
  EXPECT_FALSE(challenge_us()) << "what is left out is not accepted either";
}

TEST_F(ChapExchangeTest, BothSidesProveThemselvesWithEveryAlgorithm) {
  for (const ChapAlgorithm algorithm : options.offered()) {
    reset();
    ASSERT_TRUE(challenge_us(algorithm));
    EXPECT_TRUE(exchange->answered());
    EXPECT_FALSE(exchange->complete());
    EXPECT_EQ(value_of(said.text(), "CHAP_N"), "host1");
    EXPECT_EQ(parse_large_binary(value_of(said.text(), "CHAP_R"), 64),
              chap_response(algorithm, 7, kSecret, challenge));
    ASSERT_TRUE(say({{"CHAP_N", "array"}, {"CHAP_R", answer_to_ours(algorithm, kTargetSecret)}}));
    EXPECT_TRUE(exchange->complete());
  }
}

TEST_F(ChapExchangeTest, RefusesThePartOfAnAnswer) {
  for (const std::size_t bytes : {1U, 16U, 31U}) {
    reset();
    ASSERT_TRUE(challenge_us(ChapAlgorithm::sha256));
    const std::string right = answer_to_ours(ChapAlgorithm::sha256, kTargetSecret);
    EXPECT_FALSE(say({{"CHAP_N", "array"}, {"CHAP_R", right.substr(0, 2 + 2 * bytes)}}));
    EXPECT_FALSE(exchange->complete());
  }
}

TEST_F(ChapExchangeTest, OneWayIsCompleteWithoutProofOfTheTarget) {
  options = one_way();
  ASSERT_TRUE(challenge_us());
  EXPECT_EQ(value_of(said.text(), "CHAP_C"), "(none)");
  ASSERT_TRUE(say({}));
  EXPECT_TRUE(exchange->complete());
}

TEST_F(ChapExchangeTest, NoChallengeOfOursComesTwice) {
  std::set<std::string> challenges;
  for (int i = 0; i < 50; ++i) {
    reset();
    ASSERT_TRUE(challenge_us());
    EXPECT_TRUE(challenges.insert(value_of(said.text(), "CHAP_C")).second);
  }
}

TEST_F(ChapExchangeTest, RefusesOurOwnChallenge) {
  ASSERT_TRUE(challenge_us());
  const std::string ours = value_of(said.text(), "CHAP_C");
  // On another connection, where the target does not know the answer yet.
  ChapExchange victim{options};
  for (const auto& [key, value] : std::initializer_list<std::pair<const char*, std::string>>{
           {"CHAP_A", "7"}, {"CHAP_I", "1"}, {"CHAP_C", ours}}) {
    ASSERT_TRUE(victim.take({key, value}));
  }
  const auto advanced = victim.advance(said);
  ASSERT_FALSE(advanced);
  EXPECT_THAT(advanced.error().message, HasSubstr("challenge of our own"));
}

TEST_F(ChapExchangeTest, RefusesOurOwnAnswer) {
  ASSERT_TRUE(challenge_us());
  const auto result = say({{"CHAP_N", "array"}, {"CHAP_R", value_of(said.text(), "CHAP_R")}});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("our own CHAP answer"));
}

TEST_F(ChapExchangeTest, RefusesTargetWithAnotherSecret) {
  ASSERT_TRUE(challenge_us());
  const auto result =
      say({{"CHAP_N", "array"}, {"CHAP_R", answer_to_ours(ChapAlgorithm::sha256, "guessed")}});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::permission_denied);
  EXPECT_THAT(result.error().message, Not(HasSubstr(kTargetSecret)));
}

TEST_F(ChapExchangeTest, RefusesTargetWithAnotherName) {
  ASSERT_TRUE(challenge_us());
  const auto result =
      say({{"CHAP_N", "other"}, {"CHAP_R", answer_to_ours(ChapAlgorithm::sha256, kTargetSecret)}});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("by another name than username_in"));
}

TEST_F(ChapExchangeTest, RefusesTargetThatProvesNothing) {
  ASSERT_TRUE(challenge_us());
  const auto result = say({});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("does not prove who it is"));
}

TEST_F(ChapExchangeTest, RefusesProofThatWasNotAskedFor) {
  options = one_way();
  ASSERT_TRUE(challenge_us());
  EXPECT_FALSE(say({{"CHAP_N", "array"}, {"CHAP_R", "0x00"}}));
}

TEST_F(ChapExchangeTest, RefusesSecondChallenge) {
  ASSERT_TRUE(challenge_us());
  EXPECT_FALSE(challenge_us());
}

TEST_F(ChapExchangeTest, RefusesChallengeWithAPartMissing) {
  EXPECT_FALSE(say({{"CHAP_A", "7"}, {"CHAP_C", "0x01"}}));
  EXPECT_FALSE(say({{"CHAP_I", "7"}, {"CHAP_C", "0x01"}}));
  EXPECT_FALSE(say({{"CHAP_A", "7"}, {"CHAP_I", "7"}}));
  EXPECT_FALSE(say({}));
}

// What Linux's initiator takes for the same.
TEST_F(ChapExchangeTest, ReadsEverySpellingOfAChallenge) {
  struct Case {
    const char* algorithm;
    ChapAlgorithm chosen;
    const char* identifier;
    int number;
    const char* challenge;
    std::vector<std::byte> bytes;
  };
  using enum ChapAlgorithm;
  const Case cases[] = {
      {"5", md5, "0", 0, "0x0", bytes_of({0})},
      {"05", md5, "00", 0, "0x00", bytes_of({0})},
      {"0x5", md5, "0x0", 0, "0X1", bytes_of({1})},
      {"0X05", md5, "255", 255, "0xa", bytes_of({10})},
      {"0x0008", sha3_256, "000255", 255, "0XABCDE", bytes_of({0x0a, 0xbc, 0xde})},
      {"8", sha3_256, "0xfF", 255, "0xAbCdEf", bytes_of({0xab, 0xcd, 0xef})},
      {"7", sha256, "0XFF", 255, "0bq83v", bytes_of({0xab, 0xcd, 0xef})},
      {"6", sha1, "0x00ff", 255, "0Bq83v", bytes_of({0xab, 0xcd, 0xef})},
      {"6", sha1, "7", 7, "0bq80", bytes_of({0xab, 0xcd})},
      {"6", sha1, "7", 7, "0bq80=", bytes_of({0xab, 0xcd})},
      {"6", sha1, "7", 7, "0bqw", bytes_of({0xab})},
      {"6", sha1, "7", 7, "0bqw==", bytes_of({0xab})},
      {"6", sha1, "7", 7, "0B++//", bytes_of({0xfb, 0xef, 0xff})},
      // More padding than the letters need.
      {"6", sha1, "7", 7, "0bq83v=", bytes_of({0xab, 0xcd, 0xef})},
      {"6", sha1, "7", 7, "0bq83v====", bytes_of({0xab, 0xcd, 0xef})},
      {"6", sha1, "7", 7, "0bq80==", bytes_of({0xab, 0xcd})},
      {"6", sha1, "7", 7, "0bqw=", bytes_of({0xab})},
      // A list: the first that we know.
      {"7,5", sha256, "7", 7, "0x01", bytes_of({1})},
      {"5,7", md5, "7", 7, "0x01", bytes_of({1})},
      {"9,6,5", sha1, "7", 7, "0x01", bytes_of({1})},
      {"MD5,0x5", md5, "7", 7, "0x01", bytes_of({1})},
      {",8", sha3_256, "7", 7, "0x01", bytes_of({1})},
  };
  for (const Case& one : cases) {
    reset();
    const auto answered =
        say({{"CHAP_A", one.algorithm}, {"CHAP_I", one.identifier}, {"CHAP_C", one.challenge}});
    ASSERT_TRUE(answered) << one.algorithm << " " << one.challenge << ": "
                          << answered.error().message;
    EXPECT_EQ(exchange->algorithm(), one.chosen) << one.algorithm;
    EXPECT_EQ(parse_large_binary(value_of(said.text(), "CHAP_R"), 64),
              chap_response(one.chosen, static_cast<std::uint8_t>(one.number), kSecret, one.bytes))
        << one.identifier << " " << one.challenge;
  }
}

TEST_F(ChapExchangeTest, TheOrderOfTheKeysSaysNothing) {
  std::vector<std::pair<const char*, std::string>> keys = {
      {"CHAP_A", "7"}, {"CHAP_C", hex(challenge)}, {"CHAP_I", "7"}};
  std::sort(keys.begin(), keys.end());
  do {
    reset();
    said.clear();
    for (const auto& [key, value] : keys) {
      ASSERT_TRUE(exchange->take({key, value}));
    }
    ASSERT_TRUE(exchange->advance(said));
    const std::string proof = answer_to_ours(ChapAlgorithm::sha256, kTargetSecret);
    ASSERT_TRUE(say({{"CHAP_R", proof}, {"CHAP_N", "array"}})) << keys.front().first;
  } while (std::next_permutation(keys.begin(), keys.end()));
}

TEST_F(ChapExchangeTest, ReadsEverySpellingOfAProof) {
  const auto base64 = [](std::span<const std::byte> bytes, const char* padding) {
    constexpr std::string_view kLetters =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string text;
    unsigned bits = 0;
    unsigned count = 0;
    for (const std::byte byte : bytes) {
      bits = bits << 8 | std::to_integer<unsigned>(byte);
      for (count += 8; count >= 6; count -= 6) {
        text += kLetters[bits >> (count - 6) & 63];
      }
    }
    if (count != 0) {
      text += kLetters[bits << (6 - count) & 63];
    }
    return text + padding;
  };
  for (const ChapAlgorithm algorithm : options.offered()) {
    for (int spelling = 0; spelling < 6; ++spelling) {
      reset();
      ASSERT_TRUE(challenge_us(algorithm));
      const std::string upper = answer_to_ours(algorithm, kTargetSecret).substr(2);
      const auto bytes = parse_large_binary("0x" + upper, 64).value();
      std::string lower = upper;
      std::transform(lower.begin(), lower.end(), lower.begin(),
                     [](char c) { return static_cast<char>(c | 0x20); });
      const std::string proofs[] = {"0x" + upper,
                                    "0X" + upper,
                                    "0x" + lower,
                                    "0b" + base64(bytes, ""),
                                    "0B" + base64(bytes, bytes.size() % 3 == 1 ? "==" : "="),
                                    "0b" + base64(bytes, "===")};
      const std::string& proof = proofs[spelling];
      EXPECT_TRUE(say({{"CHAP_N", "array"}, {"CHAP_R", proof}})) << proof;
      EXPECT_TRUE(exchange->complete());
    }
  }
}

TEST_F(ChapExchangeTest, RefusesAKeyThatIsGivenTwice) {
  for (const auto& [key, value] : std::initializer_list<std::pair<const char*, const char*>>{
           {"CHAP_A", "5"}, {"CHAP_I", "8"}, {"CHAP_C", "0x02"}}) {
    reset();
    EXPECT_FALSE(say({{"CHAP_A", "7"}, {"CHAP_I", "7"}, {"CHAP_C", "0x01"}, {key, value}})) << key;
  }
  reset();
  ASSERT_TRUE(challenge_us());
  const std::string proof = answer_to_ours(ChapAlgorithm::sha256, kTargetSecret);
  EXPECT_FALSE(say({{"CHAP_N", "other"}, {"CHAP_N", "array"}, {"CHAP_R", proof}}));
  reset();
  ASSERT_TRUE(challenge_us());
  EXPECT_FALSE(say({{"CHAP_N", "array"},
                    {"CHAP_R", "0x00"},
                    {"CHAP_R", answer_to_ours(ChapAlgorithm::sha256, kTargetSecret)}}));
}

struct ChapRefusal {
  const char* name;
  const char* key;
  std::string value;
};
void PrintTo(const ChapRefusal& refusal, std::ostream* out) {
  *out << refusal.name;
}
class ChapRefuses : public ::testing::TestWithParam<ChapRefusal> {};
TEST_P(ChapRefuses, Value) {
  ChapOptions options = mutual();
  options.algorithms = {ChapAlgorithm::sha256, ChapAlgorithm::md5};
  ChapExchange exchange{options};
  const auto taken = exchange.take({GetParam().key, GetParam().value});
  ASSERT_FALSE(taken);
  EXPECT_THAT(taken.error().message, HasSubstr(GetParam().key));
}
INSTANTIATE_TEST_SUITE_P(
    Chap, ChapRefuses,
    ::testing::Values(ChapRefusal{"AlgorithmNotOffered", "CHAP_A", "6"},
                      ChapRefusal{"AlgorithmThatIsNoNumber", "CHAP_A", "MD5"},
                      ChapRefusal{"AlgorithmRejected", "CHAP_A", "Reject"},
                      ChapRefusal{"ListOfAlgorithmsNotOffered", "CHAP_A", "8,6"},
                      ChapRefusal{"TheWholeOffer", "CHAP_A", "7,5"},
                      ChapRefusal{"AlgorithmThatIsEmpty", "CHAP_A", ""},
                      ChapRefusal{"AlgorithmThatIsNegative", "CHAP_A", "-5"},
                      ChapRefusal{"AlgorithmOf40Bits", "CHAP_A", "0x100000005"},
                      ChapRefusal{"IdentifierThatIsEmpty", "CHAP_I", ""},
                      ChapRefusal{"IdentifierInBase64", "CHAP_I", "0bBw=="},
                      ChapRefusal{"IdentifierInABadNumber", "CHAP_I", "0x"},
                      ChapRefusal{"ChallengeInDecimal", "CHAP_C", "17"},
                      ChapRefusal{"ChallengeOfPaddingOnly", "CHAP_C", "0b===="},
                      ChapRefusal{"ChallengeOfOneLetter", "CHAP_C", "0bA==="},
                      ChapRefusal{"ChallengeOfOtherLetters", "CHAP_C", "0bq8-_"},
                      ChapRefusal{"ChallengeWithABlank", "CHAP_C", "0x01 "},
                      ChapRefusal{"IdentifierOfTwoBytes", "CHAP_I", "256"},
                      ChapRefusal{"IdentifierThatIsNone", "CHAP_I", "-1"},
                      ChapRefusal{"ChallengeThatIsEmpty", "CHAP_C", "0x"},
                      ChapRefusal{"ChallengeThatIsTooLong", "CHAP_C",
                                  "0x" + std::string(2050, '0')},
                      ChapRefusal{"ChallengeInNoEncoding", "CHAP_C", "1234"},
                      ChapRefusal{"NameThatIsEmpty", "CHAP_N", ""},
                      ChapRefusal{"ResponseThatIsTooLong", "CHAP_R", "0x" + std::string(66, '0')},
                      ChapRefusal{"KeyThatDoesNotExist", "CHAP_X", "1"}),
    [](const auto& test) { return std::string(test.param.name); });

// A whole login with a target of the given behaviour.
class ChapLoginTest : public ::testing::Test {
 protected:
  ChapLoginTest() {
    options.initiator_name = "iqn.2026-01.test:i";
    options.target_name = "iqn.2026-01.test:t";
    options.chap = mutual();
  }
  LoginRequestPdu ask() {
    std::vector<std::byte> bytes;
    login.next_request(bytes);
    const auto request = decode_login_request(BhsBytes{bytes.data(), kBhsBytes});
    text.assign(reinterpret_cast<const char*>(bytes.data()) + kBhsBytes, request.data_bytes);
    return request;
  }
  Result<Login::Progress> answer(const std::vector<std::string>& pairs, bool transit = false) {
    const auto data = text_bytes(pairs);
    LoginResponsePdu response;
    response.transit = transit;
    response.current_stage = LoginStage::security_negotiation;
    response.next_stage = LoginStage::operational_negotiation;
    response.data_bytes = static_cast<std::uint32_t>(data.size());
    response.initiator_task_tag = 1;
    response.numbers.stat_sn = stat_sn++;
    std::array<std::byte, kBhsBytes> header;
    encode(response, BhsBuffer{header});
    return login.receive(BhsBytes{header}, data);
  }
  // The first answer to a login of its own.
  static Result<Login::Progress> answer_first(Login& fresh, const std::string& pair) {
    std::vector<std::byte> bytes;
    fresh.next_request(bytes);
    const auto data = text_bytes({pair});
    LoginResponsePdu response;
    response.current_stage = LoginStage::security_negotiation;
    response.initiator_task_tag = 1;
    response.data_bytes = static_cast<std::uint32_t>(data.size());
    std::array<std::byte, kBhsBytes> header;
    encode(response, BhsBuffer{header});
    return fresh.receive(BhsBytes{header}, data);
  }
  // 0x0201, to the login so far.
  static std::string refusal_of(Login& refused) {
    std::vector<std::byte> bytes;
    refused.next_request(bytes);
    LoginResponsePdu response;
    response.status_class = 2;
    response.status_detail = 1;
    response.initiator_task_tag = 1;
    std::array<std::byte, kBhsBytes> header;
    encode(response, BhsBuffer{header});
    const auto progress = refused.receive(BhsBytes{header}, {});
    EXPECT_FALSE(progress);
    return progress ? "" : progress.error().message;
  }
  // Up to our answer to the target's challenge.
  void until_answered() {
    ask();
    ASSERT_TRUE(answer({"AuthMethod=CHAP", "TargetPortalGroupTag=1"}));
    ask();
    ASSERT_TRUE(answer({"CHAP_A=7", "CHAP_I=3", "CHAP_C=0b" + std::string(1364, 'A')}));
    EXPECT_TRUE(ask().transit);
  }

  SessionOptions options;
  Login login{options, 1, 1};
  std::string text;
  std::uint32_t stat_sn = 1;
};

TEST_F(ChapLoginTest, GoesThroughTheWholeExchange) {
  EXPECT_FALSE(ask().transit) << "nobody has proved anything yet";
  EXPECT_EQ(value_of(text, "AuthMethod"), "CHAP");
  ASSERT_EQ(answer({"AuthMethod=CHAP"}), Login::Progress::request);
  EXPECT_FALSE(ask().transit);
  EXPECT_EQ(text, "CHAP_A=8,7,6,5" + std::string(1, '\0'));
  ASSERT_EQ(answer({"CHAP_A=5", "CHAP_I=200", "CHAP_C=0x0102"}), Login::Progress::request);
  EXPECT_TRUE(ask().transit);
  EXPECT_THAT(text, Not(HasSubstr(kSecret)));
  const auto challenge = parse_large_binary(value_of(text, "CHAP_C"), 1024);
  const auto identifier = parse_text_number(value_of(text, "CHAP_I"), 0, 255);
  ASSERT_TRUE(challenge && identifier);
  const auto proof = chap_response(ChapAlgorithm::md5, static_cast<std::uint8_t>(*identifier),
                                   kTargetSecret, *challenge);
  ASSERT_EQ(answer({"CHAP_N=array", "CHAP_R=" + hex(proof)}, true), Login::Progress::request);
  EXPECT_EQ(ask().current_stage, LoginStage::operational_negotiation);
}

TEST_F(ChapLoginTest, OneWayAcceptsATargetThatWantsNoProof) {
  options.chap = one_way();
  EXPECT_FALSE(ask().transit);
  EXPECT_EQ(value_of(text, "AuthMethod"), "CHAP,None");
  ASSERT_TRUE(answer({"AuthMethod=None"}));
  EXPECT_TRUE(ask().transit);
  ASSERT_TRUE(answer({}, true));
  EXPECT_EQ(ask().current_stage, LoginStage::operational_negotiation);
}

TEST_F(ChapLoginTest, RefusesTargetThatChoosesNoneButMustProveItself) {
  ask();
  const auto progress = answer({"AuthMethod=None"});
  ASSERT_FALSE(progress);
  EXPECT_THAT(progress.error().message, HasSubstr("must prove who it is"));
}

TEST_F(ChapLoginTest, RefusesTransitBeforeTheProof) {
  until_answered();
  const auto progress = answer({}, true);
  ASSERT_FALSE(progress);
  EXPECT_THAT(progress.error().message, HasSubstr("does not prove who it is"));
}

TEST_F(ChapLoginTest, RefusesTransitWithoutAnyExchange) {
  ask();
  EXPECT_FALSE(answer({}, true));
}

// The target echoes the offer, or tells all that it knows: the first of it that we offer.
TEST_F(ChapLoginTest, OfAListOfMethodsTheFirstThatWasOffered) {
  struct Case {
    const char* method;
    bool chap;
    bool with_mutual;
  };
  for (const Case& one : {Case{"CHAP,None", true, false}, Case{"CHAP,None", true, true},
                          Case{"SRP,CHAP", true, true}, Case{"KRB5,CHAP,None", true, false},
                          Case{"None,CHAP", false, false}, Case{"None,CHAP", true, true}}) {
    options.chap = one.with_mutual ? mutual() : one_way();
    Login fresh{options, 1, 1};
    const auto progress = answer_first(fresh, std::string("AuthMethod=") + one.method);
    ASSERT_TRUE(progress) << one.method << ": " << progress.error().message;
    EXPECT_EQ(fresh.in_chap(), one.chap) << one.method;
    EXPECT_THAT(fresh.tolerated(), HasSubstr("AuthMethod with a list"));
  }
}

// The target says only that it failed.
TEST_F(ChapLoginTest, ARefusalNamesTheOptionsThatItCanBeAbout) {
  constexpr const char* kOneWay =
      "authentication failed: compare username and password with the CHAP user and secret on the "
      "target";
  until_answered();
  EXPECT_EQ(refusal_of(login), kOneWay + std::string(", and see that it has an outgoing user for "
                                                     "username_in and password_in"));
  Login at_once{options, 1, 1};
  EXPECT_EQ(refusal_of(at_once),
            "the target refuses CHAP, by which it must prove who it is: set CHAP up on the target, "
            "or remove username_in and password_in here");
  options.chap = one_way();
  Login of_one_way{options, 1, 1};
  EXPECT_EQ(refusal_of(of_one_way), kOneWay);
  Login of_discovery{options, 1, 1, usable_chap_algorithms(options.chap), SessionType::discovery};
  EXPECT_EQ(refusal_of(of_discovery),
            kOneWay + std::string(" (here username is discovery.sendtargets.auth.username, and so "
                                  "on)"));
  options.chap = {};
  constexpr const char* kNone =
      "the target wants authentication, and none is set up here: set username and password (CHAP) "
      "in the configuration file, or allow this initiator without authentication on the target";
  Login without{options, 1, 1};
  EXPECT_EQ(refusal_of(without), kNone);
  Login that_is_asked{options, 1, 1};
  const auto asked = answer_first(that_is_asked, "AuthMethod=CHAP");
  ASSERT_FALSE(asked);
  EXPECT_EQ(asked.error().message, kNone);
}

TEST_F(ChapLoginTest, RefusesAListOfMethodsThatWereNotOffered) {
  ask();
  EXPECT_FALSE(answer({"AuthMethod=SRP,None"})) << "it must prove who it is";
  options.chap = one_way();
  Login another{options, 1, 1};
  EXPECT_FALSE(answer_first(another, "AuthMethod=SRP,KRB5"));
}

TEST_F(ChapLoginTest, RefusesAuthMethodAnsweredTwice) {
  ask();
  ASSERT_TRUE(answer({"AuthMethod=CHAP"}));
  ask();
  EXPECT_FALSE(answer({"AuthMethod=CHAP", "CHAP_A=7", "CHAP_I=3", "CHAP_C=0x01"}));
}

TEST_F(ChapLoginTest, RefusesAuthMethodThatWasNotOffered) {
  ask();
  EXPECT_FALSE(answer({"AuthMethod=SRP"}));
}

TEST_F(ChapLoginTest, RefusesChallengeBeforeTheMethod) {
  ask();
  EXPECT_FALSE(answer({"AuthMethod=CHAP", "CHAP_A=7", "CHAP_I=3", "CHAP_C=0x01"}));
}

TEST_F(ChapLoginTest, RefusesChallengeWithoutConfiguredSecret) {
  options.chap = {};
  ask();
  EXPECT_FALSE(answer({"CHAP_A=7", "CHAP_I=3", "CHAP_C=0x01"}));
}

TEST_F(ChapLoginTest, RefusesOptionsThatNoLoginMayUse) {
  options.chap.password = "short";
  EXPECT_FALSE(login.check_options());
}

}  // namespace
}  // namespace iscsi_blkback
