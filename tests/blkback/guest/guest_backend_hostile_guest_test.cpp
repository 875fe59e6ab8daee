// A guest that does to its disk's handshake, keys and rings whatever it likes: its other disk works, nothing is left
// behind, and what Xen's security advisories have found in other backends (XSA-71, 300, 349, 350,
// 361) does not happen here. What a ring refuses request by request is in vbd_queue_refusal_test.cpp.
#include <algorithm>
#include <string>
#include <utility>

#include "blkback/ring/copy_once.h"
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

class GuestBackendHostileGuest : public GuestBackendTest {
 protected:
  // A frontend that writes these keys instead of good ones and claims to be initialised.
  void expect_refused(const std::vector<std::pair<std::string, std::string>>& keys,
                      const std::string& sentence) {
    const FakeDisk xvda = disk();
    const FakeDisk xvdb = second_disk();
    toolstack_.add(xvda);
    toolstack_.add(xvdb);
    auto store = xen_.store().connect(kGuest);
    for (const auto& [key, value] : keys) {
      ASSERT_TRUE(store->write(xvda.frontend_path() + "/" + key, value));
    }
    ASSERT_TRUE(store->write(xvda.frontend_path() + "/state", "3"));
    start();
    FakeFrontend& other = boot(xvdb);
    ASSERT_TRUE(connect(other));
    ASSERT_TRUE(reaches_state(xvda, 5)) << xen_.store().dump();
    EXPECT_THAT(error_of(xvda), HasSubstr(sentence));
    do_io(other);
    EXPECT_EQ(xen_.grants().mapped_pages(), 1U) << "the other disk's ring";
    EXPECT_EQ(xen_.events().bound_ports(), 1U);
  }

  // Rings and a port as a good frontend has them, for keys that are only partly bad.
  FakeFrontend& rings(std::uint32_t pages = 1) {
    FakeFrontend::Options options;
    options.domain = kGuest;
    options.ring_pages = pages;
    queues_.push_back(std::make_unique<FakeFrontend>(xen_, options));
    queues_.back()->set_up_ring();
    return *queues_.back();
  }
  static std::string reference(const FakeFrontend& of, std::size_t page = 0) {
    return std::to_string(of.ring_references()[page]);
  }
  static std::string port(const FakeFrontend& of) { return std::to_string(of.event_port()); }

  void write_key(const FakeDisk& disk, const std::string& key, std::string_view value) {
    if (guest_store_ == nullptr) {
      guest_store_ = xen_.store().connect(kGuest);
    }
    ASSERT_TRUE(guest_store_->write(disk.frontend_path() + "/" + key, value)) << key;
  }

  std::unique_ptr<MemXenStore> guest_store_;
};

TEST_F(GuestBackendHostileGuest, NoKeys) {
  expect_refused({}, "ring-ref");
}

TEST_F(GuestBackendHostileGuest, RingReferenceThatIsNoNumber) {
  expect_refused({{"ring-ref", "x"}, {"event-channel", "1"}}, "not a number");
}

TEST_F(GuestBackendHostileGuest, RingReferenceThatIsTooLarge) {
  expect_refused({{"ring-ref", "99999999999"}, {"event-channel", "1"}}, "not a number");
}

TEST_F(GuestBackendHostileGuest, RingReferenceThatWasNeverGranted) {
  expect_refused({{"ring-ref", "4000000"}, {"event-channel", "1"}}, "has not granted page 4000000");
}

TEST_F(GuestBackendHostileGuest, RingOrderAboveTheOffer) {
  expect_refused({{"ring-page-order", "5"}, {"event-channel", "1"}}, "at most 4");
}

TEST_F(GuestBackendHostileGuest, RingOrderWithoutItsReferences) {
  expect_refused({{"ring-page-order", "1"}, {"ring-ref0", "8"}, {"event-channel", "1"}},
                 "ring-ref1");
}

TEST_F(GuestBackendHostileGuest, EventChannelZero) {
  expect_refused({{"ring-ref", "8"}, {"event-channel", "0"}}, "event-channel is 0");
}

TEST_F(GuestBackendHostileGuest, EventChannelMissing) {
  expect_refused({{"ring-ref", "8"}}, "event-channel");
}

TEST_F(GuestBackendHostileGuest, UnknownProtocol) {
  expect_refused({{"ring-ref", "8"}, {"event-channel", "1"}, {"protocol", "ppc64-abi"}},
                 "protocol is unknown");
}

TEST_F(GuestBackendHostileGuest, KeysThatAreHuge) {
  const std::string huge(2000, '7');
  expect_refused({{"ring-ref", huge}, {"event-channel", huge}}, "ring-ref is not a number");
}

TEST_F(GuestBackendHostileGuest, KeysThatAreBinary) {
  using namespace std::string_literals;
  expect_refused({{"ring-ref", "8\0\xff\x1b[2J"s}, {"event-channel", "1"}},
                 "ring-ref is not a number");
}

TEST_F(GuestBackendHostileGuest, ABinaryProtocolIsNotRepeated) {
  using namespace std::string_literals;
  expect_refused({{"ring-ref", "8"}, {"event-channel", "1"}, {"protocol", "\x1b[31m\n\0"s}},
                 "the frontend's protocol is unknown");
}

TEST_F(GuestBackendHostileGuest, MoreQueuesThanWereOffered) {
  expect_refused({{"multi-queue-num-queues", "4294967295"}}, "at most");
}

TEST_F(GuestBackendHostileGuest, QueuesThatShareARingPage) {
  const FakeFrontend& one = rings();
  const FakeFrontend& two = rings();
  expect_refused({{"multi-queue-num-queues", "2"},
                  {"queue-0/ring-ref", reference(one)},
                  {"queue-0/event-channel", port(one)},
                  {"queue-1/ring-ref", reference(one)},
                  {"queue-1/event-channel", port(two)}},
                 "queues 0 and 1 have the same ring page");
}

TEST_F(GuestBackendHostileGuest, QueuesThatShareAnEventChannel) {
  const FakeFrontend& one = rings();
  const FakeFrontend& two = rings();
  expect_refused({{"multi-queue-num-queues", "2"},
                  {"queue-0/ring-ref", reference(one)},
                  {"queue-0/event-channel", port(one)},
                  {"queue-1/ring-ref", reference(two)},
                  {"queue-1/event-channel", port(one)}},
                 "queues 0 and 1 have the same event-channel");
}

TEST_F(GuestBackendHostileGuest, AnEventChannelThatNobodyOffers) {
  expect_refused({{"ring-ref", reference(rings())}, {"event-channel", "4294967295"}},
                 "does not offer event channel 4294967295");
}

TEST_F(GuestBackendHostileGuest, TheLastQueueHasAnEventChannelThatNobodyOffers) {
  const FakeFrontend& one = rings();
  const FakeFrontend& two = rings();
  expect_refused({{"multi-queue-num-queues", "2"},
                  {"queue-0/ring-ref", reference(one)},
                  {"queue-0/event-channel", port(one)},
                  {"queue-1/ring-ref", reference(two)},
                  {"queue-1/event-channel", "77777"}},
                 "does not offer event channel 77777");
}

// Linux: the pages that had been mapped before the one that could not be stayed so.
TEST_F(GuestBackendHostileGuest, Xsa361ARingWhoseLastPageIsNotGrantedLeavesNothingMapped) {
  const FakeFrontend& ring = rings(4);
  expect_refused({{"ring-page-order", "2"},
                  {"ring-ref0", reference(ring, 0)},
                  {"ring-ref1", reference(ring, 1)},
                  {"ring-ref2", reference(ring, 2)},
                  {"ring-ref3", "4000000"},
                  {"event-channel", port(ring)}},
                 "has not granted page 4000000");
}

// A ring that lies in itself: nothing forbids a guest to spoil its own memory.
TEST_F(GuestBackendHostileGuest, ARingThatIsTheSamePageTwiceHarmsNobodyElse) {
  const FakeDisk xvda = disk();
  const FakeDisk xvdb = second_disk();
  toolstack_.add(xvda);
  toolstack_.add(xvdb);
  FakeFrontend& ring = rings(2);
  write_key(xvda, "ring-page-order", "1");
  write_key(xvda, "ring-ref0", reference(ring, 0));
  write_key(xvda, "ring-ref1", reference(ring, 0));
  write_key(xvda, "event-channel", port(ring));
  write_key(xvda, "protocol", "x86_64-abi");
  write_key(xvda, "state", "3");
  start();
  FakeFrontend& other = boot(xvdb);
  ASSERT_TRUE(connect(other));
  ASSERT_TRUE(reaches_state(xvda, 4)) << xen_.store().dump();
  for (int i = 0; i < 40; ++i) {
    (void)ring.read(0, 8);
  }
  for (std::size_t offset = 0; offset < 4096; offset += 3) {
    ring.scribble(offset, std::byte{0x11});
  }
  ring.set_request_producer(60);
  run_for(100ms);
  do_io(other);
}

// What it asked for counts, not what it writes then.
TEST_F(GuestBackendHostileGuest, KeysThatChangeAfterTheRingIsConnectedAreNotLookedAt) {
  const FakeDisk xvda = disk();
  FakeFrontend& guest = serve(xvda);
  for (const auto& [key, value] :
       {std::pair{"ring-ref", "4000000"}, std::pair{"event-channel", "0"},
        std::pair{"protocol", "x86_32-abi"}, std::pair{"multi-queue-num-queues", "77"},
        std::pair{"ring-page-order", "9"}, std::pair{"state", "3"}, std::pair{"state", "4"}}) {
    write_key(xvda, key, value);
    do_io(guest);
  }
  EXPECT_EQ(error_of(xvda), "");
  EXPECT_EQ(toolstack_.backend_state(xvda), 4);
}

TEST_F(GuestBackendHostileGuest, BrokenRingCostsOnlyItsOwnDisk) {
  const FakeDisk xvda = disk();
  const FakeDisk xvdb = second_disk();
  toolstack_.add(xvda);
  toolstack_.add(xvdb);
  start();
  FakeFrontend& evil = boot(xvda);
  FakeFrontend& good = boot(xvdb);
  ASSERT_TRUE(connect(evil) && connect(good));
  evil.set_request_producer(evil.request_producer() + 1000);
  evil.ring_doorbell();
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda) >= 5; }));
  EXPECT_NE(error_of(xvda), "");
  do_io(good);
}

TEST_F(GuestBackendHostileGuest, Xsa349FloodOfStateChanges) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  auto store = xen_.store().connect(kGuest);
  for (int round = 0; round < 500; ++round) {
    ASSERT_TRUE(store->write(xvda.frontend_path() + "/state", std::to_string(round % 10)));
    if (round % 7 == 0) {
      reactor_.run_for(1ms);
    }
  }
  ASSERT_TRUE(store->write(xvda.frontend_path() + "/state", "1"));
  ASSERT_TRUE(reaches_state(xvda, 2));
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  do_io(guest);
}

// QEMU: what a request held was not given back when its mapping failed. Here: of a ring.
TEST_F(GuestBackendHostileGuest, Xsa71RingsThatCannotBeConnectedLeaveNothingHeld) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& ring = rings(4);
  for (std::size_t page = 0; page < 4; ++page) {
    write_key(xvda, "ring-ref" + std::to_string(page), reference(ring, page));
  }
  write_key(xvda, "ring-page-order", "2");
  for (int round = 0; round < 100; ++round) {
    write_key(xvda, "event-channel", round % 2 == 0 ? "77777" : "4294967295");
    write_key(xvda, "state", "3");
    ASSERT_TRUE(reaches_state(xvda, 5)) << round;
    EXPECT_EQ(xen_.grants().mapped_pages(), 0U) << round;
    EXPECT_EQ(xen_.events().bound_ports(), 0U) << round;
    write_key(xvda, "state", "6");
    ASSERT_TRUE(reaches_state(xvda, 6)) << round;
    write_key(xvda, "state", "1");
    ASSERT_TRUE(reaches_state(xvda, 2)) << round;
  }
  FakeFrontend& guest = boot(xvda, BlkifAbi::x86_64, 4);
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  do_io(guest);
}

// Linux: pages of guests that were mapped without a bound exhausted dom0's memory.
TEST_F(GuestBackendHostileGuest, Xsa300OfAGuestsPagesOnlyItsRingsAreEverMapped) {
  const FakeDisk xvda = disk();
  indirect_segments_ = 32;
  toolstack_.add(xvda);
  start();
  std::vector<FakeFrontend*> queues = {&boot(xvda, BlkifAbi::x86_64, 16)};
  while (queues.size() < 4) {
    queues.push_back(&add_queue(*queues[0], xvda));
  }
  ASSERT_TRUE(connect(*queues[0])) << xen_.store().dump();
  const std::size_t rings_only = queues[0]->queue_count() * 16;
  hold_writes(true);
  for (int round = 0; round < 20; ++round) {
    for (FakeFrontend* queue : queues) {
      ASSERT_TRUE(queue->write(0, pattern(256, round)));
      ASSERT_TRUE(queue->write(512, pattern(88, round)));
      ASSERT_TRUE(queue->read(0, 256));
      queue->push();
    }
    run_for(1ms);
    EXPECT_LE(xen_.grants().mapped_pages(), rings_only);
  }
  target_.clear_faults();
  target_.release_held();
  run_for(1s);
  EXPECT_EQ(xen_.grants().mapped_pages(), rings_only);
}

// Linux: connecting and disconnecting beside each other used what had been freed. Each moment of a
// connect meets each state that a frontend may write, with requests under way.
TEST_F(GuestBackendHostileGuest, Xsa350AFrontendThatTogglesItsStateWhileRequestsAreUnderWay) {
  const FakeDisk xvda = disk();
  FakeFrontend& guest = serve(xvda);
  SimFault slow;
  slow.execute = true;
  slow.extra_delay = 700us;
  slow.count = 0;
  target_.inject(slow);
  for (int round = 0; round < 300; ++round) {
    if (guest.has_ring()) {
      (void)guest.read(0, 8);
      (void)guest.write(64, pattern(8, round));
      guest.push();
    }
    write_key(xvda, "state", std::to_string(1 + (round * 7 + round / 5) % 6));
    reactor_.run_for(std::chrono::microseconds(37 * (round % 41)));
    guest.step();
    if (guest.state() == 6) {
      guest.restart_abruptly();
    }
    EXPECT_LE(xen_.grants().mapped_pages(), 1U);
    EXPECT_LE(xen_.events().bound_ports(), 1U);
  }
  target_.clear_faults();
  write_key(xvda, "state", "6");
  ASSERT_TRUE(reaches_state(xvda, 6)) << xen_.store().dump();
  halt_guests();
  write_key(xvda, "state", "1");
  ASSERT_TRUE(reaches_state(xvda, 2)) << xen_.store().dump();
  FakeFrontend& next = boot(xvda);
  ASSERT_TRUE(connect(next)) << xen_.store().dump();
  do_io(next);
}

}  // namespace
}  // namespace iscsi_blkback
