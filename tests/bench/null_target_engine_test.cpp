// Our engine with the null target over real sockets: what is written is what is read, whatever the
// target's ways, with many requests under way. Both are what benchmarks measure.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <ostream>
#include <thread>
#include <vector>

#include "base/uring_reactor.h"
#include "bench/null_target.h"
#include "initiator/lun/logical_unit.h"
#include "initiator/session/session.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

struct Way {
  std::string name;
  std::function<void(NullTargetOptions&, SessionOptions&)> change;
};
void PrintTo(const Way& way, std::ostream* out) {
  *out << way.name;
}

// A region of the LUN that one request at a time writes and then reads.
struct Slot {
  ScsiTask task;
  BlockRequest request;
  std::vector<std::byte> written;
  std::vector<std::byte> read;
  bool done = true;
  bool good = false;
};

class EngineOnNullTarget : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    auto created = UringReactor::create();
    if (!created) {
      GTEST_SKIP() << created.error().message;
    }
    reactor = std::move(*created);
    NullTargetOptions target_options = null_target_defaults();
    target_options.lun.block_count = 64 * 1024;
    options.initiator_name = "iqn.2026-01.test:initiator";
    options.target_name = target_options.settings.protocol.name;
    options.isid = {0x80, 0, 0, 1, 0, 1};
    GetParam().change(target_options, options);
    auto opened = NullTarget::create(target_options);
    ASSERT_TRUE(opened) << opened.error().message;
    target = std::move(*opened);
    thread = std::thread([this] { target->run(stop); });
    options.portal = SocketAddress::parse("127.0.0.1", target->ports().front()).value();
    session = std::make_unique<Session>(*reactor, options);
    unit = std::make_unique<LogicalUnit>(*reactor, *session, encode_lun(0));
    session->start();
    ASSERT_TRUE(run_until([this] { return session->state() == SessionState::logged_in; }));
  }
  void TearDown() override {
    if (session) {
      bool stopped = false;
      session->stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
      EXPECT_TRUE(run_until([&] { return stopped; }));
    }
    unit.reset();
    session.reset();
    stop = true;
    if (thread.joinable()) {
      thread.join();
      EXPECT_EQ(target->violations(), std::vector<std::string>());
    }
  }

  template <class Condition>
  [[nodiscard]] bool run_until(Condition condition) {
    const TimePoint end = reactor->now() + 60s;
    while (!condition()) {
      if (reactor->now() > end) {
        return false;
      }
      reactor->run_once(50ms);
    }
    return true;
  }

  void submit(Slot& slot, BlockOperation operation, std::uint64_t sector) {
    std::vector<std::byte>& data = operation == BlockOperation::write ? slot.written : slot.read;
    slot.request.operation = operation;
    slot.request.sector = sector;
    slot.request.sector_count = static_cast<std::uint32_t>(data.size() / kSectorBytes);
    slot.request.data = data.data();
    unit->prepare_io(slot.task, slot.request);
    slot.task.owner = &slot;
    slot.task.on_complete = [](ScsiTask& task) noexcept {
      auto& completed = *static_cast<Slot*>(task.owner);
      completed.done = true;
      completed.good = task.succeeded();
    };
    slot.done = false;
    session->submit(slot.task);
  }

  // Writes and reads back, each of depth slots on its own, rounds times.
  void write_and_read_back(std::size_t bytes, std::size_t depth, int rounds) {
    std::vector<Slot> slots(depth);
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t index = 0; index < depth; ++index) {
        Slot& slot = slots[index];
        slot.written.resize(bytes);
        for (std::byte& byte : slot.written) {
          byte = static_cast<std::byte>(random.next());
        }
        slot.read.assign(bytes, std::byte{0xee});
        submit(slot, BlockOperation::write, index * bytes / kSectorBytes);
      }
      const auto all_done = [&] {
        return std::all_of(slots.begin(), slots.end(), [](const Slot& slot) { return slot.done; });
      };
      ASSERT_TRUE(run_until(all_done));
      for (std::size_t index = 0; index < depth; ++index) {
        ASSERT_TRUE(slots[index].good);
        submit(slots[index], BlockOperation::read, index * bytes / kSectorBytes);
      }
      ASSERT_TRUE(run_until(all_done));
      for (const Slot& slot : slots) {
        ASSERT_TRUE(slot.good);
        ASSERT_TRUE(slot.read == slot.written);
      }
    }
  }

  std::unique_ptr<UringReactor> reactor;
  SessionOptions options;
  std::unique_ptr<NullTarget> target;
  std::atomic<bool> stop = false;
  std::thread thread;
  std::unique_ptr<Session> session;
  std::unique_ptr<LogicalUnit> unit;
  SimRandom random{11};
};

TEST_P(EngineOnNullTarget, ReadsWhatItWroteSmallAndDeep) {
  write_and_read_back(4096, 300, 4);
}

TEST_P(EngineOnNullTarget, ReadsWhatItWroteMiddling) {
  write_and_read_back(65536, 16, 8);
}

TEST_P(EngineOnNullTarget, ReadsWhatItWroteLarge) {
  write_and_read_back(1024 * 1024, 4, 4);
}

TEST_P(EngineOnNullTarget, ReadsWhatItWroteOneByOne) {
  write_and_read_back(4096, 1, 20);
}

const std::vector<Way> kWays = {
    {"Usual", [](NullTargetOptions&, SessionOptions&) {}},
    {"OneReplyAtATime",
     [](NullTargetOptions& target, SessionOptions&) { target.settings.one_at_a_time = true; }},
    {"RandomLatency",
     [](NullTargetOptions& target, SessionOptions&) {
       target.settings.latency_min = 20us;
       target.settings.latency_max = 200us;
     }},
    {"InitialR2T",
     [](NullTargetOptions& target, SessionOptions&) {
       target.settings.protocol.initial_r2t = true;
       target.settings.protocol.immediate_data = false;
     }},
    {"SeparateStatusSmallDataIn",
     [](NullTargetOptions& target, SessionOptions&) {
       target.settings.protocol.status_with_data = false;
       target.settings.protocol.max_data_in_bytes = 8192;
     }},
    {"SmallWindow",
     [](NullTargetOptions& target, SessionOptions&) { target.settings.protocol.window = 7; }},
    {"Digests",
     [](NullTargetOptions&, SessionOptions& session) {
       session.header_digest = session.data_digest = DigestOffer::crc32c;
     }},
};

INSTANTIATE_TEST_SUITE_P(All, EngineOnNullTarget, testing::ValuesIn(kWays),
                         [](const auto& way) { return way.param.name; });

}  // namespace
}  // namespace iscsi_blkback
