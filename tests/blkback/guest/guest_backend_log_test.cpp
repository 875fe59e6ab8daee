// What a guest, or a target, can have logged: XSA-180.
#include "base/log.h"
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

class GuestBackendLog : public GuestBackendTest {
 protected:
  GuestBackendLog() {
    auto sink = std::make_unique<MemoryLogSink>();
    sink_ = sink.get();
    before_ = set_log_sink(std::move(sink));
  }
  ~GuestBackendLog() override { (void)set_log_sink(std::move(before_)); }

  // Since the last call; what a line has before it included.
  std::size_t take_bytes() {
    std::size_t bytes = 0;
    for (; taken_ < sink_->lines().size(); ++taken_) {
      bytes += sink_->lines()[taken_].size() + 40;
    }
    return bytes;
  }

  // What all that a guest can do may have logged in an hour, however often it does it.
  static constexpr std::size_t kBytesPerHour = 64 * 1024;
  static constexpr Duration kHour = 1h;

  // Runs cycle so many times, over an hour.
  template <class Cycle>
  void expect_bounded(int times, Cycle&& cycle) {
    (void)take_bytes();
    const TimePoint begin = reactor_.now();
    for (int number = 0; number < times; ++number) {
      ASSERT_NO_FATAL_FAILURE(cycle()) << number;
      const TimePoint due = begin + kHour * (number + 1) / times;
      if (due > reactor_.now()) {
        reactor_.run_for(due - reactor_.now());
      }
    }
    EXPECT_LE(reactor_.now() - begin, kHour + 1min);
    EXPECT_LE(take_bytes(), kBytesPerHour);
  }

  MemoryLogSink* sink_;

 private:
  std::unique_ptr<LogSink> before_;
  std::size_t taken_ = 0;
};

TEST_F(GuestBackendLog, WhatXenstoreHasForgottenIsSaidOnce) {
  serve();
  xen_.store().break_connections();
  xen_.store().forget_everything();
  run_for(60s);
  const auto& lines = sink_->lines();
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(),
                          [](const std::string& line) {
                            return line.find("xenstore knows neither") != std::string::npos;
                          }),
            1);
  halt_guests();
  xen_.set_domain(kGuest, DomainStatus{});
  EXPECT_TRUE(ends(20s));
}

TEST_F(GuestBackendLog, AGuestThatCyclesItsHandshakeFillsNoLog) {
  FakeFrontend& guest = serve();
  expect_bounded(10000, [&] {
    guest.restart();
    ASSERT_TRUE(run_until([&] { return !guest.connected(); }, 300ms));
    ASSERT_TRUE(run_until([&] { return guest.connected(); }, 300ms));
  });
  EXPECT_TRUE(sink_->contains("connected, 2048 sectors (")) << "how much was left out";
}

TEST_F(GuestBackendLog, AGuestThatBreaksItsRingsFillsNoLog) {
  FakeFrontend& guest = serve();
  expect_bounded(1000, [&] {
    guest.set_request_producer(guest.request_producer() + 1000);
    guest.ring_doorbell();
    ASSERT_TRUE(run_until(
        [&] { return toolstack_.backend_state(disk()) != 4 || !guest.connected(); }, 300ms));
    guest.restart_abruptly();
    ASSERT_TRUE(run_until([&] { return guest.connected(); }, 300ms));
  });
}

TEST_F(GuestBackendLog, Xsa180AGuestThatSendsNonsenseIntoEachOfItsRingsFillsNoLog) {
  FakeFrontend& guest = serve();
  expect_bounded(1000, [&] {
    BlkifRequest nonsense{};
    nonsense.operation = kBlkifRead;
    nonsense.segment_count = 77;
    ASSERT_TRUE(guest.raw(nonsense));
    guest.push();
    ASSERT_TRUE(run_until([&] { return guest.outstanding() == 0; }, 300ms));
    guest.restart();
    ASSERT_TRUE(run_until([&] { return !guest.connected(); }, 300ms));
    ASSERT_TRUE(run_until([&] { return guest.connected(); }, 300ms));
  });
}

TEST_F(GuestBackendLog, AGuestThatOffersRingsThatAreNoneFillsNoLog) {
  const FakeDisk xvda = disk();
  serve(xvda);
  halt_guests();
  const auto store = xen_.store().connect(kGuest);
  expect_bounded(1000, [&] {
    for (const char* state : {"5", "6", "1"}) {
      ASSERT_TRUE(store->write(xvda.frontend_path() + "/state", state));
      reactor_.run_for(20ms);
    }
    ASSERT_TRUE(store->write(xvda.frontend_path() + "/ring-ref", "123456789"));
    ASSERT_TRUE(store->write(xvda.frontend_path() + "/state", "3"));
    reactor_.run_for(50ms);
  });
}

TEST_F(GuestBackendLog, AGuestThatHasManyDisksFillsNoLogEither) {
  configuration_.multipath.shared = true;  // they all lead to one LUN
  std::vector<FakeDisk> disks;
  for (std::uint32_t number = 0; number < 8; ++number) {
    disks.push_back(disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1", 51712 + 16 * number));
    toolstack_.add(disks.back());
  }
  start();
  std::vector<FakeFrontend*> guests;
  for (const FakeDisk& one : disks) {
    guests.push_back(&boot(one));
  }
  const auto all = [&](bool connected) {
    return run_until(
        [&] {
          return std::all_of(guests.begin(), guests.end(),
                             [&](FakeFrontend* guest) { return guest->connected() == connected; });
        },
        20s);
  };
  ASSERT_TRUE(all(true));
  (void)take_bytes();
  const TimePoint begin = reactor_.now();
  for (int cycle = 0; cycle < 200; ++cycle) {
    for (FakeFrontend* guest : guests) {
      guest->restart();
    }
    ASSERT_TRUE(all(false) && all(true)) << cycle;
  }
  reactor_.run_for(kHour - (reactor_.now() - begin));
  EXPECT_LE(take_bytes(), kBytesPerHour);
}

TEST_F(GuestBackendLog, ATargetThatResetsItsConnectionsFillsNoLog) {
  serve();
  expect_bounded(1000, [&] {
    reactor_.network().reset_connections(target_.address(0));
    reactor_.run_for(200ms);
  });
}

}  // namespace
}  // namespace iscsi_blkback
