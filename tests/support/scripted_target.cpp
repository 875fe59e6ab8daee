#include "tests/support/scripted_target.h"

#include <algorithm>

namespace iscsi_blkback {

ScriptedTarget::ScriptedTarget(SimReactor& reactor, const SocketAddress& address)
    : reactor_(reactor), buffer_(std::size_t{256} * 1024) {
  listener_ = reactor.network().listen(address, *this);
}

ScriptedTarget::~ScriptedTarget() = default;

void ScriptedTarget::on_accept(std::unique_ptr<SimStream> stream) noexcept {
  if (stream_) {
    old_streams_.push_back(std::move(stream_));
  }
  stream_ = std::move(stream);
  stream_->set_owner(*this);
  ++connections_;
  close_reason_.clear();
  received.clear();
  inbox_.clear();
  outbox_.clear();
  sending_.clear();
  finish_after_send_ = false;
  digests = {};
  receive();
}

void ScriptedTarget::receive() {
  const iovec part{.iov_base = buffer_.data(), .iov_len = buffer_.size()};
  stream_->receive({&part, 1});
}

void ScriptedTarget::on_received(std::size_t count) noexcept {
  inbox_.insert(inbox_.end(), buffer_.begin(),
                buffer_.begin() + static_cast<std::ptrdiff_t>(count));
  while (inbox_.size() >= kBhsBytes) {
    const PduHeader header = decode_header(BhsBytes{inbox_.data(), kBhsBytes});
    if (inbox_.size() < header.total_bytes(digests)) {
      break;
    }
    const auto end = inbox_.begin() + static_cast<std::ptrdiff_t>(header.total_bytes(digests));
    if (digests_match({inbox_.data(), header.total_bytes(digests)}, header, digests)) {
      received.push_back({.bytes = {inbox_.begin(), end}, .header = header, .digests = digests});
    } else {
      ++digest_errors;
    }
    inbox_.erase(inbox_.begin(), end);
  }
  receive();
}

void ScriptedTarget::on_sent() noexcept {
  sending_.clear();
  pump();
}

void ScriptedTarget::on_closed(const Error& error) noexcept {
  close_reason_ = error.message.empty() ? "closed" : error.message;
}

bool ScriptedTarget::next(Opcode opcode, ReceivedPdu& pdu) {
  if (!reactor_.run_until([this] { return !received.empty(); }, std::chrono::minutes(1))) {
    return false;
  }
  pdu = std::move(received.front());
  received.pop_front();
  return pdu.header.opcode == opcode;
}

void ScriptedTarget::send_bytes(std::span<const std::byte> bytes) {
  outbox_.insert(outbox_.end(), bytes.begin(), bytes.end());
  pump();
}

void ScriptedTarget::pump() {
  if (!connected() || !sending_.empty()) {
    return;
  }
  if (outbox_.empty()) {
    if (std::exchange(finish_after_send_, false)) {
      stream_->finish();
    }
    return;
  }
  sending_.swap(outbox_);
  const iovec part{.iov_base = sending_.data(), .iov_len = sending_.size()};
  stream_->send({&part, 1});
}

void ScriptedTarget::reset() {
  stream_->reset();
}

void ScriptedTarget::finish() {
  finish_after_send_ = true;
  pump();
}

bool ScriptedTarget::accept_login(std::vector<std::pair<std::string, std::string>> keys,
                                  std::uint32_t first_stat_sn, std::uint32_t window) {
  stat_sn = first_stat_sn;
  for (const LoginStage stage :
       {LoginStage::security_negotiation, LoginStage::operational_negotiation}) {
    ReceivedPdu pdu;
    if (!next(Opcode::login_request, pdu)) {
      return false;
    }
    const LoginRequestPdu request = decode_login_request(pdu.bhs());
    if (request.current_stage != stage || !request.transit) {
      return false;
    }
    exp_cmd_sn = request.cmd_sn;
    max_cmd_sn = request.cmd_sn + window - 1;
    std::vector<std::string> pairs;
    if (stage == LoginStage::security_negotiation) {
      pairs = {"AuthMethod=None", "TargetPortalGroupTag=1"};
    } else {
      std::vector<std::pair<std::string, std::string>> answers = {
          {"HeaderDigest", "None"},       {"DataDigest", "None"},
          {"MaxConnections", "1"},        {"InitialR2T", "No"},
          {"ImmediateData", "Yes"},       {"MaxRecvDataSegmentLength", "8192"},
          {"MaxBurstLength", "262144"},   {"FirstBurstLength", "65536"},
          {"DefaultTime2Wait", "2"},      {"DefaultTime2Retain", "0"},
          {"MaxOutstandingR2T", "1"},     {"DataPDUInOrder", "Yes"},
          {"DataSequenceInOrder", "Yes"}, {"ErrorRecoveryLevel", "0"}};
      for (const auto& [key, value] : keys) {
        std::erase_if(answers, [&name = key](const auto& answer) { return answer.first == name; });
        answers.emplace_back(key, value);
      }
      for (const auto& [key, value] : answers) {
        pairs.push_back(key + "=" + value);
      }
    }
    const std::vector<std::byte> text = text_bytes(pairs);
    send(LoginResponsePdu{.transit = true,
                          .more = false,
                          .current_stage = stage,
                          .next_stage = request.next_stage,
                          .version_max = 0,
                          .version_active = 0,
                          .data_bytes = static_cast<std::uint32_t>(text.size()),
                          .isid = request.isid,
                          .tsih = 1,
                          .initiator_task_tag = request.initiator_task_tag,
                          .numbers = status_numbers(),
                          .status_class = 0,
                          .status_detail = 0},
         text);
  }
  for (const auto& [key, value] : keys) {
    digests.header = digests.header || (key == "HeaderDigest" && value == "CRC32C");
    digests.data = digests.data || (key == "DataDigest" && value == "CRC32C");
  }
  return true;
}

}  // namespace iscsi_blkback
