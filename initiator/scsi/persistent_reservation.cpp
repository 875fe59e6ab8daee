#include "initiator/scsi/persistent_reservation.h"

#include <algorithm>

#include "base/byte_order.h"

namespace iscsi_blkback {
namespace {

tl::unexpected<Error> reservation_data_cut_off() {
  return fail(ErrorCode::protocol, "the PERSISTENT RESERVE IN data is cut off");
}

}  // namespace

Result<ReservationKeys> parse_reservation_keys(std::span<const std::byte> bytes) {
  if (bytes.size() < 8) {
    return reservation_data_cut_off();
  }
  const std::size_t length = load_be32(bytes.data() + 4);
  const std::size_t arrived = bytes.size() - 8;
  ReservationKeys result{
      .generation = load_be32(bytes.data()), .keys = {}, .complete = length <= arrived};
  for (std::size_t at = 0; at + 8 <= std::min(length, arrived); at += 8) {
    result.keys.push_back(load_be64(bytes.data() + 8 + at));
  }
  return result;
}

Result<ReservationState> parse_reservation(std::span<const std::byte> bytes) {
  if (bytes.size() < 8) {
    return reservation_data_cut_off();
  }
  ReservationState state{.generation = load_be32(bytes.data()), .reservation = {}};
  const std::uint32_t length = load_be32(bytes.data() + 4);
  if (length == 0) {
    return state;
  }
  if (length < 16 || bytes.size() < 8 + 16) {
    return reservation_data_cut_off();
  }
  state.reservation = {
      .key = load_be64(bytes.data() + 8),
      .type = static_cast<ReservationType>(std::to_integer<unsigned>(bytes[21]) & 0x0f)};
  return state;
}

void encode_reserve_out_list(const ReserveOutList& values, std::span<std::byte> list) {
  ISCSI_BLKBACK_ASSERT(list.size() >= kReserveOutListBytes);
  std::fill_n(list.begin(), kReserveOutListBytes, std::byte{0});
  store_be64(list.data(), values.key);
  store_be64(list.data() + 8, values.service_action_key);
  list[20] = static_cast<std::byte>((values.all_target_ports ? 0x04 : 0x00) |
                                    (values.persist_through_power_loss ? 0x01 : 0x00));
}

}  // namespace iscsi_blkback
