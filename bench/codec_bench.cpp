// The PDU codec: what the headers of one command cost.
#include <benchmark/benchmark.h>

#include <array>

#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {
namespace {

void encode_read_command(benchmark::State& state) {
  std::array<std::byte, kBhsBytes> bytes{};
  ScsiCommandPdu pdu;
  pdu.read = true;
  pdu.expected_data_bytes = 4096;
  pdu.cdb[0] = 0x88;
  for (auto _ : state) {
    pdu.initiator_task_tag = ++pdu.cmd_sn;
    encode(pdu, bytes);
    benchmark::DoNotOptimize(bytes.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(encode_read_command);

void encode_data_out(benchmark::State& state) {
  std::array<std::byte, kBhsBytes> bytes{};
  DataOutPdu pdu;
  pdu.data_bytes = 4096;
  for (auto _ : state) {
    ++pdu.data_sn;
    encode(pdu, bytes);
    benchmark::DoNotOptimize(bytes.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(encode_data_out);

// As for every PDU received: the common header first, then what it is.
template <class Pdu, class Decode>
void decode_one(benchmark::State& state, const Pdu& pdu, Decode decode) {
  std::array<std::byte, kBhsBytes> bytes{};
  encode(pdu, bytes);
  for (auto _ : state) {
    benchmark::DoNotOptimize(bytes.data());
    benchmark::ClobberMemory();
    PduHeader header = decode_header(bytes);
    benchmark::DoNotOptimize(header);
    auto decoded = decode(bytes);
    benchmark::DoNotOptimize(decoded);
  }
  state.SetItemsProcessed(state.iterations());
}

void decode_data_in_with_status(benchmark::State& state) {
  DataInPdu pdu;
  pdu.final = true;
  pdu.has_status = true;
  pdu.data_bytes = 4096;
  decode_one(state, pdu, decode_data_in);
}
BENCHMARK(decode_data_in_with_status);

void decode_good_response(benchmark::State& state) {
  decode_one(state, ScsiResponsePdu{}, decode_scsi_response);
}
BENCHMARK(decode_good_response);

void decode_ready_to_transfer(benchmark::State& state) {
  R2tPdu pdu;
  pdu.desired_bytes = 65536;
  decode_one(state, pdu, decode_r2t);
}
BENCHMARK(decode_ready_to_transfer);

}  // namespace
}  // namespace iscsi_blkback
