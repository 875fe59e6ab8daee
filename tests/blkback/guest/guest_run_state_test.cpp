// What Xen says of a domain, and what that means for the guest.
#include "blkback/guest/guest_run_state.h"

#include <gtest/gtest.h>

#include "tests/support/mem_xen.h"

namespace iscsi_blkback {
namespace {

DomainHandle handle(std::uint8_t byte) {
  DomainHandle handle{};
  handle.fill(byte);
  return handle;
}

DomainStatus running(std::uint8_t uuid = 1, std::uint64_t cpu_time_ns = 0) {
  return {DomainLife::running, ShutdownReason::poweroff, handle(uuid), cpu_time_ns};
}
DomainStatus ended(DomainLife life, ShutdownReason reason = ShutdownReason::poweroff) {
  return {life, reason, handle(1), 0};
}

constexpr GuestRunState kRuns{};
constexpr std::uint64_t kSecond_ns = 1'000'000'000;

TEST(GuestRunState, AGuestThatShutsDownHasEnded) {
  for (const ShutdownReason reason : {ShutdownReason::poweroff, ShutdownReason::reboot,
                                      ShutdownReason::crash, ShutdownReason::watchdog}) {
    const auto life = life_after(kRuns, running(), ended(DomainLife::shut_down, reason), false);
    EXPECT_EQ(life, (GuestRunState{false, false, 0})) << to_string(reason);
  }
}

TEST(GuestRunState, AGuestThatIsSuspendedMayComeBack) {
  auto life =
      life_after(kRuns, running(), ended(DomainLife::shut_down, ShutdownReason::suspend), false);
  EXPECT_EQ(life, (GuestRunState{true, true, 0}));
  life = life_after(life, ended(DomainLife::shut_down, ShutdownReason::suspend), running(), false);
  EXPECT_EQ(life, kRuns);
}

TEST(GuestRunState, ASoftResetIsNoEnd) {
  const auto life =
      life_after(kRuns, running(), ended(DomainLife::shut_down, ShutdownReason::soft_reset), false);
  EXPECT_EQ(life, (GuestRunState{true, false, 0, true}));
  EXPECT_EQ(
      life_after(life, ended(DomainLife::shut_down, ShutdownReason::soft_reset), running(), false),
      kRuns);
}

TEST(GuestRunState, AGuestThatIsDestroyedWhileItIsSuspendedLivesElsewhere) {
  const GuestRunState suspended{true, true, 0};
  EXPECT_EQ(life_after(suspended, ended(DomainLife::shut_down, ShutdownReason::suspend),
                       ended(DomainLife::dying, ShutdownReason::suspend), false),
            (GuestRunState{false, true, 0}));
  EXPECT_EQ(life_after(kRuns, running(), ended(DomainLife::dying, ShutdownReason::suspend), false),
            (GuestRunState{false, true, 0}))
      << "the suspend itself was not seen";
  EXPECT_EQ(life_after(kRuns, running(), ended(DomainLife::dying), false),
            (GuestRunState{false, false, 0}))
      << "it ran to the end";
}

TEST(GuestRunState, OfAGuestThatHasGoneSinceItRanNobodyKnowsWhetherItLivesElsewhere) {
  EXPECT_EQ(life_after(kRuns, running(), DomainStatus{}, false), (GuestRunState{false, true, 0}));
  const GuestRunState over{false, false, 0};
  EXPECT_EQ(life_after(over, ended(DomainLife::dying), DomainStatus{}, false), over)
      << "how it ended is known";
}

TEST(GuestRunState, AnotherGuestRunsWhereOneHadEnded) {
  const GuestRunState over{false, true, 3};
  EXPECT_EQ(life_after(over, ended(DomainLife::dying), running(2), false),
            (GuestRunState{true, false, 4}));
  EXPECT_EQ(life_after(over, DomainStatus{}, running(1), false), (GuestRunState{true, false, 4}))
      << "restored under its old number and UUID";
}

TEST(GuestRunState, AnotherUuidIsAnotherGuest) {
  EXPECT_EQ(life_after(kRuns, running(1), running(2), false), (GuestRunState{true, false, 1}));
  const GuestRunState suspended{true, true, 0};
  EXPECT_EQ(life_after(suspended, ended(DomainLife::shut_down, ShutdownReason::suspend), running(2),
                       false),
            (GuestRunState{true, false, 1}));
  EXPECT_EQ(life_after(kRuns, running(1), {DomainLife::dying, {}, handle(2), 0}, false),
            (GuestRunState{false, false, 1}));
}

// Some toolstacks give a guest that is migrated within the host another UUID.
TEST(GuestRunState, AGuestWhosePagesAreMappedIsTheSameWhateverItsUuid) {
  EXPECT_EQ(life_after(kRuns, running(1), running(2), true), kRuns);
}

TEST(GuestRunState, NoGuestGivesProcessorTimeBack) {
  EXPECT_EQ(life_after(kRuns, running(1, 10 * kSecond_ns), running(1, 2 * kSecond_ns), false),
            (GuestRunState{true, false, 1}));
  EXPECT_EQ(life_after(kRuns, running(1, 10 * kSecond_ns), running(1, 10 * kSecond_ns - 1), false),
            kRuns)
      << "processors' clocks differ a little";
}

TEST(GuestRunState, AHandleThatIsNotKnownTellsNothing) {
  EXPECT_EQ(life_after(kRuns, running(1), running(0), false), kRuns);
  EXPECT_EQ(life_after(kRuns, running(0), running(1), false), kRuns);
}

class StatusInXenstore : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(dom0_->write("/local/domain/5/vm", "")); }
  void write_vm(const std::string& value) {
    ASSERT_TRUE(dom0_->write("/local/domain/5/vm", value));
  }
  DomainStatus status(XenStoreAccess& store) { return status_in_xenstore(store, 5).value(); }

  MemXen xen_;
  std::unique_ptr<MemXenStore> dom0_ = xen_.store().connect(0);
};

TEST_F(StatusInXenstore, KnowsTheUuid) {
  write_vm("/vm/01020304-0506-0708-090a-0b0c0d0e0fff");
  const DomainStatus found = status(*dom0_);
  EXPECT_EQ(found.life, DomainLife::running);
  EXPECT_EQ(found.handle, (DomainHandle{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255}));
}

TEST_F(StatusInXenstore, TakesNothingElseForOne) {
  for (const char* value : {"", "/vm/", "/vm/01020304-0506-0708-090a-0b0c0d0e0f",
                            "/vm/01020304-0506-0708-090a-0b0c0d0e0fffff",
                            "/vm/01020304-0506-0708-090a-0b0c0d0e0fxx", "01020304"}) {
    write_vm(value);
    EXPECT_EQ(status(*dom0_).handle, DomainHandle{}) << value;
  }
}

TEST_F(StatusInXenstore, AGuestWithoutAFolderIsGone) {
  ASSERT_TRUE(dom0_->remove("/local/domain/5"));
  EXPECT_EQ(status(*dom0_).life, DomainLife::gone);
}

TEST_F(StatusInXenstore, WhatMayNotBeReadIsThere) {
  ASSERT_TRUE(dom0_->set_permissions("/local/domain/5", {5, MemXenStoreTree::Access::none, {}}));
  const auto driver_domain = xen_.store().connect(7);
  EXPECT_EQ(status(*driver_domain).life, DomainLife::running);
}

TEST_F(StatusInXenstore, IsKnownHoweverManyNodesTheGuestHas) {
  xen_.faults().fail_calls("xenstore list");
  EXPECT_EQ(status(*dom0_).life, DomainLife::running);
}

TEST_F(StatusInXenstore, AFailureIsNoAnswer) {
  for (std::uint64_t nth = 1; nth <= 2; ++nth) {
    xen_.faults().fail_nth(nth);
    EXPECT_FALSE(status_in_xenstore(*dom0_, 5)) << nth;
  }
}

}  // namespace
}  // namespace iscsi_blkback
