// TargetOptions: what a target negotiates and how it answers, whatever carries its bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace iscsi_blkback {

struct TargetOptions {
  std::string name = "iqn.2026-01.test:target";
  bool tells_portal_group = true;
  bool header_digest = false;  // CRC32C when the initiator allows it
  bool data_digest = false;
  bool initial_r2t = false;
  bool immediate_data = true;
  std::uint32_t max_recv_data_segment_length = 65536;
  std::uint32_t max_burst_length = 262144;
  std::uint32_t first_burst_length = 65536;
  std::uint32_t window = 128;                  // commands that MaxCmdSN allows at once
  std::uint32_t initial_stat_sn = 0xfffffff0;  // wraps early in every test
  std::uint32_t max_data_in_bytes = 0;         // a Data-In PDU; 0: what the initiator declared
  bool status_with_data = true;                // else a separate SCSI Response after Data-In
  bool power_on_unit_attention = true;         // 06/29/00 for the first command of a new session
  // Names and secrets (CHAP, MD5) of those who may log in; empty: anybody may.
  std::map<std::string, std::string> chap_secrets = {};
};

}  // namespace iscsi_blkback
