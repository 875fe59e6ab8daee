// DiscoverySession: asks one portal for all its targets (SendTargets=All, RFC 7143 4.3 and appendix
// C): a login with SessionType=Discovery, text requests until the answer is complete, a logout. On
// the way it follows redirects and tries each address of the portal's name (RedirectChain) and each
// CHAP offer that is worth it (ChapLadder). What refuses is asked again if the options say so. Once, within its time
// limit. Reactor thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/reactor.h"
#include "base/result.h"
#include "initiator/discovery/send_targets.h"
#include "initiator/login/chap_logins.h"
#include "initiator/login/redirect_chain.h"
#include "initiator/login/resolve.h"
#include "initiator/login/session_options.h"
#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {

struct DiscoveryOptions {
  std::string initiator_name;
  std::vector<SocketAddress> addresses;  // of one portal, at least one: tried in turn
  std::string portal_name;               // as the operator wrote it, for messages
  ChapOptions chap;                      // check_chap_options() has accepted it
  DigestOffer header_digest = DigestOffer::none;
  DigestOffer data_digest = DigestOffer::none;
  InterfaceBinding interface_binding = {};
  std::chrono::milliseconds connect_timeout{1500};
  std::chrono::milliseconds timeout{15000};  // of everything together
  // Times that all addresses are tried, kPause apart, where they refuse or a connection is lost: a
  // target that is just being started lets us in at the second or third.
  std::uint32_t rounds = 1;
};

// What is asked on behalf of sessions with these options.
[[nodiscard]] DiscoveryOptions discovery_options(const SessionOptions& session,
                                                 std::vector<SocketAddress> addresses,
                                                 std::string portal_name);

class DiscoverySession final : private ByteStream::Owner {
 public:
  // Once, on the reactor, never from inside; the session may be deleted then. An error is one
  // sentence that says where and why.
  using Done = void (*)(void* owner, Result<Discovery> discovery) noexcept;

  // resolver and chap_memory outlive the session.
  DiscoverySession(Reactor& reactor, DiscoveryOptions options,
                   NameResolver& resolver = system_name_resolver(),
                   ChapMemory& chap_memory = process_chap_memory());
  ~DiscoverySession();  // not started, or done
  DiscoverySession(const DiscoverySession&) = delete;
  DiscoverySession& operator=(const DiscoverySession&) = delete;

  void start(Done done, void* owner);
  // done comes soon, with an error.
  void cancel();

 private:
  enum class State : std::uint8_t {
    idle,
    connecting,
    login,
    asking,
    logout,
    looking_up,
    pausing,
    closing
  };
  static constexpr std::chrono::milliseconds kPause{500};
  static constexpr std::uint32_t kMaxLogins = 64;
  static constexpr std::uint32_t kMaxTextRequests = 65536;
  static constexpr std::uint32_t kTag = 1;  // of everything: there is one task at a time

  // ByteStream::Owner
  void on_connected() noexcept override;
  void on_sent() noexcept override;
  void on_received(std::size_t count) noexcept override;
  void on_closed(const Error& error) noexcept override;

  void connect();
  void on_timer();
  void receive();
  void parse_received();
  void take_pdu(BhsBytes bytes, const PduHeader& header, std::span<const std::byte> data);
  void take_login_response(BhsBytes bytes, std::span<const std::byte> data);
  void take_text_response(const TextResponsePdu& pdu, std::span<const std::byte> data);
  void ask(std::uint32_t target_transfer_tag, std::uint64_t lun);
  void take_reject(const RejectPdu& pdu, std::span<const std::byte> data);
  void answer_ping(const NopInPdu& pdu);
  void log_out();
  void send(std::vector<std::byte> pdu);
  template <class Pdu>
  void send_pdu(const Pdu& pdu, std::string_view text = {});
  void send_next();

  // Leaves the connection; what comes next is decided when it has gone.
  void close();
  void fail_attempt(Error why);
  void on_address_found(const Result<void>& found);
  void decide();
  void note_trouble(Error failure);
  void begin_round();
  void begin_login();
  void fail_for_good();
  void finish(Result<Discovery> discovery);
  [[nodiscard]] Duration time_left() const;
  [[nodiscard]] const char* doing() const;

  Reactor& reactor_;
  const DiscoveryOptions options_;
  const SessionOptions login_options_;
  State state_ = State::idle;
  Timer timer_;
  Deferred decide_;
  std::unique_ptr<ByteStream> stream_;
  bool closed_ = false;
  TimePoint deadline_{};
  Done done_ = nullptr;
  void* owner_ = nullptr;

  std::uint32_t logins_ = 0;
  std::uint32_t rounds_left_ = 0;
  ChapLogins chap_logins_;
  RedirectChain redirects_;
  std::optional<Error> failure_;  // of this attempt
  bool same_address_ = false;     // another CHAP offer, or the same once more
  std::string trouble_;           // of all attempts
  ErrorCode trouble_code_ = ErrorCode::unavailable;
  std::optional<Result<Discovery>> result_;

  // The connection.
  std::optional<Login> login_;
  Digests digests_;
  std::uint32_t cmd_sn_ = 1;
  std::uint32_t exp_stat_sn_ = 0;
  std::uint32_t text_requests_ = 0;
  std::optional<SendTargetsAnswer> answer_;
  std::vector<std::byte> received_;  // not parsed yet
  std::vector<std::byte> buffer_;
  std::vector<std::byte> sending_;
  std::vector<std::vector<std::byte>> to_send_;
  bool in_send_ = false;
};

}  // namespace iscsi_blkback
