#include "initiator/discovery/discovery_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "initiator/login/target_address.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kReceiveBytes = 64 * 1024;
constexpr std::size_t kMaxQueuedPdus = 16;
constexpr std::size_t kMaxTroubleBytes = 600;
constexpr std::chrono::seconds kLogoutPatience{1};
constexpr std::uint32_t kInitialCmdSn = 1;

SessionOptions login_options(const DiscoveryOptions& discovery, std::uint64_t random) {
  ISCSI_BLKBACK_ASSERT(!discovery.addresses.empty());
  SessionOptions options;
  options.initiator_name = discovery.initiator_name;
  options.chap = discovery.chap;
  options.header_digest = discovery.header_digest;
  options.data_digest = discovery.data_digest;
  options.default_time2wait = options.default_time2retain = 0;
  options.portal = discovery.addresses.front();
  options.other_addresses.assign(discovery.addresses.begin() + 1, discovery.addresses.end());
  options.login_timeout = discovery.timeout;
  options.isid[0] = 0x80;  // random (RFC 7143 11.12.5)
  for (std::size_t at = 1; at < options.isid.size(); ++at) {
    options.isid[at] = static_cast<std::uint8_t>(random >> (8 * at) & 0xff);
  }
  return options;
}

// What a session demands of a digest, its discovery only prefers: the answer is text, and has keys.
DigestOffer preferred(DigestOffer offer) {
  return offer == DigestOffer::crc32c ? DigestOffer::crc32c_or_none : offer;
}

}  // namespace

DiscoveryOptions discovery_options(const SessionOptions& session,
                                   std::vector<SocketAddress> addresses, std::string portal_name) {
  return {.initiator_name = session.initiator_name,
          .addresses = std::move(addresses),
          .portal_name = std::move(portal_name),
          .chap = session.discovery_chap,
          .header_digest = preferred(session.header_digest),
          .data_digest = preferred(session.data_digest),
          .interface_binding = session.interface_binding,
          .connect_timeout = session.connect_timeout,
          .timeout = session.login_timeout};
}

DiscoverySession::DiscoverySession(Reactor& reactor, DiscoveryOptions options,
                                   NameResolver& resolver, ChapMemory& chap_memory)
    : reactor_(reactor),
      options_(std::move(options)),
      login_options_(login_options(options_, reactor.random())),
      timer_(
          reactor, [](void* self) noexcept { static_cast<DiscoverySession*>(self)->on_timer(); },
          this),
      decide_(
          reactor, [](void* self) noexcept { static_cast<DiscoverySession*>(self)->decide(); },
          this),
      rounds_left_(options_.rounds),
      chap_logins_(chap_memory, "discovery at " + options_.portal_name),
      redirects_(
          reactor, login_options_, chap_logins_.key(), resolver,
          [](void* self, const Result<void>& found) noexcept {
            static_cast<DiscoverySession*>(self)->on_address_found(found);
          },
          this),
      buffer_(kReceiveBytes) {
  ISCSI_BLKBACK_ASSERT(options_.rounds != 0);
}

DiscoverySession::~DiscoverySession() {
  ISCSI_BLKBACK_ASSERT(state_ == State::idle && !stream_);
}

void DiscoverySession::start(Done done, void* owner) {
  ISCSI_BLKBACK_ASSERT(state_ == State::idle && done_ == nullptr);
  done_ = done;
  owner_ = owner;
  deadline_ = reactor_.now() + options_.timeout;
  state_ = State::closing;
  begin_round();
  decide_.schedule();
}

void DiscoverySession::cancel() {
  if (state_ == State::idle) {
    return;
  }
  result_ = fail(ErrorCode::unavailable,
                 fmt::format("discovery at {} was stopped", options_.portal_name));
  close();
}

Duration DiscoverySession::time_left() const {
  return std::max(deadline_ - reactor_.now(), Duration::zero());
}

const char* DiscoverySession::doing() const {
  switch (state_) {
    case State::connecting:
      return "connecting";
    case State::login:
      return "logging in";
    case State::looking_up:
      return "looking up the host that it redirects to";
    case State::asking:
    case State::logout:
      return "asking for its targets";
    case State::pausing:
    case State::idle:
    case State::closing:
      break;
  }
  return "closing the connection";
}

void DiscoverySession::on_timer() {
  if (state_ == State::logout) {
    close();  // the answer is there
    return;
  }
  if (state_ == State::pausing) {
    begin_round();
    begin_login();
    return;
  }
  if (state_ == State::connecting && time_left() > Duration::zero()) {
    fail_attempt({ErrorCode::timed_out, "it does not answer in connect_timeout"});
    return;
  }
  std::string sentence =
      fmt::format("discovery at {} got no answer in time while {}", options_.portal_name, doing());
  if (!trouble_.empty()) {
    sentence += "; before that: " + trouble_;
  }
  result_ = fail(ErrorCode::timed_out, std::move(sentence));
  close();
}

void DiscoverySession::connect() {
  state_ = State::connecting;
  ++logins_;
  failure_.reset();
  received_.clear();
  to_send_.clear();
  in_send_ = false;
  digests_ = {};
  timer_.start_after(std::min<Duration>(options_.connect_timeout, time_left()));
  stream_ = reactor_.connect({.address = redirects_.login_address(),
                              .interface_binding = options_.interface_binding,
                              .tcp_user_timeout = options_.timeout},
                             *this);
}

void DiscoverySession::on_connected() noexcept {
  if (state_ != State::connecting) {
    return;
  }
  state_ = State::login;
  timer_.start_at(deadline_);
  cmd_sn_ = kInitialCmdSn;
  login_.emplace(login_options_, kTag, cmd_sn_,
                 chap_logins_.offer(login_options_.chap, reactor_.now()), SessionType::discovery);
  if (const auto checked = login_->check_options(); !checked) {
    result_ = fail(
        checked.error().code,
        fmt::format("discovery at {} failed: {}", options_.portal_name, checked.error().message));
    close();
    return;
  }
  std::vector<std::byte> request;
  login_->next_request(request);
  send(std::move(request));
  receive();
}

void DiscoverySession::receive() {
  const iovec part{.iov_base = buffer_.data(), .iov_len = buffer_.size()};
  stream_->receive({&part, 1});
}

void DiscoverySession::on_received(std::size_t count) noexcept {
  if (state_ == State::closing) {
    return;
  }
  received_.insert(received_.end(), buffer_.begin(),
                   buffer_.begin() + static_cast<std::ptrdiff_t>(count));
  parse_received();
  if (state_ != State::closing) {
    receive();
  }
}

void DiscoverySession::parse_received() {
  std::size_t begin = 0;
  while (state_ != State::closing && received_.size() - begin >= kBhsBytes) {
    const std::size_t available = received_.size() - begin;
    const BhsBytes bytes{received_.data() + begin, kBhsBytes};
    const PduHeader header = decode_header(bytes);
    const std::size_t data_at = header.data_offset(digests_);
    if (available < data_at) {
      break;
    }
    if (digests_.header && !digest_follows({bytes.data(), data_at - kDigestBytes})) {
      fail_attempt({ErrorCode::io, fmt::format("a {} arrived damaged (wrong header digest)",
                                               to_string(header.opcode))});
      return;
    }
    const std::size_t limit =
        state_ == State::login ? kMaxLoginDataBytes : login_options_.max_recv_data_segment_length;
    if (header.data_bytes > limit) {
      fail_attempt({ErrorCode::protocol,
                    fmt::format("it sends a {} with more data than MaxRecvDataSegmentLength allows",
                                to_string(header.opcode))});
      return;
    }
    if (available < header.total_bytes(digests_)) {
      break;
    }
    const std::span<const std::byte> data{bytes.data() + data_at, header.data_bytes};
    if (digests_.data && header.data_bytes != 0 &&
        !digest_follows({data.data(), padded(header.data_bytes)})) {
      fail_attempt({ErrorCode::io, fmt::format("a {} arrived damaged (wrong data digest)",
                                               to_string(header.opcode))});
      return;
    }
    begin += header.total_bytes(digests_);
    take_pdu(bytes, header, data);
  }
  received_.erase(received_.begin(), received_.begin() + static_cast<std::ptrdiff_t>(begin));
}

void DiscoverySession::take_pdu(BhsBytes bytes, const PduHeader& header,
                                std::span<const std::byte> data) {
  if (state_ == State::login) {
    take_login_response(bytes, data);
    return;
  }
  switch (header.opcode) {
    case Opcode::text_response:
      if (state_ == State::asking) {
        take_text_response(decode_text_response(bytes), data);
        return;
      }
      break;
    case Opcode::nop_in:
      answer_ping(decode_nop_in(bytes));
      return;
    case Opcode::logout_response:
      if (state_ == State::logout) {
        close();
        return;
      }
      break;
    case Opcode::async_message:
      exp_stat_sn_ = decode_async_message(bytes).numbers.stat_sn + 1;
      return;  // what it announces comes as the end of the connection
    case Opcode::reject:
      take_reject(decode_reject(bytes), data);
      return;
    default:
      break;
  }
  fail_attempt({ErrorCode::protocol,
                fmt::format("an unexpected {} (opcode 0x{:02x})", to_string(header.opcode),
                            static_cast<unsigned>(header.opcode))});
}

void DiscoverySession::take_login_response(BhsBytes bytes, std::span<const std::byte> data) {
  const Result<Login::Progress> progress = login_->receive(bytes, data);
  if (!progress) {
    fail_attempt({progress.error().code, "the login failed: " + progress.error().message});
    return;
  }
  switch (*progress) {
    case Login::Progress::request: {
      std::vector<std::byte> request;
      login_->next_request(request);
      send(std::move(request));
      return;
    }
    case Login::Progress::redirected:
      if (const auto followed = redirects_.redirect(login_->redirect_address(), false)) {
        close();
      } else {
        fail_attempt({followed.error().code, "it " + followed.error().message});
      }
      return;
    case Login::Progress::complete:
      break;
  }
  const NegotiatedParameters negotiated = login_->negotiated();
  digests_ = negotiated.digests;
  exp_stat_sn_ = login_->numbers().stat_sn + 1;
  chap_logins_.succeeded(*login_, reactor_.now());
  const SocketAddress& address = redirects_.login_address();
  TargetAddress asked{.host = address.host(), .port = address.port()};
  if (negotiated.target_portal_group_tag_known) {
    asked.group_tag = negotiated.target_portal_group_tag;
  }
  login_.reset();
  answer_.emplace(std::move(asked));
  text_requests_ = 0;
  state_ = State::asking;
  ask(kReservedTag, 0);
}

void DiscoverySession::ask(std::uint32_t target_transfer_tag, std::uint64_t lun) {
  ++text_requests_;
  constexpr std::string_view kQuestion{"SendTargets=All\0", 16};
  const std::string_view text = text_requests_ == 1 ? kQuestion : std::string_view{};
  send_pdu(TextRequestPdu{.data_bytes = static_cast<std::uint32_t>(text.size()),
                          .lun = lun,
                          .initiator_task_tag = kTag,
                          .target_transfer_tag = target_transfer_tag,
                          .cmd_sn = cmd_sn_,
                          .exp_stat_sn = exp_stat_sn_},
           text);
}

void DiscoverySession::take_text_response(const TextResponsePdu& pdu,
                                          std::span<const std::byte> data) {
  if (pdu.initiator_task_tag != kTag) {
    fail_attempt({ErrorCode::protocol, "it answers a question that was not asked"});
    return;
  }
  exp_stat_sn_ = pdu.numbers.stat_sn + 1;
  if (auto taken = answer_->take({reinterpret_cast<const char*>(data.data()), data.size()});
      !taken) {
    fail_attempt(taken.error());
    return;
  }
  const bool complete = pdu.final && !pdu.more;
  if (!complete) {
    if (!answer_->ends() && pdu.target_transfer_tag != kReservedTag &&
        text_requests_ < kMaxTextRequests) {
      ask(pdu.target_transfer_tag, pdu.lun);
      return;
    }
    answer_->cut_off();
  }
  auto discovery = answer_->finish();
  if (!discovery) {
    fail_attempt(discovery.error());
    return;
  }
  result_ = std::move(discovery);
  log_out();
}

void DiscoverySession::take_reject(const RejectPdu& pdu, std::span<const std::byte> data) {
  exp_stat_sn_ = pdu.numbers.stat_sn + 1;
  if (data.size() >= kBhsBytes &&
      decode_header(BhsBytes{data.data(), kBhsBytes}).opcode == Opcode::nop_out) {
    return;  // our answer to its ping: it knows that we are here
  }
  fail_attempt({ErrorCode::protocol,
                fmt::format("the target rejects the question (reason 0x{:02x})", pdu.reason)});
}

void DiscoverySession::answer_ping(const NopInPdu& pdu) {
  if (pdu.target_transfer_tag == kReservedTag) {
    return;
  }
  if (to_send_.size() == kMaxQueuedPdus) {
    fail_attempt({ErrorCode::protocol, "it sends more pings than it takes answers"});
    return;
  }
  send_pdu(NopOutPdu{.lun = pdu.lun,
                     .target_transfer_tag = pdu.target_transfer_tag,
                     .cmd_sn = cmd_sn_,
                     .exp_stat_sn = exp_stat_sn_});
}

void DiscoverySession::log_out() {
  state_ = State::logout;
  timer_.start_after(std::min<Duration>(kLogoutPatience, time_left()));
  send_pdu(
      LogoutRequestPdu{.initiator_task_tag = kTag, .cmd_sn = cmd_sn_, .exp_stat_sn = exp_stat_sn_});
}

template <class Pdu>
void DiscoverySession::send_pdu(const Pdu& pdu, std::string_view text) {
  std::vector<std::byte> bytes(kBhsBytes + digests_.header_bytes());
  encode(pdu, BhsBuffer{bytes.data(), kBhsBytes});
  if (digests_.header) {
    put_digest(crc32c({bytes.data(), kBhsBytes}), bytes.data() + kBhsBytes);
  }
  if (!text.empty()) {
    const std::size_t at = bytes.size();
    const std::size_t length = padded(text.size());
    bytes.resize(at + length + digests_.data_bytes(), std::byte{0});
    std::memcpy(bytes.data() + at, text.data(), text.size());
    if (digests_.data) {
      put_digest(crc32c({bytes.data() + at, length}), bytes.data() + at + length);
    }
  }
  send(std::move(bytes));
}

void DiscoverySession::send(std::vector<std::byte> pdu) {
  to_send_.push_back(std::move(pdu));
  send_next();
}

void DiscoverySession::send_next() {
  if (in_send_ || to_send_.empty() || state_ == State::closing) {
    return;
  }
  sending_ = std::move(to_send_.front());
  to_send_.erase(to_send_.begin());
  in_send_ = true;
  const iovec part{.iov_base = sending_.data(), .iov_len = sending_.size()};
  stream_->send({&part, 1});
}

void DiscoverySession::on_sent() noexcept {
  in_send_ = false;
  send_next();
}

void DiscoverySession::on_closed(const Error& error) noexcept {
  closed_ = true;
  if (state_ != State::closing && state_ != State::logout) {
    fail_attempt(error);
  }
  close();
}

void DiscoverySession::close() {
  state_ = State::closing;
  timer_.stop();
  redirects_.stop_looking_up();
  if (stream_ && !closed_) {
    stream_->reset();
    return;  // on_closed follows
  }
  decide_.schedule();
}

void DiscoverySession::fail_attempt(Error why) {
  if (state_ == State::closing || state_ == State::idle) {
    return;
  }
  if (result_) {  // it is complete, and only the end of the connection was missing
    close();
    return;
  }
  same_address_ = false;
  if (login_ && login_->in_chap()) {
    same_address_ = chap_logins_.failed(*login_, why) != ChapNext::first_again;
  }
  failure_ = std::move(why);
  close();
}

// Nothing of the connection is left; what comes next follows from how it has ended.
void DiscoverySession::decide() {
  stream_.reset();
  closed_ = false;
  login_.reset();
  answer_.reset();
  if (result_) {
    finish(std::move(*result_));
    return;
  }
  const bool address_has_failed = failure_.has_value() && !same_address_;
  if (address_has_failed) {
    note_trouble(*std::exchange(failure_, std::nullopt));
  }
  if (!address_has_failed && !redirects_.redirected()) {
    begin_login();  // the first one, or there again
    return;
  }
  switch (redirects_.next()) {
    case RedirectChain::Next::at_once:
      begin_login();
      return;
    case RedirectChain::Next::looking_up:
      state_ = State::looking_up;
      timer_.start_at(deadline_);
      return;
    case RedirectChain::Next::after_back_off:
      break;
  }
  // Silence has been waited for already.
  if (rounds_left_ != 0 && logins_ < kMaxLogins && trouble_code_ != ErrorCode::timed_out &&
      time_left() > kPause) {
    state_ = State::pausing;
    timer_.start_after(kPause);
    return;
  }
  fail_for_good();
}

// Where a name has several, each address is named with its reason.
void DiscoverySession::note_trouble(Error failure) {
  const std::string address = redirects_.login_address().to_string();
  const bool is_named =
      address == options_.portal_name || failure.message.find(address) != std::string::npos;
  if (trouble_.size() < kMaxTroubleBytes) {
    trouble_ += fmt::format("{}{}{}{}", trouble_.empty() ? "" : "; ", is_named ? "" : address,
                            is_named ? "" : ": ", failure.message);
  }
  trouble_code_ = failure.code;
  redirects_.failed(failure);
}

void DiscoverySession::begin_round() {
  --rounds_left_;
  redirects_.start();
  trouble_.clear();
}

void DiscoverySession::begin_login() {
  if (logins_ == kMaxLogins) {
    fail_for_good();
  } else {
    connect();
  }
}

void DiscoverySession::on_address_found(const Result<void>& found) {
  if (found) {
    begin_login();
  } else {
    fail_attempt({found.error().code, "it " + found.error().message});
  }
}

void DiscoverySession::fail_for_good() {
  finish(fail(trouble_code_,
              fmt::format("discovery at {} failed: {}", options_.portal_name,
                          trouble_.empty() ? "its redirects lead to no end" : trouble_)));
}

void DiscoverySession::finish(Result<Discovery> discovery) {
  state_ = State::idle;
  timer_.stop();
  const Done done = done_;
  done(owner_, std::move(discovery));  // may delete this
}

}  // namespace iscsi_blkback
