// A logged-in session with commands outstanding against an arbitrary stream of PDUs. The input is a
// list of headers, each followed by a byte count; tags that the session really uses are put in, so
// that the fuzzer gets past the first check.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/byte_order.h"
#include "base/log.h"
#include "initiator/cdb.h"
#include "initiator/session.h"
#include "tests/support/scripted_target.h"

namespace iscsi_blkback {
namespace {

struct Command {
  ScsiTask task;
  std::vector<std::byte> data = std::vector<std::byte>(65536);
  int completions = 0;

  void submit(Session& session, DataDirection direction) {
    task.cdb = direction == DataDirection::in ? read16_cdb(0, 128) : write16_cdb(0, 128);
    task.direction = direction;
    task.data = data.data();
    task.data_length_bytes = 65536;
    task.owner = this;
    task.on_complete = [](ScsiTask& completed) noexcept {
      ++static_cast<Command*>(completed.owner)->completions;
    };
    session.submit(task);
  }
};

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

void run(const std::uint8_t* bytes, std::size_t size) {
  SimReactor reactor(1);
  const SocketAddress address = SocketAddress::parse("10.0.0.1", 3260).value();
  ScriptedTarget target(reactor, address);
  SessionOptions options;
  options.initiator_name = "iqn.2026-01.test:i";
  options.target_name = "iqn.2026-01.test:t";
  options.portal = address;
  Session session(reactor, options);
  session.start();
  require(target.accept_login({{"FirstBurstLength", "8192"}}));
  require(reactor.run_until([&] { return session.state() == SessionState::logged_in; }));
  std::array<Command, 4> commands;
  for (std::size_t i = 0; i < commands.size(); ++i) {
    commands[i].submit(session, i % 2 == 0 ? DataDirection::in : DataDirection::out);
  }
  reactor.run_for(std::chrono::milliseconds(5));
  std::vector<std::uint32_t> tags = {0xfff1, 0xfff2, kReservedTag};
  for (const ReceivedPdu& pdu : target.received) {
    tags.push_back(pdu.header.initiator_task_tag);
  }

  std::vector<std::byte> stream;
  while (size >= kBhsBytes + 2) {
    const std::size_t at = stream.size();
    const std::size_t follow = static_cast<std::size_t>(bytes[0]) * 256 + bytes[1];
    const std::uint8_t tag = bytes[2 + 16];
    stream.resize(at + kBhsBytes + follow);
    std::memcpy(stream.data() + at, bytes + 2, kBhsBytes);
    if (tag < 0x80) {
      store_be32(stream.data() + at + 16, tags[tag % tags.size()]);
    }
    bytes += kBhsBytes + 2;
    size -= kBhsBytes + 2;
  }
  target.send_bytes(stream);
  reactor.run_for(std::chrono::seconds(1));
  target.reset();
  bool stopped = false;
  session.stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
  require(reactor.run_until([&] { return stopped; }));
  for (const Command& command : commands) {
    require(command.completions == 1);
  }
}

}  // namespace
}  // namespace iscsi_blkback

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  iscsi_blkback::set_log_level(iscsi_blkback::LogLevel::error);
  iscsi_blkback::run(bytes, size);
  return 0;
}
