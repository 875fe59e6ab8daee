#include "initiator/login.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace iscsi_blkback {
namespace {

// A login takes two requests; a target that keeps asking is cut off here.
constexpr std::uint32_t kMaxRequests = 32;
constexpr std::size_t kMaxNameBytes = 223;  // 4.2.7.1

bool usable(const std::string& text, std::size_t max_bytes, char lowest) {
  return text.size() <= max_bytes && std::none_of(text.begin(), text.end(), [&](char letter) {
           return static_cast<unsigned char>(letter) < static_cast<unsigned char>(lowest) ||
                  letter == 0x7f;
         });
}

bool usable_name(const std::string& name) {
  return !name.empty() && usable(name, kMaxNameBytes, '!');
}

}  // namespace

Error describe_login_status(std::uint16_t status) {
  switch (status) {
    case 0x0101:
      return {ErrorCode::unavailable, "the target has moved temporarily"};
    case 0x0102:
      return {ErrorCode::unavailable, "the target has moved permanently"};
    case 0x0200:
      return {ErrorCode::protocol, "the target calls the login the initiator's error"};
    case 0x0201:
      return {ErrorCode::permission_denied,
              "authentication failed: the target wants CHAP credentials; set them on both sides "
              "or allow this initiator without authentication"};
    case 0x0202:
      return {ErrorCode::permission_denied,
              "the target does not allow this initiator; add the initiator name to its access "
              "list"};
    case 0x0203:
      return {ErrorCode::not_found,
              "there is no target of this name at this portal; check the IQN"};
    case 0x0204:
      return {ErrorCode::not_found, "the target was removed from this portal for good"};
    case 0x0205:
      return {ErrorCode::unsupported, "the target does not support this iSCSI version"};
    case 0x0206:
      return {ErrorCode::unavailable,
              "the target has too many connections; close some or raise its limit"};
    case 0x0207:
      return {ErrorCode::protocol, "the target misses a parameter in the login"};
    case 0x0208:
      return {ErrorCode::protocol, "the target cannot include this connection in the session"};
    case 0x0209:
      return {ErrorCode::unsupported, "the target does not support this type of session"};
    case 0x020a:
      return {ErrorCode::protocol, "the target does not know the session any more"};
    case 0x020b:
      return {ErrorCode::protocol, "the target calls the login request invalid"};
    case 0x0300:
      return {ErrorCode::unavailable, "the target has an internal error; its log should say more"};
    case 0x0301:
      return {ErrorCode::unavailable, "the target's service is not available now"};
    case 0x0302:
      return {ErrorCode::unavailable, "the target is out of resources"};
    default:
      return {ErrorCode::unavailable,
              fmt::format("the target refuses the login with status 0x{:04x}", status)};
  }
}

Login::Login(const SessionOptions& options, std::uint32_t initiator_task_tag, std::uint32_t cmd_sn)
    : options_(options),
      negotiation_(options),
      initiator_task_tag_(initiator_task_tag),
      cmd_sn_(cmd_sn) {}

Result<void> Login::check_options() const {
  if (!usable_name(options_.initiator_name)) {
    return fail(ErrorCode::invalid_argument,
                "the initiator name is empty, too long or has blanks; set one like "
                "iqn.2026-01.org.example:host");
  }
  if (!usable_name(options_.target_name)) {
    return fail(ErrorCode::invalid_argument, "the target name is empty, too long or has blanks");
  }
  if (!usable(options_.initiator_alias, kMaxTextValueBytes, ' ')) {
    return fail(ErrorCode::invalid_argument,
                "the initiator alias is too long or has control characters");
  }
  return {};
}

void Login::next_request(std::vector<std::byte>& pdu) {
  if (!asked_ && !continuing_) {
    asked_ = true;
    if (stage_ == LoginStage::security_negotiation) {
      out_.add("InitiatorName", std::string_view{options_.initiator_name});
      if (!options_.initiator_alias.empty()) {
        out_.add("InitiatorAlias", std::string_view{options_.initiator_alias});
      }
      out_.add("TargetName", std::string_view{options_.target_name});
      out_.add("SessionType", std::string_view{"Normal"});
      out_.add("AuthMethod", std::string_view{"None"});
    } else {
      negotiation_.offer(out_);
    }
  }
  // While the target still sends the rest of its text, the request is empty and asks for nothing.
  transit_asked_ = !continuing_;
  ++requests_;
  const std::string& text = out_.text();
  pdu.assign(kBhsBytes + padded(text.size()), std::byte{0});
  encode(LoginRequestPdu{.transit = transit_asked_,
                         .more = false,
                         .current_stage = stage_,
                         .next_stage = stage_ == LoginStage::security_negotiation
                                           ? LoginStage::operational_negotiation
                                           : LoginStage::full_feature_phase,
                         .version_max = 0,
                         .version_min = 0,
                         .data_bytes = static_cast<std::uint32_t>(text.size()),
                         .isid = options_.isid,
                         .tsih = 0,
                         .initiator_task_tag = initiator_task_tag_,
                         .cid = 0,
                         .cmd_sn = cmd_sn_,
                         .exp_stat_sn = first_response_ ? 0 : numbers_.stat_sn + 1},
         BhsBuffer{pdu.data(), kBhsBytes});
  std::memcpy(pdu.data() + kBhsBytes, text.data(), text.size());
  out_.clear();
}

Result<Login::Progress> Login::receive(BhsBytes header, std::span<const std::byte> data) {
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
    return tl::unexpected(describe_login_status(status_));
  }
  continuing_ = response.more;
  if (requests_ >= kMaxRequests) {
    return fail(ErrorCode::protocol, "the login does not end; the target keeps asking");
  }
  if (continuing_) {
    if (response.transit) {
      return fail(ErrorCode::protocol, "the target's login response has both the T and the C bit");
    }
    return Progress::request;
  }
  if (auto taken = take_text(); !taken) {
    return taken;
  }
  return advance(response);
}

Result<void> Login::check_response(const LoginResponsePdu& response) {
  status_ = static_cast<std::uint16_t>(response.status_class << 8 | response.status_detail);
  if (response.initiator_task_tag != initiator_task_tag_) {
    return fail(ErrorCode::protocol, "the target's login response has another task tag");
  }
  if (status_ == 0) {
    if (response.version_active != 0) {
      return fail(ErrorCode::unsupported, "the target wants an iSCSI version that does not exist");
    }
    if (response.current_stage != stage_) {
      return fail(ErrorCode::protocol, "the target's login response is of another stage");
    }
    if (!first_response_ && response.numbers.stat_sn != numbers_.stat_sn + 1) {
      return fail(ErrorCode::protocol, "the target's login response has a wrong StatSN");
    }
  }
  first_response_ = false;
  numbers_ = response.numbers;
  return {};
}

Result<Login::Progress> Login::take_text() {
  const auto pairs = parse_login_text(in_);
  if (!pairs) {
    return tl::unexpected(pairs.error());
  }
  for (const TextPair& pair : *pairs) {
    if (pair.key == "AuthMethod" && pair.value != "None") {
      return tl::unexpected(describe_login_status(0x0201));
    }
    if (auto taken = negotiation_.take(pair, out_); !taken) {
      return tl::unexpected(taken.error());
    }
  }
  if (out_.text().size() > kMaxLoginDataBytes) {
    return fail(ErrorCode::protocol, "the target asks for too many keys that do not exist");
  }
  in_.clear();
  return Progress::request;
}

Result<Login::Progress> Login::take_redirect() {
  const auto pairs = parse_login_text(in_);
  if (!pairs) {
    return tl::unexpected(pairs.error());
  }
  for (const TextPair& pair : *pairs) {
    if (pair.key == "TargetAddress" && !pair.value.empty()) {
      redirect_address_ = std::string(pair.value);
      return Progress::redirected;
    }
  }
  return fail(ErrorCode::protocol,
              describe_login_status(status_).message + " but it does not say where to");
}

Result<Login::Progress> Login::advance(const LoginResponsePdu& response) {
  if (!response.transit) {
    return Progress::request;  // the target wants another round in this stage
  }
  if (!transit_asked_) {
    return fail(ErrorCode::protocol, "the target left the login stage without being asked");
  }
  const bool from_security = stage_ == LoginStage::security_negotiation;
  if (response.next_stage == LoginStage::full_feature_phase && !from_security) {
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
