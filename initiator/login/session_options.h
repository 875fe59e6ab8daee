// What a session needs to know before it starts. The negotiable keys have their RFC 7143 names and
// are what we offer; the outcome is in NegotiatedParameters. Everything in it concerns the session
// as a whole. A value; any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "base/words.h"
#include "initiator/login/chap.h"
#include "initiator/pdu/digest.h"
#include "initiator/pdu/isid.h"

namespace iscsi_blkback {

// What is offered of a digest, the first choice first (RFC 7143 13.1). The target picks.
enum class DigestOffer : std::uint8_t { none, crc32c, crc32c_or_none, none_or_crc32c };
// As the login and the configuration write them.
inline constexpr Word<DigestOffer> kDigestOffers[] = {{"None", DigestOffer::none},
                                                      {"CRC32C", DigestOffer::crc32c},
                                                      {"CRC32C,None", DigestOffer::crc32c_or_none},
                                                      {"None,CRC32C", DigestOffer::none_or_crc32c}};

struct SessionOptions {
  std::string initiator_name;   // iqn., eui. or naa. name
  std::string initiator_alias;  // sent when not empty
  std::string target_name;
  SocketAddress portal;
  // Of the same portal, whose host name has several: each is tried when a login by the one before
  // has failed.
  std::vector<SocketAddress> other_addresses;
  std::string portal_name;  // as the operator wrote it, for messages
  InterfaceBinding interface_binding;
  std::uint16_t session_number = 0;  // tells sessions of the same portal and interface apart
  Isid isid{};

  ChapOptions chap;
  ChapOptions discovery_chap;  // of SendTargets discovery

  DigestOffer header_digest = DigestOffer::none;
  DigestOffer data_digest = DigestOffer::none;
  bool initial_r2t = false;
  bool immediate_data = true;
  std::uint32_t max_recv_data_segment_length = 262144;
  std::uint32_t max_burst_length = 16776192;
  std::uint32_t first_burst_length = 262144;
  std::uint16_t max_outstanding_r2t = 1;  // 1..8
  std::uint16_t default_time2wait = 2;
  std::uint16_t default_time2retain = 0;

  // At most this many commands at the target at once, whatever its window allows; up to 4096.
  std::uint16_t max_commands = 1024;
  // The CmdSN of the first command of a connection.
  std::uint32_t initial_cmd_sn = 1;

  // One TCP connection attempt. Short, because a path that comes back is found by the next attempt,
  // while the kernel repeats a lost SYN only after 1, 3, 7 seconds.
  std::chrono::milliseconds connect_timeout{1500};
  std::chrono::milliseconds login_timeout{15000};  // connect and login together
  std::chrono::milliseconds logout_timeout{5000};
  std::chrono::milliseconds noop_out_interval{5000};  // 0: none
  std::chrono::milliseconds noop_out_timeout{5000};
  // With commands outstanding and nothing received for this long, a NOP-Out asks at once, and who
  // observes the session hears that it is silent. 0: never.
  std::chrono::milliseconds stall_probe{200};
  // ... and when nothing has arrived for this long in all, the connection is dropped.
  std::chrono::milliseconds path_timeout{2000};
  std::chrono::milliseconds tcp_user_timeout{10000};
  // A command that has not moved for this long, while no older one of the session has either, is
  // stuck: ABORT TASK. 0: never. Controllers that take over for each other can need a minute.
  std::chrono::milliseconds command_timeout{30000};
  // For the answers to ABORT TASK, LOGICAL UNIT RESET and TARGET WARM or COLD RESET.
  std::chrono::milliseconds abort_timeout{10000};
  std::chrono::milliseconds lu_reset_timeout{20000};
  std::chrono::milliseconds tgt_reset_timeout{30000};
  std::chrono::milliseconds relogin_backoff_min{100};  // doubles, with jitter, up to max
  std::chrono::milliseconds relogin_backoff_max{1000};

  bool operator==(const SessionOptions&) const = default;
};

struct NegotiatedParameters {
  Digests digests;
  bool initial_r2t = true;
  bool immediate_data = false;
  std::uint32_t max_send_data_segment_length = 8192;  // the target's MaxRecvDataSegmentLength
  std::uint32_t max_recv_data_segment_length = 8192;  // ours
  std::uint32_t max_burst_length = 262144;
  std::uint32_t first_burst_length = 65536;
  std::uint16_t max_outstanding_r2t = 1;
  std::uint16_t default_time2wait = 2;
  std::uint16_t default_time2retain = 20;
  std::uint16_t target_portal_group_tag = 0;
  bool target_portal_group_tag_known = false;
  std::string target_alias;  // printable
};

}  // namespace iscsi_blkback
