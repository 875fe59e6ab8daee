// The bytes of every kind of PDU, written out from the tables of RFC 7143 section 11. Encoder and
// decoder share their offsets, and the simulated targets share both: only bytes that come from
// neither of them show a field at the wrong place.
#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {
namespace {

using Header = std::array<std::byte, kBhsBytes>;

// Two hexadecimal digits for each byte, with blanks as one likes.
Header bytes(std::string text) {
  std::erase(text, ' ');
  EXPECT_EQ(text.size(), 2 * kBhsBytes) << text;
  text.resize(2 * kBhsBytes, '0');
  Header header;
  for (std::size_t at = 0; at < header.size(); ++at) {
    header[at] = static_cast<std::byte>(std::stoi(text.substr(2 * at, 2), nullptr, 16));
  }
  return header;
}

std::string text_of(const Header& header) {
  std::ostringstream out;
  for (std::size_t at = 0; at < header.size(); ++at) {
    out << (at % 4 == 0 ? " " : "") << std::hex << std::to_integer<unsigned>(header[at] >> 4)
        << std::to_integer<unsigned>(header[at] & std::byte{15});
  }
  return out.str();
}

template <class Pdu>
Header encoded(const Pdu& pdu) {
  Header header;
  header.fill(std::byte{0xee});
  encode(pdu, BhsBuffer{header});
  return header;
}

// The PDU has these bytes, and these bytes are that PDU: each of its fields has a value of its own,
// so that one that was read from another place would be written to another place.
template <class Pdu, class Decode>
void expect_bytes(const Pdu& pdu, Decode decode, const std::string& text) {
  const Header right = bytes(text);
  EXPECT_EQ(text_of(encoded(pdu)), text_of(right));
  EXPECT_EQ(text_of(encoded(decode(BhsBytes{right}))), text_of(right));
}

// The second byte when nothing but this is said.
template <class Pdu>
std::byte flags_with(bool Pdu::*said) {
  Pdu pdu;
  pdu.*said = true;
  return encoded(pdu)[1];
}

constexpr TargetNumbers kNumbers{
    .stat_sn = 0x51525354, .exp_cmd_sn = 0x61626364, .max_cmd_sn = 0x71727374};

TEST(PduBytes, NopOut) {
  expect_bytes(NopOutPdu{.immediate = true,
                         .data_bytes = 0x010203,
                         .lun = 0x0001020304050607,
                         .initiator_task_tag = 0x11121314,
                         .target_transfer_tag = 0x21222324,
                         .cmd_sn = 0x31323334,
                         .exp_stat_sn = 0x41424344},
               decode_nop_out,
               "40 80 00 00  00 01 02 03  00 01 02 03  04 05 06 07"
               "11 12 13 14  21 22 23 24  31 32 33 34  41 42 43 44"
               "00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00");
}

TEST(PduBytes, ScsiCommand) {
  expect_bytes(ScsiCommandPdu{.final = true,
                              .read = true,
                              .write = false,
                              .data_bytes = 0x010203,
                              .lun = 0x0001020304050607,
                              .initiator_task_tag = 0x11121314,
                              .expected_data_bytes = 0x21222324,
                              .cmd_sn = 0x31323334,
                              .exp_stat_sn = 0x41424344,
                              .cdb = {0x88, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
               decode_scsi_command,
               "01 c1 00 00  00 01 02 03  00 01 02 03  04 05 06 07"
               "11 12 13 14  21 22 23 24  31 32 33 34  41 42 43 44"
               "88 01 02 03  04 05 06 07  08 09 0a 0b  0c 0d 0e 0f");
  const Header write = encoded(ScsiCommandPdu{.final = false, .read = false, .write = true});
  EXPECT_EQ(write[1], std::byte{0x21}) << "W and the attribute SIMPLE, not F";
}

TEST(PduBytes, TaskManagementRequest) {
  expect_bytes(TaskManagementRequestPdu{.function = TaskFunction::logical_unit_reset,
                                        .lun = 0x0001020304050607,
                                        .initiator_task_tag = 0x11121314,
                                        .referenced_task_tag = 0x21222324,
                                        .cmd_sn = 0x31323334,
                                        .exp_stat_sn = 0x41424344,
                                        .ref_cmd_sn = 0x51525354},
               decode_task_management_request,
               "42 85 00 00  00 00 00 00  00 01 02 03  04 05 06 07"
               "11 12 13 14  21 22 23 24  31 32 33 34  41 42 43 44"
               "51 52 53 54  00 00 00 00  00 00 00 00  00 00 00 00");
}

TEST(PduBytes, LoginRequest) {
  expect_bytes(LoginRequestPdu{.transit = true,
                               .more = false,
                               .current_stage = LoginStage::operational_negotiation,
                               .next_stage = LoginStage::full_feature_phase,
                               .version_max = 0x0a,
                               .version_min = 0x0b,
                               .data_bytes = 0x010203,
                               .isid = {0x80, 1, 2, 3, 4, 5},
                               .tsih = 0x0607,
                               .initiator_task_tag = 0x11121314,
                               .cid = 0x2122,
                               .cmd_sn = 0x31323334,
                               .exp_stat_sn = 0x41424344},
               decode_login_request,
               "43 87 0a 0b  00 01 02 03  80 01 02 03  04 05 06 07"
               "11 12 13 14  21 22 00 00  31 32 33 34  41 42 43 44"
               "00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00");
  const Header more =
      encoded(LoginRequestPdu{.more = true, .current_stage = LoginStage::operational_negotiation});
  EXPECT_EQ(more[1], std::byte{0x44}) << "C and the current stage, no next one";
}

TEST(PduBytes, DataOut) {
  expect_bytes(DataOutPdu{.final = true,
                          .data_bytes = 0x010203,
                          .lun = 0x0001020304050607,
                          .initiator_task_tag = 0x11121314,
                          .target_transfer_tag = 0x21222324,
                          .exp_stat_sn = 0x41424344,
                          .data_sn = 0x51525354,
                          .buffer_offset = 0x61626364},
               decode_data_out,
               "05 80 00 00  00 01 02 03  00 01 02 03  04 05 06 07"
               "11 12 13 14  21 22 23 24  00 00 00 00  41 42 43 44"
               "00 00 00 00  51 52 53 54  61 62 63 64  00 00 00 00");
}

TEST(PduBytes, LogoutRequest) {
  expect_bytes(LogoutRequestPdu{.reason = 1,
                                .initiator_task_tag = 0x11121314,
                                .cid = 0x2122,
                                .cmd_sn = 0x31323334,
                                .exp_stat_sn = 0x41424344},
               decode_logout_request,
               "46 81 00 00  00 00 00 00  00 00 00 00  00 00 00 00"
               "11 12 13 14  21 22 00 00  31 32 33 34  41 42 43 44"
               "00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00");
}

TEST(PduBytes, NopIn) {
  expect_bytes(NopInPdu{.data_bytes = 0x010203,
                        .lun = 0x0001020304050607,
                        .initiator_task_tag = 0x11121314,
                        .target_transfer_tag = 0x21222324,
                        .numbers = kNumbers},
               decode_nop_in,
               "20 80 00 00  00 01 02 03  00 01 02 03  04 05 06 07"
               "11 12 13 14  21 22 23 24  51 52 53 54  61 62 63 64"
               "71 72 73 74  00 00 00 00  00 00 00 00  00 00 00 00");
}

TEST(PduBytes, ScsiResponse) {
  expect_bytes(ScsiResponsePdu{.overflow = true,
                               .underflow = false,
                               .bidirectional_overflow = true,
                               .bidirectional_underflow = false,
                               .response = 0x0a,
                               .status = 0x18,
                               .data_bytes = 0x010203,
                               .initiator_task_tag = 0x11121314,
                               .numbers = kNumbers,
                               .exp_data_sn = 0x21222324,
                               .residual_bytes = 0x31323334},
               decode_scsi_response,
               "21 94 0a 18  00 01 02 03  00 00 00 00  00 00 00 00"
               "11 12 13 14  00 00 00 00  51 52 53 54  61 62 63 64"
               "71 72 73 74  21 22 23 24  00 00 00 00  31 32 33 34");
}

TEST(PduBytes, ScsiResponseWithEachResidualBit) {
  // 11.4.1: o, u, O, U in bits 3 to 6 of the second byte, counted from the left.
  EXPECT_EQ(flags_with(&ScsiResponsePdu::bidirectional_overflow), std::byte{0x90});
  EXPECT_EQ(flags_with(&ScsiResponsePdu::bidirectional_underflow), std::byte{0x88});
  EXPECT_EQ(flags_with(&ScsiResponsePdu::overflow), std::byte{0x84});
  EXPECT_EQ(flags_with(&ScsiResponsePdu::underflow), std::byte{0x82});
  Header header{};
  header[1] = std::byte{0x82};
  EXPECT_TRUE(decode_scsi_response(BhsBytes{header}).underflow);
  EXPECT_FALSE(decode_scsi_response(BhsBytes{header}).overflow);
  header[1] = std::byte{0x84};
  EXPECT_TRUE(decode_scsi_response(BhsBytes{header}).overflow);
  EXPECT_FALSE(decode_scsi_response(BhsBytes{header}).underflow);
}

TEST(PduBytes, TaskManagementResponse) {
  expect_bytes(
      TaskManagementResponsePdu{
          .response = 5, .initiator_task_tag = 0x11121314, .numbers = kNumbers},
      decode_task_management_response,
      "22 80 05 00  00 00 00 00  00 00 00 00  00 00 00 00"
      "11 12 13 14  00 00 00 00  51 52 53 54  61 62 63 64"
      "71 72 73 74  00 00 00 00  00 00 00 00  00 00 00 00");
}

TEST(PduBytes, LoginResponse) {
  expect_bytes(LoginResponsePdu{.transit = true,
                                .more = false,
                                .current_stage = LoginStage::security_negotiation,
                                .next_stage = LoginStage::operational_negotiation,
                                .version_max = 0x0a,
                                .version_active = 0x0b,
                                .data_bytes = 0x010203,
                                .isid = {0x80, 1, 2, 3, 4, 5},
                                .tsih = 0x0607,
                                .initiator_task_tag = 0x11121314,
                                .numbers = kNumbers,
                                .status_class = 2,
                                .status_detail = 3},
               decode_login_response,
               "23 81 0a 0b  00 01 02 03  80 01 02 03  04 05 06 07"
               "11 12 13 14  00 00 00 00  51 52 53 54  61 62 63 64"
               "71 72 73 74  02 03 00 00  00 00 00 00  00 00 00 00");
}

TEST(PduBytes, DataIn) {
  expect_bytes(DataInPdu{.final = true,
                         .acknowledge = false,
                         .overflow = false,
                         .underflow = true,
                         .has_status = true,
                         .status = 0x08,
                         .data_bytes = 0x010203,
                         .initiator_task_tag = 0x11121314,
                         .target_transfer_tag = 0x21222324,
                         .numbers = kNumbers,
                         .data_sn = 0x31323334,
                         .buffer_offset = 0x41424344,
                         .residual_bytes = 0x01020304},
               decode_data_in,
               "25 83 00 08  00 01 02 03  00 00 00 00  00 00 00 00"
               "11 12 13 14  21 22 23 24  51 52 53 54  61 62 63 64"
               "71 72 73 74  31 32 33 34  41 42 43 44  01 02 03 04");
}

TEST(PduBytes, DataInWithEachFlag) {
  // 11.7.1: F, A, then O, U, S at the right end.
  EXPECT_EQ(flags_with(&DataInPdu::final), std::byte{0x80});
  EXPECT_EQ(flags_with(&DataInPdu::acknowledge), std::byte{0x40});
  EXPECT_EQ(flags_with(&DataInPdu::overflow), std::byte{0x04});
  EXPECT_EQ(flags_with(&DataInPdu::underflow), std::byte{0x02});
  EXPECT_EQ(flags_with(&DataInPdu::has_status), std::byte{0x01});
  Header header{};
  header[1] = std::byte{0x04};
  EXPECT_TRUE(decode_data_in(BhsBytes{header}).overflow);
  header[1] = std::byte{0x02};
  EXPECT_TRUE(decode_data_in(BhsBytes{header}).underflow);
  header[1] = std::byte{0x40};
  EXPECT_TRUE(decode_data_in(BhsBytes{header}).acknowledge);
}

TEST(PduBytes, LogoutResponse) {
  expect_bytes(LogoutResponsePdu{.response = 2,
                                 .initiator_task_tag = 0x11121314,
                                 .numbers = kNumbers,
                                 .time2wait = 0x2122,
                                 .time2retain = 0x3132},
               decode_logout_response,
               "26 80 02 00  00 00 00 00  00 00 00 00  00 00 00 00"
               "11 12 13 14  00 00 00 00  51 52 53 54  61 62 63 64"
               "71 72 73 74  00 00 00 00  21 22 31 32  00 00 00 00");
}

TEST(PduBytes, R2t) {
  expect_bytes(R2tPdu{.lun = 0x0001020304050607,
                      .initiator_task_tag = 0x11121314,
                      .target_transfer_tag = 0x21222324,
                      .numbers = kNumbers,
                      .r2t_sn = 0x31323334,
                      .buffer_offset = 0x41424344,
                      .desired_bytes = 0x01020304},
               decode_r2t,
               "31 80 00 00  00 00 00 00  00 01 02 03  04 05 06 07"
               "11 12 13 14  21 22 23 24  51 52 53 54  61 62 63 64"
               "71 72 73 74  31 32 33 34  41 42 43 44  01 02 03 04");
}

TEST(PduBytes, AsyncMessage) {
  expect_bytes(AsyncMessagePdu{.event = AsyncEvent::session_drop,
                               .data_bytes = 0x010203,
                               .lun = 0x0001020304050607,
                               .numbers = kNumbers,
                               .parameter1 = 0x1112,
                               .parameter2 = 0x2122,
                               .parameter3 = 0x3132},
               decode_async_message,
               "32 80 00 00  00 01 02 03  00 01 02 03  04 05 06 07"
               "ff ff ff ff  00 00 00 00  51 52 53 54  61 62 63 64"
               "71 72 73 74  03 00 11 12  21 22 31 32  00 00 00 00");
}

TEST(PduBytes, Reject) {
  expect_bytes(RejectPdu{.reason = 9, .data_bytes = 0x010203, .numbers = kNumbers}, decode_reject,
               "3f 80 09 00  00 01 02 03  00 00 00 00  00 00 00 00"
               "ff ff ff ff  00 00 00 00  51 52 53 54  61 62 63 64"
               "71 72 73 74  00 00 00 00  00 00 00 00  00 00 00 00");
}

}  // namespace
}  // namespace iscsi_blkback
