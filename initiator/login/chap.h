// CHAP within a login (RFC 7143 12.1, RFC 1994): the initiator proves that it knows its secret and,
// when mutual, has the target prove that it knows another. A state machine over text keys; the hash
// functions are OpenSSL's. Reactor thread. Secrets are in no message.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/secret.h"
#include "initiator/login/login_text.h"

namespace iscsi_blkback {

// The numbers are those of CHAP_A (IANA: iSCSI and PPP authentication algorithms).
enum class ChapAlgorithm : std::uint8_t { md5 = 5, sha1 = 6, sha256 = 7, sha3_256 = 8 };

[[nodiscard]] std::string_view to_string(ChapAlgorithm algorithm);  // iscsid.conf's: "SHA3-256"
[[nodiscard]] std::optional<ChapAlgorithm> parse_chap_algorithm(std::string_view text);

// RFC 7143 12.1.3: no login with a secret of less than 96 bits. The upper bounds are ours.
inline constexpr std::size_t kMinChapSecretBytes = 12;
inline constexpr std::size_t kMaxChapSecretBytes = 255;
inline constexpr std::size_t kMaxChapNameBytes = 255;
inline constexpr std::size_t kMaxChapChallengeBytes = 1024;  // 12.1.3
inline constexpr std::size_t kMaxChapResponseBytes = 32;     // of SHA-256 and SHA3-256

struct ChapOptions {
  std::string username;     // empty: no CHAP
  Secret password;          // what we know
  std::string username_in;  // empty: the target proves nothing
  Secret password_in;       // what the target must know
  // What is offered, the first choice first; empty: all, the strongest first.
  std::vector<ChapAlgorithm> algorithms;

  [[nodiscard]] std::span<const ChapAlgorithm> offered() const;
  [[nodiscard]] bool enabled() const { return !username.empty(); }
  [[nodiscard]] bool mutual() const { return !username_in.empty(); }
  bool operator==(const ChapOptions&) const = default;
};

// What options allow and the crypto library of this host does.
[[nodiscard]] std::vector<ChapAlgorithm> usable_chap_algorithms(const ChapOptions& options);

// Refuses names and secrets that are missing, too long or too short, and one secret for both
// directions, with which a target could have us answer our own challenge. Error: invalid_argument.
[[nodiscard]] Result<void> check_chap_options(const ChapOptions& options);

// "0x..." or "0b..." (base64), RFC 7143 6.1: 1 to at_most bytes, else nothing.
[[nodiscard]] std::optional<std::vector<std::byte>> parse_large_binary(std::string_view text,
                                                                       std::size_t at_most);

// The hash of identifier, secret and challenge (RFC 1994 4.1); empty when the crypto library does
// not have the algorithm, as in FIPS mode.
[[nodiscard]] std::vector<std::byte> chap_response(ChapAlgorithm algorithm, std::uint8_t identifier,
                                                   std::string_view secret,
                                                   std::span<const std::byte> challenge);

class ChapExchange {
 public:
  // options outlives the exchange, and check_chap_options() has accepted them. offered: see
  // usable_chap_algorithms() and ChapLadder; not what options say.
  ChapExchange(const ChapOptions& options, std::span<const ChapAlgorithm> offered);
  explicit ChapExchange(const ChapOptions& options)
      : ChapExchange(options, usable_chap_algorithms(options)) {}

  // Adds CHAP_A: what a request says after the target has agreed to CHAP. Error: unsupported, where no
  // algorithm is left to offer.
  [[nodiscard]] Result<void> offer(LoginText& text);

  // One CHAP_ key of the target's. Errors: protocol; permission_denied, for one that no honest target sends.
  [[nodiscard]] Result<void> take(const TextPair& pair);

  // After the keys of one response: checks them, and adds our answer to text. Errors: protocol; unsupported (the
  // algorithm); permission_denied, where the target does not prove what it has to.
  [[nodiscard]] Result<void> advance(LoginText& text);

  // What the target has chosen; nothing before it has.
  [[nodiscard]] std::optional<ChapAlgorithm> algorithm() const { return algorithm_; }
  [[nodiscard]] const std::vector<ChapAlgorithm>& offered() const { return offered_; }
  // Our answer has been added: the next request may ask to leave the stage.
  [[nodiscard]] bool answered() const { return state_ != State::offered; }
  // Whoever has to prove something has done it, as far as we can know.
  [[nodiscard]] bool complete() const { return state_ == State::complete; }

 private:
  enum class State : std::uint8_t { offered, answered, complete };
  static constexpr std::size_t kOurChallengeBytes = 32;

  // What the target says in one response.
  struct Said {
    std::optional<ChapAlgorithm> algorithm;
    std::optional<std::uint8_t> identifier;
    std::vector<std::byte> challenge;
    std::string name;
    std::vector<std::byte> response;
  };

  [[nodiscard]] std::optional<ChapAlgorithm> chosen_of(std::string_view list) const;
  [[nodiscard]] Result<void> answer_challenge(const Said& said, LoginText& text);
  [[nodiscard]] Result<void> verify_target(const Said& said);
  [[nodiscard]] Result<void> make_challenge();

  const ChapOptions& options_;
  const std::vector<ChapAlgorithm> offered_;
  State state_ = State::offered;
  Said said_;  // until advance()
  std::optional<ChapAlgorithm> algorithm_;
  // What we have said.
  std::vector<std::byte> our_response_;
  std::uint8_t our_identifier_ = 0;
  std::array<std::byte, kOurChallengeBytes> our_challenge_{};
};

}  // namespace iscsi_blkback
