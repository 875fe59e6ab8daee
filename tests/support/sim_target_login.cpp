#include "tests/support/sim_target_connection.h"

namespace iscsi_blkback {

void SimTargetConnection::handle_login(const LoginRequestPdu& request,
                                       std::span<const std::byte> data) {
  if (logged_in_) {
    violation("a Login Request in the full feature phase");
    return;
  }
  const SimTarget::Portal& at = *target_.portals_[portal];
  login_text_.append(reinterpret_cast<const char*>(data.data()), data.size());
  LoginResponsePdu response{.transit = request.transit,
                            .more = false,
                            .current_stage = request.current_stage,
                            .next_stage = request.next_stage,
                            .version_max = 0,
                            .version_active = 0,
                            .data_bytes = 0,
                            .isid = request.isid,
                            .tsih = 0,
                            .initiator_task_tag = request.initiator_task_tag,
                            .numbers = {},
                            .status_class = 0,
                            .status_detail = 0};
  sequence_.begin(request.cmd_sn);
  isid = request.isid;
  std::string text;
  std::uint16_t status = at.login_status;
  if (status == 0 && !at.redirect.empty()) {
    status = at.redirect_status;
    text = "TargetAddress=" + at.redirect + '\0';
  }
  if (status == 0 && !request.more) {
    auto answer = negotiated_.answer(login_text_, target_.options_,
                                     target_.options_.portals[portal].group_tag);
    login_text_.clear();
    if (answer) {
      text = std::move(*answer);
    } else if (answer.error().code == ErrorCode::not_found) {
      status = 0x0203;
    } else if (answer.error().code == ErrorCode::permission_denied) {
      status = 0x0201;
    } else {
      violation(std::move(answer.error().message));
      return;
    }
  }
  response.status_class = static_cast<std::uint8_t>(status >> 8);
  response.status_detail = static_cast<std::uint8_t>(status & 0xff);
  const bool complete =
      status == 0 && request.transit && request.next_stage == LoginStage::full_feature_phase;
  if (status != 0) {
    response.transit = false;
    finish_after_send_ = true;
  } else if (complete) {
    response.tsih = target_.next_tsih_++;
    const std::size_t terminated = target_.reinstate(*this);
    ++target_.counters.logins;
    if (target_.observer_ != nullptr) {
      target_.observer_->on_login(number(), portal, isid, terminated);
    }
    logged_in_ = true;
    if (target_.options_.power_on_unit_attention) {
      for (const auto& [number, lun] : target_.luns_) {
        unit_attentions[number].push_back(0x2900);
      }
    }
  }
  response.data_bytes = static_cast<std::uint32_t>(text.size());
  response.numbers = numbers(true);
  send(response, std::as_bytes(std::span{text}));
  if (complete) {
    digests_ = negotiated_.digests;
  }
}

}  // namespace iscsi_blkback
