// Negotiation: the operational keys of a login (RFC 7143 section 13): what we offer, what each
// answer of the target means, and the outcome. One object for one login; reactor thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "initiator/login/login_text.h"
#include "initiator/login/session_options.h"

namespace iscsi_blkback {

// RFC 7143 13.21.
enum class SessionType : std::uint8_t { normal, discovery };

class Negotiation {
 public:
  explicit Negotiation(const SessionOptions& options, SessionType type = SessionType::normal);

  // Adds every key that we offer or declare in the operational stage; from then on a key of the
  // target's is an answer.
  void offer(LoginText& text);

  // Takes one pair of the target's, in any stage. What needs an answer of ours is added to answers
  // (an unknown key: NotUnderstood). Errors: protocol, for an answer that the key does not allow; unsupported,
  // for one that we cannot do.
  [[nodiscard]] Result<void> take(const TextPair& pair, LoginText& answers);

  // The target breaks a rule of login negotiation without harm; what: "its ...".
  void tolerate(std::string_view what);
  // All of that; empty: nothing.
  [[nodiscard]] const std::string& tolerated() const { return tolerated_; }

  // After the last pair: refuses a target that left out what must not be left out.
  [[nodiscard]] Result<void> check_complete() const;

  // After the last pair. A key that the target did not answer has its RFC default, except that
  // nothing becomes larger than what we offered.
  [[nodiscard]] NegotiatedParameters outcome() const;

 private:
  enum class Rule : std::uint8_t { minimum, maximum, logical_or, logical_and };
  // One key whose outcome is a number (or a boolean as 0 or 1) reached from both sides' values.
  struct Key {
    std::string_view name;
    Rule rule;
    std::uint32_t low;
    std::uint32_t high;
    std::uint32_t offered;
    std::uint32_t result;  // the RFC's default until the target has answered
    bool answered = false;
  };
  struct Digest {
    std::string_view name;
    DigestOffer offered;
    bool result;  // CRC32C
    bool answered;
  };

  [[nodiscard]] bool is_irrelevant(const Key& key) const;
  [[nodiscard]] Result<void> take_answer(Key& key, std::string_view value);
  [[nodiscard]] Result<std::uint32_t> value_of(const Key& key, std::string_view text);
  [[nodiscard]] Result<void> take_digest(Digest& digest, std::string_view value);
  [[nodiscard]] Result<void> take_declaration(const TextPair& pair);
  [[nodiscard]] Key* find(std::string_view name);
  [[nodiscard]] std::uint32_t result_of(std::string_view name) const;

  std::array<Key, 11> keys_;
  Digest header_digest_;
  Digest data_digest_;
  SessionType type_;
  std::uint32_t max_recv_data_segment_length_;
  NegotiatedParameters declared_;
  std::string tolerated_;
  bool offered_ = false;
  bool portal_group_declared_ = false;
  bool portal_group_contradicted_ = false;
  bool segment_length_declared_ = false;
};

}  // namespace iscsi_blkback
