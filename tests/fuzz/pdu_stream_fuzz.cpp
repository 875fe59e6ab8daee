// A live session against a target that does anything. The bytes are a list of the target's actions
// (answers right and wrong, raw PDUs, cuts anywhere, logins) and of what the initiator's side does
// meanwhile. Nothing may crash, and whatever happens:
//  - every task and every task management function ends exactly once;
//  - a read that succeeded has every byte as the target sent it for that offset;
//  - what the initiator sends of a write is what its buffer has at that offset.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/byte_order.h"
#include "initiator/scsi/cdb.h"
#include "initiator/session/session.h"
#include "tests/fuzz/silent_log.h"
#include "tests/support/scripted_target.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxStreamActions = 300;
constexpr std::size_t kMaxCommands = 64;
constexpr std::uint32_t kMaxTransfer = 65536;
constexpr std::byte kUntouched{0xee};

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

// What a LUN contains, or a write's buffer, at a place. Never kUntouched.
std::byte content(std::uint32_t offset) {
  return static_cast<std::byte>(offset * 7 % 0xed);
}

class Input {
 public:
  Input(const std::uint8_t* bytes, std::size_t size) : bytes_(bytes), size_(size) {}
  [[nodiscard]] bool empty() const { return size_ == 0; }
  std::uint8_t u8() {
    if (size_ == 0) {
      return 0;
    }
    --size_;
    return *bytes_++;
  }
  std::uint16_t u16() {
    const std::uint8_t high = u8();
    return static_cast<std::uint16_t>(high << 8 | u8());
  }
  std::uint32_t u32() {
    const std::uint32_t high = u16();
    return high << 16 | u16();
  }

 private:
  const std::uint8_t* bytes_;
  std::size_t size_;
};

struct StreamCommand {
  ScsiTask task;
  std::vector<std::byte> data;
  int completions = 0;

  void submit(Session& session, DataDirection direction, std::uint32_t bytes) {
    data.assign(bytes, kUntouched);
    if (direction == DataDirection::out) {
      for (std::uint32_t at = 0; at < bytes; ++at) {
        data[at] = content(at);
      }
    }
    const std::uint32_t blocks = bytes / 512;
    task.cdb = direction == DataDirection::in    ? read16_cdb(0, blocks)
               : direction == DataDirection::out ? write16_cdb(0, blocks)
                                                 : test_unit_ready_cdb();
    task.direction = direction;
    task.data = data.data();
    task.data_length_bytes = bytes;
    task.owner = this;
    task.on_complete = [](ScsiTask& completed) noexcept {
      static_cast<StreamCommand*>(completed.owner)->completed();
    };
    session.submit(task);
  }
  void completed() {
    ++completions;
    require(completions == 1);
    if (task.succeeded() && task.direction == DataDirection::in) {
      for (std::uint32_t at = 0; at < data.size(); ++at) {
        require(data[at] == content(at));
      }
    }
  }
};

struct StreamFunction {
  TaskManagement function;
  int completions = 0;

  void begin(Session& session, TaskFunction which, const ScsiTask& task) {
    function.function = which;
    function.task = which == TaskFunction::abort_task ? &task : nullptr;
    function.owner = this;
    function.on_complete = [](TaskManagement& completed) noexcept {
      require(++static_cast<StreamFunction*>(completed.owner)->completions == 1);
    };
    session.submit(function);
  }
};

// What the target has of a command of the present connection.
struct SeenCommand {
  std::uint32_t tag = 0;
  bool read = false;
  bool write = false;
  std::uint32_t expected_bytes = 0;
  std::uint32_t sent_bytes = 0;  // of Data-In, in order
  std::uint32_t data_sn = 0;
  std::uint32_t r2t_sn = 0;
};

class StreamMachine {
 public:
  explicit StreamMachine(Input& input)
      : input_(input),
        reactor_(input.u8()),
        address_(SocketAddress::parse("10.0.0.1", 3260).value()),
        target_(reactor_, address_),
        shape_(input.u8()),
        session_(reactor_, options()) {
    reactor_.network().set_split(address_, SimDirection::to_client,
                                 (shape_ & 0x10) != 0 ? 1 + input.u8() : 0);
    session_.start();
    log_in();
  }

  void run() {
    for (std::size_t i = 0; i < kMaxStreamActions && !input_.empty(); ++i) {
      act();
      look();
    }
    target_.reset();
    bool stopped = false;
    session_.stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
    require(reactor_.run_until([&] { return stopped; }));
    for (const auto& command : commands_) {
      require(command->completions == 1);
    }
    for (const auto& function : functions_) {
      require(function->completions == 1);
    }
  }

 private:
  SessionOptions options() const {
    SessionOptions options;
    options.initiator_name = "iqn.2026-01.test:i";
    options.target_name = "iqn.2026-01.test:t";
    options.portal = address_;
    options.initial_r2t = (shape_ & 1) != 0;
    options.immediate_data = (shape_ & 2) == 0;
    options.header_digest = (shape_ & 4) != 0 ? DigestOffer::crc32c : DigestOffer::none;
    options.data_digest = (shape_ & 8) != 0 ? DigestOffer::crc32c : DigestOffer::none;
    options.max_outstanding_r2t = 4;
    options.max_commands = 32;
    options.max_recv_data_segment_length = 8192;
    // Near the end of the numbers, so that they wrap.
    options.initial_cmd_sn = 0xfffffffa;
    return options;
  }

  // The next login; the session tries by itself.
  void log_in() {
    if (!reactor_.run_until(
            [this] {
              return session_.state() == SessionState::in_login && target_.connected() &&
                     !target_.received.empty();
            },
            std::chrono::seconds(20))) {
      return;
    }
    seen_.clear();
    std::vector<std::pair<std::string, std::string>> keys = {
        {"FirstBurstLength", "8192"},
        {"MaxBurstLength", "16384"},
        {"MaxOutstandingR2T", "4"},
        {"InitialR2T", (shape_ & 1) != 0 ? "Yes" : "No"},
        {"ImmediateData", (shape_ & 2) == 0 ? "Yes" : "No"},
        {"HeaderDigest", (shape_ & 4) != 0 ? "CRC32C" : "None"},
        {"DataDigest", (shape_ & 8) != 0 ? "CRC32C" : "None"}};
    if (target_.accept_login(std::move(keys), 0xfffffffc, 16)) {
      reactor_.run_for(milliseconds(5));
    }
  }

  // Takes what the initiator has sent, and checks it.
  void look() {
    while (!target_.received.empty()) {
      if (session_.state() == SessionState::in_login) {
        return;  // log_in() wants it
      }
      const ReceivedPdu pdu = std::move(target_.received.front());
      target_.received.pop_front();
      last_ = pdu.bytes;
      if (pdu.header.opcode == Opcode::scsi_command) {
        const ScsiCommandPdu command = decode_scsi_command(pdu.bhs());
        check_sent(pdu, 0, command.expected_data_bytes);
        seen_.push_back({.tag = command.initiator_task_tag,
                         .read = command.read,
                         .write = command.write,
                         .expected_bytes = command.expected_data_bytes});
        if (!pdu.header.immediate) {
          target_.exp_cmd_sn = command.cmd_sn + 1;
          target_.max_cmd_sn = command.cmd_sn + 16;
        }
      } else if (pdu.header.opcode == Opcode::data_out) {
        check_sent(pdu, decode_data_out(pdu.bhs()).buffer_offset, kMaxTransfer);
      } else if (pdu.header.opcode == Opcode::nop_out) {
        nop_tag_ = pdu.header.initiator_task_tag;
      } else if (pdu.header.opcode == Opcode::task_management_request) {
        function_tag_ = pdu.header.initiator_task_tag;
      } else {
        other_tag_ = pdu.header.initiator_task_tag;
      }
    }
  }
  static void check_sent(const ReceivedPdu& pdu, std::uint32_t offset, std::uint32_t limit) {
    const auto data = pdu.data();
    require(offset <= limit && data.size() <= limit - offset);
    for (std::uint32_t at = 0; at < data.size(); ++at) {
      require(data[at] == content(offset + at));
    }
  }

  SeenCommand& chosen() {
    static SeenCommand nobody;
    nobody = {.tag = 0x12345678, .read = true, .expected_bytes = 512};
    return seen_.empty() ? nobody : seen_[input_.u8() % seen_.size()];
  }

  static std::vector<std::byte> content_of(std::uint32_t offset, std::uint32_t bytes) {
    std::vector<std::byte> data(bytes);
    for (std::uint32_t at = 0; at < bytes; ++at) {
      data[at] = content(offset + at);
    }
    return data;
  }

  void act() {
    const std::uint8_t action = input_.u8() % 24;
    const bool speaks = (action >= 6 && action <= 19 && action != 18) || action == 23;
    if (speaks && (!target_.connected() || finished_ == target_.connections())) {
      return;
    }
    switch (action) {
      case 0:
      case 1:
        submit(DataDirection::in);
        break;
      case 2:
        submit(DataDirection::out);
        break;
      case 3:
        submit(DataDirection::none);
        break;
      case 4:
        reactor_.run_for(std::chrono::microseconds(input_.u8()));
        break;
      case 5:
        reactor_.run_for(milliseconds(std::uint32_t{input_.u8()} << (input_.u8() % 6)));
        break;
      case 6:
        send_data_in(chosen(), 0);
        break;
      case 7:
        send_data_in(chosen(), input_.u8());
        break;
      case 8:
        send_response(chosen(), 0);
        break;
      case 9:
        send_response(chosen(), input_.u8());
        break;
      case 10:
        send_sense(chosen());
        break;
      case 11:
        send_r2t(chosen(), 0);
        break;
      case 12:
        send_r2t(chosen(), input_.u8());
        break;
      case 13:
        send_nop_in();
        break;
      case 14:
        send_async();
        break;
      case 15:
        send_reject();
        break;
      case 16:
        send_raw();
        break;
      case 17:
        cut();
        break;
      case 18:
        log_in();
        break;
      case 19:
        send_logout_response();
        break;
      case 20:
        target_.stat_sn += input_.u8();
        target_.max_cmd_sn = target_.exp_cmd_sn + input_.u8() - 1U;
        break;
      case 21:
        session_.drop(Error{ErrorCode::timed_out, "a checker says so"});
        break;
      case 22:
        manage();
        break;
      case 23:
        send_function_response();
        break;
      default:
        break;
    }
  }

  void submit(DataDirection direction) {
    const std::uint32_t blocks = 1 + input_.u8() % (kMaxTransfer / 512);
    if (commands_.size() == kMaxCommands) {
      return;
    }
    commands_.push_back(std::make_unique<StreamCommand>());
    commands_.back()->submit(session_, direction,
                             direction == DataDirection::none ? 0 : blocks * 512);
    reactor_.run_for(std::chrono::microseconds(500));
  }

  void manage() {
    constexpr std::array kFunctions = {
        TaskFunction::abort_task, TaskFunction::abort_task_set, TaskFunction::logical_unit_reset,
        TaskFunction::target_warm_reset, TaskFunction::target_cold_reset};
    const TaskFunction function = kFunctions[input_.u8() % kFunctions.size()];
    const std::size_t which = input_.u8();
    if (functions_.size() == kMaxCommands || commands_.empty()) {
      return;
    }
    StreamCommand& command = *commands_[which % commands_.size()];
    if (function == TaskFunction::abort_task && command.completions != 0) {
      return;
    }
    functions_.push_back(std::make_unique<StreamFunction>());
    functions_.back()->begin(session_, function, command.task);
    reactor_.run_for(std::chrono::microseconds(500));
  }

  void send_function_response() {
    TaskManagementResponsePdu pdu;
    pdu.response = (input_.u8() & 1) != 0 ? input_.u8() : std::uint8_t{0};
    pdu.initiator_task_tag = (input_.u8() & 3) != 0 ? function_tag_ : input_.u32();
    pdu.numbers = target_.status_numbers();
    target_.send(pdu);
  }

  // wrong: which fields are not as they ought to be, one bit each.
  void send_data_in(SeenCommand& command, std::uint8_t wrong) {
    DataInPdu pdu;
    const std::uint32_t left = command.expected_bytes - command.sent_bytes;
    const std::uint32_t most = std::min<std::uint32_t>(left, 8192);
    std::uint32_t bytes = (wrong & 1) != 0 ? input_.u16() : most;
    pdu.buffer_offset = (wrong & 2) != 0 ? input_.u16() : command.sent_bytes;
    pdu.data_sn = (wrong & 4) != 0 ? input_.u8() : command.data_sn;
    pdu.initiator_task_tag = (wrong & 8) != 0 ? input_.u32() : command.tag;
    pdu.final = (wrong & 16) != 0 ? (input_.u8() & 1) != 0 : bytes == left;
    pdu.has_status = (wrong & 32) != 0 ? (input_.u8() & 1) != 0 : pdu.final && (shape_ & 0x20) != 0;
    pdu.numbers = target_.numbers();
    if ((wrong & 64) != 0) {
      pdu.underflow = true;
      pdu.residual_bytes = input_.u32();
    }
    if (pdu.has_status) {
      ++target_.stat_sn;
      pdu.status = (wrong & 128) != 0 ? input_.u8() : std::uint8_t{0};
    }
    bytes = std::min<std::uint32_t>(bytes, 20000);
    pdu.data_bytes = bytes;
    command.sent_bytes += std::min(bytes, left);
    ++command.data_sn;
    target_.send(pdu, content_of(pdu.buffer_offset, bytes));
  }

  void send_response(const SeenCommand& command, std::uint8_t wrong) {
    ScsiResponsePdu pdu;
    pdu.initiator_task_tag = (wrong & 1) != 0 ? input_.u32() : command.tag;
    pdu.response = (wrong & 2) != 0 ? input_.u8() : std::uint8_t{0};
    pdu.status = (wrong & 4) != 0 ? input_.u8() : std::uint8_t{0};
    pdu.underflow = (wrong & 8) != 0;
    pdu.overflow = (wrong & 16) != 0;
    pdu.residual_bytes = (wrong & 24) != 0 ? input_.u32() : 0;
    pdu.exp_data_sn = (wrong & 32) != 0 ? input_.u8() : command.data_sn;
    pdu.numbers = target_.status_numbers();
    if ((wrong & 64) != 0) {
      pdu.numbers.stat_sn = input_.u32();
    }
    target_.send(pdu);
  }

  void send_sense(const SeenCommand& command) {
    std::vector<std::byte> data(2 + input_.u8() % 64);
    store_be16(data.data(), input_.u8());  // SenseLength, as the target says
    for (std::size_t at = 2; at < data.size(); ++at) {
      data[at] = static_cast<std::byte>(input_.u8());
    }
    ScsiResponsePdu pdu;
    pdu.initiator_task_tag = command.tag;
    pdu.status = 0x02;
    pdu.data_bytes = static_cast<std::uint32_t>(data.size());
    pdu.numbers = target_.status_numbers();
    target_.send(pdu, data);
  }

  void send_r2t(SeenCommand& command, std::uint8_t wrong) {
    R2tPdu pdu;
    pdu.initiator_task_tag = (wrong & 1) != 0 ? input_.u32() : command.tag;
    pdu.target_transfer_tag = (wrong & 2) != 0 ? input_.u32() : 0x100U + command.r2t_sn;
    pdu.r2t_sn = (wrong & 4) != 0 ? input_.u8() : command.r2t_sn;
    pdu.buffer_offset = (wrong & 8) != 0 ? input_.u32() : command.sent_bytes;
    pdu.desired_bytes = (wrong & 16) != 0 ? input_.u32() : 8192;
    pdu.numbers = target_.numbers();
    ++command.r2t_sn;
    command.sent_bytes += 8192;
    target_.send(pdu);
  }

  void send_nop_in() {
    NopInPdu pdu;
    const std::uint8_t kind = input_.u8();
    pdu.initiator_task_tag = (kind & 1) != 0 ? nop_tag_ : kReservedTag;
    pdu.target_transfer_tag = (kind & 2) != 0 ? input_.u32() : kReservedTag;
    pdu.numbers = (kind & 1) != 0 ? target_.status_numbers() : target_.numbers();
    const std::vector<std::byte> ping((kind & 4) != 0 ? input_.u8() : 0);
    pdu.data_bytes = static_cast<std::uint32_t>(ping.size());
    target_.send(pdu, ping);
  }

  void send_async() {
    AsyncMessagePdu pdu;
    pdu.event = static_cast<AsyncEvent>(input_.u8());
    pdu.parameter1 = input_.u8();
    pdu.parameter2 = input_.u8() % 8;
    pdu.parameter3 = input_.u8() % 8;
    pdu.numbers = target_.status_numbers();
    target_.send(pdu);
  }

  void send_reject() {
    RejectPdu pdu;
    pdu.reason = input_.u8();
    std::vector<std::byte> header = last_;
    header.resize((input_.u8() & 7) == 0 ? input_.u8() % 48 : kBhsBytes);
    pdu.data_bytes = static_cast<std::uint32_t>(header.size());
    pdu.numbers = target_.status_numbers();
    target_.send(pdu, header);
  }

  void send_logout_response() {
    LogoutResponsePdu pdu;
    pdu.response = input_.u8() % 5;
    pdu.initiator_task_tag = (input_.u8() & 1) != 0 ? other_tag_ : input_.u32();
    pdu.time2wait = input_.u8();
    pdu.numbers = target_.status_numbers();
    target_.send(pdu);
  }

  // Any header, with a tag that is in use unless the bytes say otherwise, and as much data as they
  // say, which need not be what the header says.
  void send_raw() {
    const std::uint8_t kind = input_.u8();
    std::vector<std::byte> pdu(kBhsBytes);
    for (std::byte& byte : pdu) {
      byte = static_cast<std::byte>(input_.u8());
    }
    if ((kind & 1) == 0) {
      store_be32(pdu.data() + 16, chosen().tag);
    }
    if ((kind & 2) == 0) {
      store_be32(pdu.data() + 24, target_.stat_sn);
    }
    const PduHeader header = decode_header(BhsBytes{pdu.data(), kBhsBytes});
    const std::size_t total = header.total_bytes(target_.digests);
    if (total > 40000) {
      target_.send_bytes(pdu);  // far more than any initiator declares
      return;
    }
    pdu.resize(total);
    const auto data = content_of(load_be32(pdu.data() + 40), header.data_bytes);
    std::copy(data.begin(), data.end(),
              pdu.begin() + static_cast<std::ptrdiff_t>(header.data_offset(target_.digests)));
    put_digests(pdu, header, target_.digests);
    if ((kind & 4) != 0) {
      // Cut: what would follow would be taken for its data.
      pdu.resize(input_.u16() % (pdu.size() + 1));
      target_.send_bytes(pdu);
      finish();
      return;
    }
    target_.send_bytes(pdu);
  }

  void finish() {
    target_.finish();
    finished_ = target_.connections();
    reactor_.run_for(milliseconds(1));
  }

  void cut() {
    switch (input_.u8() % 4) {
      case 0:
        target_.reset();
        break;
      case 1:
        finish();
        break;
      case 2: {
        // In the middle of an answer.
        DataInPdu answer;
        answer.data_bytes = 512;
        answer.initiator_task_tag = chosen().tag;
        const auto pdu = pdu_bytes(answer, content_of(0, 512), target_.digests);
        target_.send_bytes(std::span(pdu).first(1 + input_.u16() % (pdu.size() - 1)));
        reactor_.run_for(std::chrono::microseconds(input_.u8()));
        finish();
        break;
      }
      default:
        reactor_.network().reset_connections(address_);
        break;
    }
    reactor_.run_for(milliseconds(1));
  }

  Input& input_;
  SimReactor reactor_;
  const SocketAddress address_;
  ScriptedTarget target_;
  const std::uint8_t shape_;
  std::vector<std::unique_ptr<StreamCommand>> commands_;
  std::vector<std::unique_ptr<StreamFunction>> functions_;
  Session session_;
  std::vector<SeenCommand> seen_;
  std::vector<std::byte> last_ = std::vector<std::byte>(kBhsBytes);
  int finished_ = 0;  // the connection that has been ended in order
  std::uint32_t nop_tag_ = 0xfff1;
  std::uint32_t other_tag_ = 0xfff2;
  std::uint32_t function_tag_ = 0xfff3;
};

}  // namespace
}  // namespace iscsi_blkback

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace iscsi_blkback;
  silence_log();
  Input input(bytes, size);
  StreamMachine(input).run();
  return 0;
}
