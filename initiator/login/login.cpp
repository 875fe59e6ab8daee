#include "initiator/login/login.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace iscsi_blkback {
namespace {

// A login takes two requests; a target that keeps asking is cut off here.
constexpr std::uint32_t kMaxRequests = 32;

}  // namespace

Login::Login(const SessionOptions& options, std::uint32_t initiator_task_tag, std::uint32_t cmd_sn,
             std::span<const ChapAlgorithm> chap_algorithms, SessionType type)
    : options_(options),
      type_(type),
      negotiation_(options, type),
      initiator_task_tag_(initiator_task_tag),
      cmd_sn_(cmd_sn),
      chap_algorithms_(chap_algorithms.begin(), chap_algorithms.end()) {}

Result<void> Login::check_options() const {
  if (!is_usable_name(options_.initiator_name)) {
    return fail(ErrorCode::invalid_argument,
                "the initiator name is empty, too long or has blanks; set one like "
                "iqn.2026-01.org.example:host");
  }
  if (type_ == SessionType::normal && !is_usable_name(options_.target_name)) {
    return fail(ErrorCode::invalid_argument, "the target name is empty, too long or has blanks");
  }
  if (!is_usable_text(options_.initiator_alias, kMaxTextValueBytes, ' ')) {
    return fail(ErrorCode::invalid_argument,
                "the initiator alias is too long or has control characters");
  }
  return check_chap_options(options_.chap);
}

// Adds what this stage begins with; what answers the target has been added before.
void Login::compose() {
  if (asked_) {
    return;
  }
  asked_ = true;
  if (stage_ == LoginStage::operational_negotiation) {
    negotiation_.offer(out_);
    return;
  }
  out_.add("InitiatorName", std::string_view{options_.initiator_name});
  if (!options_.initiator_alias.empty()) {
    out_.add("InitiatorAlias", std::string_view{options_.initiator_alias});
  }
  if (type_ == SessionType::normal) {
    out_.add("TargetName", std::string_view{options_.target_name});
  }
  out_.add("SessionType", std::string_view{type_ == SessionType::normal ? "Normal" : "Discovery"});
  // A target that has to prove itself may not get around that by choosing None.
  out_.add("AuthMethod", std::string_view{!options_.chap.enabled() ? "None"
                                          : options_.chap.mutual() ? "CHAP"
                                                                   : "CHAP,None"});
}

bool Login::authenticated() const {
  return chap_ ? chap_->complete() : auth_method_known_ || !options_.chap.enabled();
}

void Login::next_request(std::vector<std::byte>& pdu) {
  // While the target still sends the rest of its text, the request is empty and asks for nothing.
  if (!continuing_) {
    compose();
  }
  const std::string_view text =
      continuing_ ? std::string_view{} : std::string_view{out_.text()}.substr(sent_bytes_);
  const std::string_view piece = text.substr(0, kMaxLoginDataBytes);
  const bool more = piece.size() < text.size();
  const bool security = stage_ == LoginStage::security_negotiation;
  const bool ready =
      !security || (chap_ ? chap_->answered() : auth_method_known_ || !options_.chap.enabled());
  transit_asked_ = !continuing_ && !more && ready;
  ++requests_;
  pdu.assign(kBhsBytes + padded(piece.size()), std::byte{0});
  encode(LoginRequestPdu{.transit = transit_asked_,
                         .more = more,
                         .current_stage = stage_,
                         .next_stage = security ? LoginStage::operational_negotiation
                                                : LoginStage::full_feature_phase,
                         .version_max = 0,
                         .version_min = 0,
                         .data_bytes = static_cast<std::uint32_t>(piece.size()),
                         .isid = options_.isid,
                         .tsih = 0,
                         .initiator_task_tag = initiator_task_tag_,
                         .cid = 0,
                         .cmd_sn = cmd_sn_,
                         .exp_stat_sn = first_response_ ? 0 : numbers_.stat_sn + 1},
         BhsBuffer{pdu.data(), kBhsBytes});
  if (!piece.empty()) {
    std::memcpy(pdu.data() + kBhsBytes, piece.data(), piece.size());
  }
  if (more) {
    sent_bytes_ += piece.size();
  } else if (!continuing_) {
    sent_bytes_ = 0;
    out_.clear();
  }
}

Result<Login::Progress> Login::receive(BhsBytes header, std::span<const std::byte> data) {
  auto progress = take_response(header, data);
  refused_ = !progress && status_ >> 8 != 3;
  const bool of_credentials = chap_ || status_ == kAuthenticationFailed;
  if (!progress && type_ == SessionType::discovery && of_credentials &&
      progress.error().code == ErrorCode::permission_denied) {
    progress.error().message +=
        " (here username is discovery.sendtargets.auth.username, and so on)";
  }
  return progress;
}

Result<Login::Progress> Login::take_response(BhsBytes header, std::span<const std::byte> data) {
  const PduHeader general = decode_header(header);
  if (general.opcode != Opcode::login_response) {
    return fail(ErrorCode::protocol,
                fmt::format("the target answered the login with a {}", to_string(general.opcode)));
  }
  const LoginResponsePdu response = decode_login_response(header);
  if (auto checked = check_response(response); !checked) {
    return tl::unexpected(checked.error());
  }
  if (data.size() > kMaxLoginDataBytes || in_.size() + data.size() > kMaxLoginTextBytes) {
    return fail(ErrorCode::protocol, "the target's login text is too long");
  }
  in_.append(reinterpret_cast<const char*>(data.data()), data.size());
  if (status_ != 0) {
    if (status_ >> 8 == 1) {
      return take_redirect();
    }
    return tl::unexpected(status_ == kAuthenticationFailed
                              ? that_authentication_failed()
                              : describe_login_status(status_, options_.initiator_name));
  }
  if (requests_ >= kMaxRequests) {
    return fail(ErrorCode::protocol, "the login does not end; the target keeps asking");
  }
  if (sent_bytes_ != 0) {
    if (!data.empty() || response.transit || response.more) {
      return fail(ErrorCode::protocol, "the target answers before it has all of the login text");
    }
    return Progress::request;
  }
  continuing_ = response.more;
  if (continuing_) {
    if (response.transit) {
      return fail(ErrorCode::protocol, "the target's login response has both the T and the C bit");
    }
    return Progress::request;
  }
  if (auto taken = take_text(); !taken) {
    return tl::unexpected(taken.error());
  }
  return advance(response);
}

Result<void> Login::check_response(const LoginResponsePdu& response) {
  status_ = static_cast<std::uint16_t>(response.status_class << 8 | response.status_detail);
  if (response.status_class == 0 && response.status_detail != 0) {
    negotiation_.tolerate("its login responses have details of a success");
    status_ = 0;
  }
  // A login goes step by step, each with its answer: a wrong tag or number can mean nothing else.
  if (response.initiator_task_tag != initiator_task_tag_) {
    negotiation_.tolerate("its login responses have another task tag");
  }
  if (status_ == 0) {
    if (response.version_active != 0) {
      return fail(ErrorCode::unsupported, "the target wants an iSCSI version that does not exist");
    }
    if (response.current_stage != stage_) {
      return fail(ErrorCode::protocol, "the target's login response is of another stage");
    }
    if (!first_response_ && response.numbers.stat_sn != numbers_.stat_sn + 1) {
      negotiation_.tolerate("its login responses have StatSN out of order");
    }
  }
  first_response_ = false;
  numbers_ = response.numbers;
  return {};
}

Result<void> Login::take_text() {
  const auto pairs = parse_login_text(in_);
  if (!pairs) {
    return tl::unexpected(pairs.error());
  }
  const bool security = stage_ == LoginStage::security_negotiation;
  const bool expects_chap = chap_.has_value() && !chap_->complete();
  if (!in_.empty() && in_.back() != '\0') {
    negotiation_.tolerate("its text does not end in a NUL byte");
  }
  for (const TextPair& pair : *pairs) {
    Result<void> taken;
    if (pair.value.size() > kMaxTextValueBytes && pair.key != "CHAP_C" && pair.key != "CHAP_R") {
      negotiation_.tolerate("it sends a value of more than 255 bytes");
    }
    if (pair.key == "AuthMethod") {
      taken = take_auth_method(pair.value);
    } else if (pair.key.starts_with("CHAP_")) {
      taken = expects_chap
                  ? chap_->take(pair)
                  : fail(ErrorCode::protocol,
                         fmt::format("the target sends {}, which was not asked", pair.key));
    } else {
      taken = negotiation_.take(pair, out_);
    }
    if (!taken) {
      return taken;
    }
  }
  in_.clear();
  if (security && expects_chap) {
    return chap_->advance(out_);
  }
  if (security && chap_ && !chap_->answered()) {
    return chap_->offer(out_);  // the target has just agreed to CHAP
  }
  return {};
}

// A target may tell a list in place of its choice: the first of it that was offered, as Linux's
// initiator takes it.
std::string_view Login::chosen_auth_method(std::string_view list) const {
  for (std::string_view rest = list; !rest.empty();) {
    const std::string_view method = take_up_to(rest, ',');
    if ((method == "CHAP" && options_.chap.enabled()) ||
        (method == "None" && !options_.chap.mutual())) {
      return method;
    }
  }
  return list;
}

Result<void> Login::take_auth_method(std::string_view list) {
  const std::string_view method = chosen_auth_method(list);
  if (method != list) {
    negotiation_.tolerate("it answers AuthMethod with a list");
  }
  if (auth_method_known_ && method == auth_method_ && method == "None") {
    negotiation_.tolerate("it answers AuthMethod twice");
    return {};
  }
  if (stage_ != LoginStage::security_negotiation || auth_method_known_) {
    return fail(ErrorCode::protocol, "the target answers AuthMethod, which was not asked");
  }
  auth_method_known_ = true;
  auth_method_ = method;
  const ChapOptions& chap = options_.chap;
  if (method == "CHAP" && chap.enabled()) {
    chap_.emplace(chap, chap_algorithms_);
    return {};
  }
  if (method == "None" && !chap.mutual()) {
    return {};
  }
  if (chap.mutual()) {
    return fail(ErrorCode::permission_denied,
                "the target does not do CHAP, but it must prove who it is; set CHAP up on the "
                "target, or remove username_in and password_in here");
  }
  return tl::unexpected(that_authentication_failed());
}

// The target says no more than that, and what was offered tells which options it can be about.
Error Login::that_authentication_failed() const {
  const ChapOptions& chap = options_.chap;
  const char* const sentence =
      !chap.enabled()
          ? "the target wants authentication, and none is set up here: set username and password "
            "(CHAP) in the configuration file, or allow this initiator without authentication on "
            "the target"
      : !chap.mutual()
          ? "authentication failed: compare username and password with the CHAP user and secret on "
            "the target"
      : in_chap() ? "authentication failed: compare username and password with the CHAP user and "
                    "secret on the target, and see that it has an outgoing user for username_in "
                    "and password_in"
                  : "the target refuses CHAP, by which it must prove who it is: set CHAP up on the "
                    "target, or remove username_in and password_in here";
  return {ErrorCode::permission_denied, sentence};
}

Result<Login::Progress> Login::take_redirect() {
  // It is all that is wanted of the text, whatever else is wrong there.
  constexpr std::string_view kTargetAddress = "TargetAddress=";
  for (std::string_view rest = in_; !rest.empty();) {
    const std::string_view pair = take_up_to(rest, '\0');
    if (pair.starts_with(kTargetAddress) && pair.size() > kTargetAddress.size() &&
        pair.size() <= kTargetAddress.size() + kMaxTextValueBytes) {
      redirect_address_ = std::string(pair.substr(kTargetAddress.size()));
      return Progress::redirected;
    }
  }
  return fail(ErrorCode::protocol,
              describe_login_status(status_).message + " but it does not say where to");
}

std::string Login::describe_chap(const Error& why) const {
  if (!in_chap()) {
    return "";
  }
  // One of all that there are: which ones may be offered was not the matter.
  if (why.code == ErrorCode::permission_denied && chap_->algorithm() &&
      options_.chap.algorithms.empty()) {
    return fmt::format("CHAP with {}", to_string(*chap_->algorithm()));
  }
  std::string list;
  for (const ChapAlgorithm algorithm : chap_->offered()) {
    list += fmt::format("{}{}", list.empty() ? "" : ",", to_string(algorithm));
  }
  return fmt::format("of chap_algs = {} the target had chosen {}", list,
                     chap_->algorithm() ? to_string(*chap_->algorithm()) : "none");
}

Result<Login::Progress> Login::advance(const LoginResponsePdu& response) {
  if (!response.transit) {
    return Progress::request;  // the target wants another round in this stage
  }
  if (!transit_asked_) {
    return fail(ErrorCode::protocol, "the target left the login stage without being asked");
  }
  if (!authenticated()) {
    return fail(ErrorCode::permission_denied,
                "the target ended the security stage before it had proved who it is");
  }
  const bool from_security = stage_ == LoginStage::security_negotiation;
  if (response.next_stage == LoginStage::full_feature_phase) {
    if (from_security) {
      // The RFC's defaults hold then, of which none is more than we can do.
      negotiation_.tolerate("it leaves the operational stage out");
    }
    if (auto checked = negotiation_.check_complete(); !checked) {
      return tl::unexpected(checked.error());
    }
    return Progress::complete;
  }
  if (response.next_stage != LoginStage::operational_negotiation || !from_security) {
    return fail(ErrorCode::protocol, "the target went to a login stage that was not asked for");
  }
  stage_ = LoginStage::operational_negotiation;
  asked_ = false;
  return Progress::request;
}

}  // namespace iscsi_blkback
