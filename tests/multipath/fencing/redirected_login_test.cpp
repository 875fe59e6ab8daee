// Redirected logins are no fences: another server that serves the same disk has the same portal
// group tag and knows nothing of what the first one still has to execute.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class RedirectedLogin : public MultipathTest {
 protected:
  // Portal 0 and, in whichever group, portal 1 of a first server; and a second server of the same
  // name and LUN, whose portal is in group 1.
  void start_servers(std::uint16_t group_of_portal_1) {
    options_.quiesce_time = seconds(20);
    options_.marginal.double_failed_time = {};
    start_target({1, group_of_portal_1});
    SimTargetOptions other = target_options_;
    other.portals = {{elsewhere_address(), 1}};
    elsewhere_ = std::make_unique<SimTarget>(reactor_, other);
    elsewhere_->add_lun(0, lun_);
  }

  static SocketAddress elsewhere_address() {
    return SocketAddress::parse("10.0.0.9", 3260).value();
  }
  void redirect(std::size_t portal) { target_->redirect_logins(portal, "10.0.0.9:3260,1"); }

  // A write that is 1, kept by that server and lost there, answered by another path.
  void lose_a_write_at(SimTarget& server, std::size_t portal) {
    SimFault hold;
    hold.matches = writes_at(portal);
    hold.hold = true;
    hold.execute = true;
    server.inject(hold);
    while (server.held() == 0) {
      GuestRequest& request = write(0, 8, 1);
      ASSERT_TRUE(
          reactor_.run_until([&] { return server.held() != 0 || !pending(request); }, seconds(1)));
    }
    reactor_.network().reset_connections(server.address(portal));
    EXPECT_EQ(answer(*requests_.back(), milliseconds(100)), IoStatus::ok);
  }
  // A newer one overtakes it neither now nor when the lost path has been back for long.
  void expect_held_until_quiesced(SimTarget& server) {
    GuestRequest& second = write(0, 8, 2);
    reactor_.run_for(seconds(15));
    EXPECT_TRUE(pending(second)) << "nobody has terminated the old one";
    server.release_held();
    reactor_.run_for(milliseconds(10));
    EXPECT_EQ(server.counters.executed_after_close, 1U);
    EXPECT_EQ(answer(second, seconds(6)), IoStatus::ok) << "quiesce_time";
    EXPECT_EQ(medium(0), 2);
  }

  std::unique_ptr<SimTarget> elsewhere_;
};

TEST_F(RedirectedLogin, ToAServerWithTheSamePortalGroupTagDoesNotFence) {
  start_servers(2);
  start_device();
  redirect(0);
  lose_a_write_at(*target_, 0);
  ASSERT_TRUE(wait_for_up(2));
  EXPECT_EQ(elsewhere_->sessions(), 1U);
  expect_held_until_quiesced(*target_);
}

TEST_F(RedirectedLogin, ToAServerThatDoesNotTellItsPortalGroupDoesNotFence) {
  target_options_.tells_portal_group = false;
  start_servers(2);
  start_device();
  redirect(0);
  lose_a_write_at(*target_, 0);
  ASSERT_TRUE(wait_for_up(2));
  expect_held_until_quiesced(*target_);
}

TEST_F(RedirectedLogin, DoneWithALoginAtThePortalDoesNotFenceWhatWasLostElsewhere) {
  start_servers(2);
  redirect(0);
  start_device();
  ASSERT_EQ(elsewhere_->sessions(), 1U);
  target_->redirect_logins(0, "");
  lose_a_write_at(*elsewhere_, 0);
  ASSERT_TRUE(wait_for_up(2));
  EXPECT_EQ(elsewhere_->sessions(), 0U);
  expect_held_until_quiesced(*elsewhere_);
}

TEST_F(RedirectedLogin, ToTheSameServerAgainFences) {
  start_servers(2);
  redirect(0);
  start_device();
  lose_a_write_at(*elsewhere_, 0);
  ASSERT_TRUE(wait_for_up(2));
  EXPECT_EQ(answer(write(0, 8, 2), milliseconds(50)), IoStatus::ok);
  elsewhere_->release_held();
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(medium(0), 2);
}

TEST_F(RedirectedLogin, LeavesItsWriteToTheNextLoginAtThePortal) {
  start_servers(2);
  start_device();
  redirect(0);
  lose_a_write_at(*target_, 0);
  ASSERT_TRUE(wait_for_up(2));
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(1));
  EXPECT_TRUE(pending(second));
  target_->redirect_logins(0, "");
  reactor_.network().reset_connections(elsewhere_address());
  EXPECT_EQ(answer(second, seconds(5)), IoStatus::ok);
  target_->release_held();
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(medium(0), 2);
}

TEST_F(RedirectedLogin, OfASiblingDoesNotFence) {
  start_servers(1);
  redirect(1);
  start_device();
  ASSERT_EQ(elsewhere_->sessions(), 1U);
  reactor_.network().set_refusing(portal_address(0), true);
  lose_a_write_at(*target_, 0);
  expect_held_until_quiesced(*target_);
}

TEST_F(RedirectedLogin, OfTheFenceSessionDoesNotFence) {
  start_servers(1);
  start_device();
  redirect(1);
  reactor_.network().set_refusing(portal_address(0), true);
  lose_a_write_at(*target_, 0);
  expect_held_until_quiesced(*target_);
}

TEST_F(RedirectedLogin, OfTheLostSessionIsNotFencedThroughAPortalOfTheFirstServer) {
  start_servers(1);
  redirect(0);
  start_device();
  reactor_.network().set_refusing(elsewhere_address(), true);
  lose_a_write_at(*elsewhere_, 0);
  expect_held_until_quiesced(*elsewhere_);
}

// One system, two portals of one portal group, and logins that it redirects from one to the other.
class LoginRedirectedWithinATarget : public RedirectedLogin {
 protected:
  void lose_a_write() {
    options_.quiesce_time = seconds(20);
    start_target({1, 2, 1});
    target_options_.portals.pop_back();  // no path to the third: nobody is the first one's sibling
    start_device();
    target_->redirect_logins(0, "10.0.0.3:3260,1");
    lose_a_write_at(*target_, 0);
    ASSERT_TRUE(wait_for_up(2));
  }
};

TEST_F(LoginRedirectedWithinATarget, FencesWhereTheConfigurationVouchesForTheTarget) {
  options_.redirected_login_fences = true;
  lose_a_write();
  EXPECT_EQ(answer(write(0, 8, 2), milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(target_->counters.terminated_tasks, 1U);
  target_->release_held();
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(medium(0), 2);
}

TEST_F(LoginRedirectedWithinATarget, FencesNotWhereNobodyDoes) {
  lose_a_write();
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(15));
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(answer(second, seconds(6)), IoStatus::ok) << "quiesce_time";
}

// Without a tag, a portal is what it was when it is at the same address; nobody is its sibling.
TEST_F(RedirectedLogin, AServerThatDoesNotTellItsPortalGroupFencesAtItsOwnPortal) {
  target_options_.tells_portal_group = false;
  start({1, 1});
  SimFault hold;
  hold.matches = writes_at(0);
  hold.hold = true;
  hold.execute = true;
  target_->inject(hold);
  GuestRequest& first = at_path(0, [this]() -> GuestRequest& { return write(0, 8, 1); });
  ASSERT_TRUE(reactor_.run_until([this] { return target_->held() == 1; }, seconds(1)));
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(5));
  EXPECT_TRUE(pending(second)) << "no sibling is known";
  accept(0);
  EXPECT_EQ(answer(second, seconds(5)), IoStatus::ok);
  target_->release_held();
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(medium(0), 2);
}

}  // namespace
}  // namespace iscsi_blkback
