#include "initiator/login/chap.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kNonceBytes = 16;

struct AlgorithmName {
  ChapAlgorithm algorithm;
  std::string_view name;  // iscsid.conf's
  const char* openssl_name;
};
constexpr std::array kAlgorithmNames = {
    AlgorithmName{ChapAlgorithm::md5, "MD5", "MD5"},
    AlgorithmName{ChapAlgorithm::sha1, "SHA1", "SHA1"},
    AlgorithmName{ChapAlgorithm::sha256, "SHA256", "SHA2-256"},
    AlgorithmName{ChapAlgorithm::sha3_256, "SHA3-256", "SHA3-256"},
};

const AlgorithmName& name_of(ChapAlgorithm algorithm) {
  const auto found =
      std::find_if(kAlgorithmNames.begin(), kAlgorithmNames.end(),
                   [&](const AlgorithmName& entry) { return entry.algorithm == algorithm; });
  ISCSI_BLKBACK_ASSERT(found != kAlgorithmNames.end());
  return *found;
}

using Digest = std::unique_ptr<EVP_MD, void (*)(EVP_MD*)>;

Digest digest_of(ChapAlgorithm algorithm) {
  return {EVP_MD_fetch(nullptr, name_of(algorithm).openssl_name, nullptr), &EVP_MD_free};
}

Result<void> fill_random(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = ::getrandom(bytes.data(), bytes.size(), 0);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return tl::unexpected(system_error("no random bytes for a CHAP challenge", errno));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
  return {};
}

// Random for each process, so that a challenge of ours can be told from everybody else's without
// remembering it: its second half proves to us that we made it.
Result<std::vector<std::byte>> second_half(std::span<const std::byte> nonce) {
  static const auto key = []() -> Result<std::array<std::byte, 32>> {
    std::array<std::byte, 32> bytes{};
    if (auto filled = fill_random(bytes); !filled) {
      return tl::unexpected(filled.error());
    }
    return bytes;
  }();
  if (!key) {
    return tl::unexpected(key.error());
  }
  const std::string_view secret{reinterpret_cast<const char*>(key->data()), key->size()};
  std::vector<std::byte> hash = chap_response(ChapAlgorithm::sha256, 0, secret, nonce);
  if (hash.size() < kNonceBytes) {
    return fail(ErrorCode::unsupported, "the crypto library has no SHA-256");
  }
  hash.resize(kNonceBytes);
  return hash;
}

bool same_bytes(std::span<const std::byte> one, std::span<const std::byte> other) {
  return one.size() == other.size() && CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0;
}

bool is_our_challenge(std::span<const std::byte> challenge) {
  if (challenge.size() != 2 * kNonceBytes) {
    return false;
  }
  const auto expected = second_half(challenge.first(kNonceBytes));
  return expected && same_bytes(challenge.subspan(kNonceBytes), *expected);
}

std::string hexadecimal(std::span<const std::byte> bytes) {
  std::string text = "0x";
  for (const std::byte byte : bytes) {
    text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  }
  return text;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char folded = static_cast<char>(c | 0x20);
  return folded >= 'a' && folded <= 'f' ? folded - 'a' + 10 : -1;
}

int base64_value(char c) {
  constexpr std::string_view kLetters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::size_t at = kLetters.find(c);
  return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

std::optional<std::vector<std::byte>> parse_hexadecimal(std::string_view digits) {
  std::vector<std::byte> bytes;
  // An odd count lacks a leading zero (6.1: (n + 1) / 2 bytes).
  int high = 0;
  bool low_is_next = digits.size() % 2 != 0;
  for (const char digit : digits) {
    const int value = hex_value(digit);
    if (value < 0) {
      return std::nullopt;
    }
    if (low_is_next) {
      bytes.push_back(static_cast<std::byte>(high * 16 + value));
    } else {
      high = value;
    }
    low_is_next = !low_is_next;
  }
  return bytes;
}

std::optional<std::vector<std::byte>> parse_base64(std::string_view letters) {
  // Whatever amount of padding there is, it says nothing that the letters do not.
  letters = letters.substr(0, letters.find_last_not_of('=') + 1);
  if (letters.size() % 4 == 1) {
    return std::nullopt;
  }
  std::vector<std::byte> bytes;
  unsigned collected = 0;
  unsigned bits = 0;
  for (const char letter : letters) {
    const int value = base64_value(letter);
    if (value < 0) {
      return std::nullopt;
    }
    collected = (collected << 6 | static_cast<unsigned>(value)) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes.push_back(static_cast<std::byte>(collected >> bits & 0xff));
    }
  }
  return bytes;
}

Result<void> check_secret(std::string_view option, std::string_view secret, std::string_view user) {
  if (secret.empty()) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} is set, and there is no {} for it", user, option));
  }
  if (secret.size() < kMinChapSecretBytes || secret.size() > kMaxChapSecretBytes) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} must have {} to {} characters (RFC 7143 12.1.3)", option,
                            kMinChapSecretBytes, kMaxChapSecretBytes));
  }
  return {};
}

Result<void> check_name(std::string_view option, const std::string& name) {
  const bool plain = std::none_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (name.empty() || name.size() > kMaxChapNameBytes || !plain) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} must have 1 to {} characters and no control character", option,
                            kMaxChapNameBytes));
  }
  return {};
}

}  // namespace

std::string_view to_string(ChapAlgorithm algorithm) {
  return name_of(algorithm).name;
}

std::optional<ChapAlgorithm> parse_chap_algorithm(std::string_view text) {
  for (const AlgorithmName& entry : kAlgorithmNames) {
    if (text == entry.name) {
      return entry.algorithm;
    }
  }
  return std::nullopt;
}

std::span<const ChapAlgorithm> ChapOptions::offered() const {
  static constexpr std::array kAll = {ChapAlgorithm::sha3_256, ChapAlgorithm::sha256,
                                      ChapAlgorithm::sha1, ChapAlgorithm::md5};
  return algorithms.empty() ? std::span<const ChapAlgorithm>{kAll} : algorithms;
}

std::vector<ChapAlgorithm> usable_chap_algorithms(const ChapOptions& options) {
  std::vector<ChapAlgorithm> usable;
  for (const ChapAlgorithm algorithm : options.offered()) {
    if (digest_of(algorithm)) {
      usable.push_back(algorithm);
    }
  }
  return usable;
}

Result<void> check_chap_options(const ChapOptions& options) {
  if (!options.enabled()) {
    if (!options.password.empty() || options.mutual() || !options.password_in.empty()) {
      return fail(ErrorCode::invalid_argument,
                  "CHAP needs a username and a password; username_in and password_in only add that "
                  "the target proves itself");
    }
    return {};
  }
  for (const auto& checked : {check_name("username", options.username),
                              check_secret("password", options.password, "username")}) {
    if (!checked) {
      return checked;
    }
  }
  if (!options.mutual()) {
    return options.password_in.empty()
               ? Result<void>{}
               : fail(ErrorCode::invalid_argument, "password_in needs a username_in");
  }
  for (const auto& checked : {check_name("username_in", options.username_in),
                              check_secret("password_in", options.password_in, "username_in")}) {
    if (!checked) {
      return checked;
    }
  }
  if (options.password == options.password_in) {
    return fail(ErrorCode::invalid_argument,
                "password and password_in must not be the same: with one secret for both "
                "directions a target could answer with our own answer (RFC 7143 12.1.3)");
  }
  return {};
}

std::optional<std::vector<std::byte>> parse_large_binary(std::string_view text,
                                                         std::size_t at_most) {
  if (text.size() <= 2 || text[0] != '0') {
    return std::nullopt;
  }
  const char kind = static_cast<char>(text[1] | 0x20);
  text.remove_prefix(2);
  if (text.size() > 2 * at_most) {
    return std::nullopt;
  }
  auto bytes = kind == 'x'   ? parse_hexadecimal(text)
               : kind == 'b' ? parse_base64(text)
                             : std::nullopt;
  return bytes && !bytes->empty() && bytes->size() <= at_most ? bytes : std::nullopt;
}

std::vector<std::byte> chap_response(ChapAlgorithm algorithm, std::uint8_t identifier,
                                     std::string_view secret,
                                     std::span<const std::byte> challenge) {
  const Digest digest = digest_of(algorithm);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                   &EVP_MD_CTX_free);
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned int length = 0;
  if (!digest || !context || EVP_DigestInit_ex(context.get(), digest.get(), nullptr) != 1 ||
      EVP_DigestUpdate(context.get(), &identifier, 1) != 1 ||
      EVP_DigestUpdate(context.get(), secret.data(), secret.size()) != 1 ||
      EVP_DigestUpdate(context.get(), challenge.data(), challenge.size()) != 1 ||
      EVP_DigestFinal_ex(context.get(), hash.data(), &length) != 1) {
    return {};
  }
  wipe_stack();  // the hash functions leave parts of the secret there
  std::vector<std::byte> result(length);
  std::memcpy(result.data(), hash.data(), length);
  return result;
}

ChapExchange::ChapExchange(const ChapOptions& options, std::span<const ChapAlgorithm> offered)
    : options_(options), offered_(offered.begin(), offered.end()) {}

Result<void> ChapExchange::offer(LoginText& text) {
  std::string list;
  for (const ChapAlgorithm algorithm : offered_) {
    list += fmt::format("{}{}", list.empty() ? "" : ",", static_cast<unsigned>(algorithm));
  }
  if (list.empty()) {
    return fail(ErrorCode::unsupported,
                "the crypto library of this host allows none of the algorithms in chap_algs");
  }
  text.add("CHAP_A", std::string_view{list});
  return {};
}

// Some targets tell a list in place of their choice: the first of it that was offered. All that was
// offered is no choice.
std::optional<ChapAlgorithm> ChapExchange::chosen_of(std::string_view list) const {
  std::vector<ChapAlgorithm> told;
  while (!list.empty()) {
    const auto number = parse_text_number(take_up_to(list, ','), 0, 255);
    const auto found = std::find_if(offered_.begin(), offered_.end(), [&](ChapAlgorithm ours) {
      return number && static_cast<std::uint32_t>(ours) == *number;
    });
    if (found != offered_.end() && std::find(told.begin(), told.end(), *found) == told.end()) {
      told.push_back(*found);
    }
  }
  const bool is_choice = !told.empty() && (told.size() == 1 || told.size() < offered_.size());
  return is_choice ? std::optional(told.front()) : std::nullopt;
}

Result<void> ChapExchange::take(const TextPair& pair) {
  const auto wrong = [&](std::string_view why) {
    return fail(ErrorCode::protocol, fmt::format("the target's {} {}", pair.key, why));
  };
  if (pair.value == "Reject" || pair.value == "NotUnderstood") {
    return fail(ErrorCode::permission_denied,
                fmt::format("the target refuses our {}; allow one of the algorithms in chap_algs "
                            "on the target, or give chap_algs the one that it knows",
                            pair.key));
  }
  if ((pair.key == "CHAP_A" && said_.algorithm) || (pair.key == "CHAP_I" && said_.identifier) ||
      (pair.key == "CHAP_C" && !said_.challenge.empty()) ||
      (pair.key == "CHAP_N" && !said_.name.empty()) ||
      (pair.key == "CHAP_R" && !said_.response.empty())) {
    return wrong("comes twice");
  }
  if (pair.key == "CHAP_A") {
    said_.algorithm = chosen_of(pair.value);
    if (!said_.algorithm) {
      return wrong("is an algorithm that was not offered; see chap_algs");
    }
  } else if (pair.key == "CHAP_I") {
    const auto number = parse_text_number(pair.value, 0, 255);
    if (!number) {
      return wrong("is not a number from 0 to 255");
    }
    said_.identifier = static_cast<std::uint8_t>(*number);
  } else if (pair.key == "CHAP_C") {
    auto bytes = parse_large_binary(pair.value, kMaxChapChallengeBytes);
    if (!bytes) {
      return wrong("is not 1 to 1024 bytes in hexadecimal or base64");
    }
    said_.challenge = std::move(*bytes);
  } else if (pair.key == "CHAP_N") {
    if (pair.value.empty()) {
      return wrong("is empty");
    }
    said_.name = std::string(pair.value);
  } else if (pair.key == "CHAP_R") {
    auto bytes = parse_large_binary(pair.value, kMaxChapResponseBytes);
    if (!bytes) {
      return wrong("is not 1 to 32 bytes in hexadecimal or base64");
    }
    said_.response = std::move(*bytes);
  } else {
    return wrong("is no key of CHAP");
  }
  return {};
}

Result<void> ChapExchange::advance(LoginText& text) {
  const Said said = std::exchange(said_, {});
  const bool asks = said.algorithm || said.identifier || !said.challenge.empty();
  const bool answers = !said.name.empty() || !said.response.empty();
  if (state_ == State::offered) {
    if (answers || !said.algorithm || !said.identifier || said.challenge.empty()) {
      return fail(ErrorCode::protocol,
                  "the target's CHAP challenge does not consist of CHAP_A, CHAP_I and CHAP_C");
    }
    return answer_challenge(said, text);
  }
  if (asks || state_ == State::complete || answers != options_.mutual()) {
    return options_.mutual() && !asks && !answers
               ? fail(ErrorCode::permission_denied,
                      "the target does not prove who it is: set the outgoing user and secret "
                      "(username_in, password_in) on the target, or remove them here")
               : fail(ErrorCode::protocol, "the target sends CHAP keys that were not asked for");
  }
  if (options_.mutual()) {
    return verify_target(said);
  }
  state_ = State::complete;
  return {};
}

Result<void> ChapExchange::answer_challenge(const Said& said, LoginText& text) {
  if (is_our_challenge(said.challenge)) {
    return fail(ErrorCode::permission_denied,
                "the target sends back a challenge of our own: it does not know the secret and "
                "tries to get an answer from us");
  }
  algorithm_ = *said.algorithm;
  our_response_ = chap_response(*algorithm_, *said.identifier, options_.password, said.challenge);
  if (our_response_.empty()) {
    return fail(ErrorCode::unsupported,
                fmt::format("the crypto library does not do {}", to_string(*algorithm_)));
  }
  text.add("CHAP_N", std::string_view{options_.username});
  text.add("CHAP_R", std::string_view{hexadecimal(our_response_)});
  if (options_.mutual()) {
    if (auto made = make_challenge(); !made) {
      return made;
    }
    text.add("CHAP_I", std::uint32_t{our_identifier_});
    text.add("CHAP_C", std::string_view{hexadecimal(our_challenge_)});
  }
  state_ = State::answered;
  return {};
}

Result<void> ChapExchange::make_challenge() {
  std::array<std::byte, kNonceBytes + 1> random{};
  if (auto filled = fill_random(random); !filled) {
    return filled;
  }
  const auto nonce = std::span{random}.first(kNonceBytes);
  const auto proof = second_half(nonce);
  if (!proof) {
    return tl::unexpected(proof.error());
  }
  std::copy(nonce.begin(), nonce.end(), our_challenge_.begin());
  std::copy(proof->begin(), proof->end(), our_challenge_.begin() + kNonceBytes);
  our_identifier_ = std::to_integer<std::uint8_t>(random.back());
  return {};
}

Result<void> ChapExchange::verify_target(const Said& said) {
  const std::vector<std::byte> expected =
      chap_response(*algorithm_, our_identifier_, options_.password_in, our_challenge_);
  if (same_bytes(said.response, our_response_)) {
    return fail(ErrorCode::permission_denied, "the target sends back our own CHAP answer");
  }
  if (said.name != options_.username_in) {
    return fail(ErrorCode::permission_denied,
                "the target proves who it is by another name than username_in: compare that with "
                "the outgoing user of the target");
  }
  if (expected.empty() || !same_bytes(said.response, expected)) {
    return fail(ErrorCode::permission_denied,
                "the target does not know the secret that it must prove to know: compare "
                "password_in with the secret of the target's outgoing user");
  }
  state_ = State::complete;
  return {};
}

}  // namespace iscsi_blkback
