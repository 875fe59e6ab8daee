// Persistent reservations (SPC-4 5.13, 6.15, 6.16): the parameter data of PERSISTENT RESERVE IN,
// parsed with bounds from what really arrived, and the list of PERSISTENT RESERVE OUT. Pure
// functions; no policy. Errors: protocol, for data that are cut off.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

enum class ReserveInAction : std::uint8_t {
  read_keys = 0x00,
  read_reservation = 0x01,
};

enum class ReserveOutAction : std::uint8_t {
  register_key = 0x00,
  reserve = 0x01,
  release = 0x02,
  clear = 0x03,
  preempt = 0x04,
  preempt_and_abort = 0x05,
  register_and_ignore_existing_key = 0x06,
};

enum class ReservationType : std::uint8_t {
  none = 0x0,  // for actions without one
  write_exclusive = 0x1,
  exclusive_access = 0x3,
  write_exclusive_registrants_only = 0x5,
  exclusive_access_registrants_only = 0x6,
  write_exclusive_all_registrants = 0x7,
  exclusive_access_all_registrants = 0x8,
};

struct ReservationKeys {
  std::uint32_t generation = 0;  // counts changes
  std::vector<std::uint64_t> keys;
  bool complete = true;  // false: there are more than fitted into the buffer
};
[[nodiscard]] Result<ReservationKeys> parse_reservation_keys(std::span<const std::byte> bytes);

struct Reservation {
  std::uint64_t key = 0;
  ReservationType type{};
};
struct ReservationState {
  std::uint32_t generation = 0;
  std::optional<Reservation> reservation;
};
[[nodiscard]] Result<ReservationState> parse_reservation(std::span<const std::byte> bytes);

struct ReserveOutList {
  std::uint64_t key = 0;                 // the reservation key that this nexus has registered
  std::uint64_t service_action_key = 0;  // to register, or of whom to preempt
  bool all_target_ports = false;
  bool persist_through_power_loss = false;
};
inline constexpr std::size_t kReserveOutListBytes = 24;
void encode_reserve_out_list(const ReserveOutList& values, std::span<std::byte> list);

}  // namespace iscsi_blkback
