// Login: the login phase of one connection (RFC 7143 section 6.3) as a state machine over PDUs; it
// does no I/O. It passes through the security stage even without authentication: tgt terminates an
// older session of the same ISID only when a login came through that stage. Text that does not fit
// into one PDU goes in several, both ways (the C bit). Reactor thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "initiator/login/chap.h"
#include "initiator/login/login_status.h"
#include "initiator/login/login_text.h"
#include "initiator/login/negotiation.h"
#include "initiator/login/session_options.h"
#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {

class Login {
 public:
  enum class Progress : std::uint8_t {
    request,     // send next_request()
    complete,    // full feature phase
    redirected,  // close, and log in at redirect_address()
  };

  // options outlives the login. initiator_task_tag and cmd_sn: of every request of this login.
  // chap_algorithms: what this login offers, where options ask for CHAP.
  Login(const SessionOptions& options, std::uint32_t initiator_task_tag, std::uint32_t cmd_sn,
        std::span<const ChapAlgorithm> chap_algorithms, SessionType type = SessionType::normal);
  Login(const SessionOptions& options, std::uint32_t initiator_task_tag, std::uint32_t cmd_sn)
      : Login(options, initiator_task_tag, cmd_sn, usable_chap_algorithms(options.chap)) {}

  // Refuses names that no login can carry (empty, too long, with control characters) and CHAP
  // options that no login may use.
  [[nodiscard]] Result<void> check_options() const;

  // Writes the next request, header and padded text, to pdu.
  void next_request(std::vector<std::byte>& pdu);

  // header and data segment (without padding) of the target's answer to the last request. An error
  // ends the login; its message says what to fix.
  [[nodiscard]] Result<Progress> receive(BhsBytes header, std::span<const std::byte> data);

  // After complete.
  [[nodiscard]] NegotiatedParameters negotiated() const { return negotiation_.outcome(); }
  [[nodiscard]] const TargetNumbers& numbers() const { return numbers_; }
  // Which rules the target has broken without harm; empty: none.
  [[nodiscard]] const std::string& tolerated() const { return negotiation_.tolerated(); }

  // The target has agreed to CHAP, and authentication is under way.
  [[nodiscard]] bool in_chap() const { return chap_ && stage_ == LoginStage::security_negotiation; }
  // What it has chosen then; nothing before it has.
  [[nodiscard]] std::optional<ChapAlgorithm> chap_algorithm() const {
    return in_chap() ? chap_->algorithm() : std::nullopt;
  }
  // After complete: the target has asked for CHAP.
  [[nodiscard]] bool used_chap() const { return chap_.has_value(); }
  // The same for a message about this error; where what was offered can be the reason, it names
  // chap_algs.
  [[nodiscard]] std::string describe_chap(const Error& why) const;
  // After an error: the target, or what it says, is the reason; else it could not do it just now.
  [[nodiscard]] bool refused() const { return refused_; }

  // After redirected: the TargetAddress as the target wrote it, and whether the target has moved
  // there for good.
  [[nodiscard]] const std::string& redirect_address() const { return redirect_address_; }
  [[nodiscard]] bool moved_permanently() const { return status_ == kMovedPermanently; }

 private:
  [[nodiscard]] Result<Progress> take_response(BhsBytes header, std::span<const std::byte> data);
  [[nodiscard]] Result<void> check_response(const LoginResponsePdu& response);
  void compose();
  [[nodiscard]] Result<void> take_text();
  [[nodiscard]] std::string_view chosen_auth_method(std::string_view list) const;
  [[nodiscard]] Result<void> take_auth_method(std::string_view list);
  [[nodiscard]] Error that_authentication_failed() const;
  [[nodiscard]] Result<Progress> take_redirect();
  [[nodiscard]] Result<Progress> advance(const LoginResponsePdu& response);
  [[nodiscard]] bool authenticated() const;

  const SessionOptions& options_;
  const SessionType type_;
  Negotiation negotiation_;
  LoginStage stage_ = LoginStage::security_negotiation;
  std::optional<ChapExchange> chap_;
  bool auth_method_known_ = false;
  std::string auth_method_;
  LoginText out_;               // what the next requests say
  std::size_t sent_bytes_ = 0;  // of out_; more than 0 while its rest waits for the target's turn
  std::string in_;              // text of the responses that the C bit joins
  bool asked_ = false;          // this stage's keys have been added to out_
  bool transit_asked_ = false;  // the last request asked to leave the stage
  bool continuing_ = false;     // the last response had the C bit
  bool first_response_ = true;
  std::uint32_t requests_ = 0;
  std::uint32_t initiator_task_tag_;
  std::uint32_t cmd_sn_;
  const std::vector<ChapAlgorithm> chap_algorithms_;
  bool refused_ = false;
  TargetNumbers numbers_;
  std::uint16_t status_ = 0;
  std::string redirect_address_;
};

}  // namespace iscsi_blkback
