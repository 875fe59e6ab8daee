#include "bench/null_target_connection.h"

namespace iscsi_blkback {

void NullTargetConnection::handle_login(const LoginRequestPdu& request,
                                        std::span<const std::byte> data, ReplyBatch& replies) {
  if (logged_in_) {
    violate("a Login Request in the full feature phase");
    return;
  }
  login_text_.append(reinterpret_cast<const char*>(data.data()), data.size());
  LoginResponsePdu response;
  response.transit = request.transit;
  response.current_stage = request.current_stage;
  response.next_stage = request.next_stage;
  response.isid = request.isid;
  response.initiator_task_tag = request.initiator_task_tag;
  sequence_.begin(request.cmd_sn);
  isid_ = request.isid;
  std::string text;
  if (!request.more) {
    auto answer = negotiated_.answer(login_text_, settings_.protocol, group_tag_);
    login_text_.clear();
    if (answer) {
      text = std::move(*answer);
    } else if (answer.error().code == ErrorCode::not_found) {
      response.status_class = 0x02;
      response.status_detail = 0x03;
      response.transit = false;
      finished_ = true;
    } else {
      violate(std::move(answer.error().message));
      return;
    }
  }
  if (!finished_ && request.transit && request.next_stage == LoginStage::full_feature_phase) {
    response.tsih = tsih_;
    logged_in_ = true;
    if (settings_.protocol.power_on_unit_attention) {
      unit_attentions_.push_back(0x2900);
    }
  }
  response.data_bytes = static_cast<std::uint32_t>(text.size());
  response.numbers = numbers(true);
  send(response, std::as_bytes(std::span{text}), false, replies);
  if (logged_in_) {
    digests_ = negotiated_.digests;
  }
}

}  // namespace iscsi_blkback
