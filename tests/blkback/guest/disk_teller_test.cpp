// Who hears what the I/O side tells of a disk.
#include "blkback/guest/disk_teller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using testing::ElementsAre;

class DiskTellerTest : public testing::Test, public DiskEvents, public RingEvents {
 protected:
  void on_ready(const Geometry&, const LunNames&) override {}
  void on_conflict(const std::string&) override {}
  void on_grown(const Geometry&) override {}
  void on_unavailable(const std::string& why) override { heard_.push_back(why); }
  void on_closed() override {}
  void on_ring_connected(const Result<void>&) override {}
  void on_ring_broken(const std::string& why) override { heard_.push_back(why); }
  void on_ring_disconnected() override {}

  void tell_both(const DiskTeller& teller) {
    teller.tell_disk([](DiskEvents& events) { events.on_unavailable("disk"); });
    teller.tell_ring([](RingEvents& events) { events.on_ring_broken("ring"); });
  }
  std::vector<std::string> heard() {
    control_.run_for(std::chrono::milliseconds(1));
    return std::exchange(heard_, {});
  }

  SimReactor control_{1};
  std::vector<std::string> heard_;
};

TEST_F(DiskTellerTest, AnEventIsHeardLaterByWhoListensThen) {
  DiskTeller teller(control_, *this);
  const DiskTeller copy = teller;
  tell_both(copy);
  EXPECT_TRUE(heard_.empty()) << "not from inside";
  EXPECT_THAT(heard(), ElementsAre("disk"));
  teller.set_ring_events(*this);
  tell_both(copy);
  EXPECT_THAT(heard(), ElementsAre("disk", "ring"));
}

TEST_F(DiskTellerTest, WhatIsOnItsWayWhenNobodyListensAnyMoreIsDropped) {
  DiskTeller teller(control_, *this);
  teller.set_ring_events(*this);
  const DiskTeller copy = teller;
  tell_both(copy);
  teller.end();
  tell_both(copy);
  EXPECT_TRUE(heard().empty());
}

}  // namespace
}  // namespace iscsi_blkback
