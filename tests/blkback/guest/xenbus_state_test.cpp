#include "blkback/guest/xenbus_state.h"

#include <gtest/gtest.h>

#include <vector>

namespace iscsi_blkback {
namespace {

using State = XenbusState;
using Action = XenbusAction;

// A disk whose guest and we are connected.
XenbusView connected() {
  XenbusView view;
  view.frontend = State::connected;
  view.backend = State::connected;
  view.announced = true;
  view.device_ready = view.device_open = true;
  view.ring = RingPhase::connected;
  return view;
}

// A disk that the toolstack has just made.
XenbusView fresh() {
  XenbusView view;
  view.frontend = State::initialising;
  view.backend = State::initialising;
  return view;
}

// Does what next_action says to a model of the disk until there is nothing to do, with an I/O side
// that finishes at once. Every step must change something, so a handful of them is enough.
std::vector<Action> settle(XenbusView& view) {
  std::vector<Action> done;
  for (int step = 0; step < 12; ++step) {
    const Action action = next_action(view);
    switch (action) {
      case Action::none:
        return done;
      case Action::announce:
        view.backend = State::init_wait;
        view.announced = true;
        view.wrote_closed = false;
        view.device_open = view.device_ready = !view.refused;
        break;
      case Action::connect:
        view.ring = RingPhase::connected;
        break;
      case Action::publish:
        view.backend = State::connected;
        break;
      case Action::tell_size:
        view.size_changed = false;
        break;
      case Action::write_closing:
        view.backend = State::closing;
        break;
      case Action::disconnect:
        view.ring = RingPhase::idle;
        break;
      case Action::close_device:
        view.device_open = view.device_ready = false;
        break;
      case Action::write_closed:
        view.backend = State::closed;
        view.wrote_closed = true;
        break;
      case Action::finish:
      case Action::replace:
        done.push_back(action);
        return done;
    }
    done.push_back(action);
  }
  ADD_FAILURE() << "the handshake does not come to rest";
  return done;
}

using Actions = std::vector<Action>;

TEST(XenbusState, ANewSizeIsToldToAFrontendThatIsConnected) {
  XenbusView view = connected();
  view.size_changed = true;
  EXPECT_EQ(settle(view), Actions{Action::tell_size});
  view.size_changed = true;
  view.frontend = State::initialised;
  EXPECT_EQ(settle(view), Actions{}) << "not while it connects";
  view.frontend = State::closing;
  EXPECT_EQ(settle(view), Actions{Action::write_closing});
  view.size_changed = true;
  EXPECT_EQ(settle(view), Actions{}) << "never state 4 after that";
}

TEST(XenbusState, ParsesTheProtocolsNumbersOnly) {
  EXPECT_EQ(parse_xenbus_state("1"), State::initialising);
  EXPECT_EQ(parse_xenbus_state("8"), State::reconfigured);
  for (const char* junk : {"", "0", "9", "44", " 4", "4 ", "-1", "four"}) {
    EXPECT_EQ(parse_xenbus_state(junk), State::unknown) << junk;
  }
}

TEST(XenbusState, AnnouncesBeforeTheDeviceIsReady) {
  EXPECT_EQ(next_action(fresh()), Action::announce);
}

TEST(XenbusState, WaitsForTheDeviceBeforeConnecting) {
  XenbusView view = fresh();
  view.announced = true;
  view.backend = State::init_wait;
  view.frontend = State::initialised;
  EXPECT_EQ(next_action(view), Action::none);
  view.device_ready = view.device_open = true;
  EXPECT_EQ(settle(view), (Actions{Action::connect, Action::publish}));
}

TEST(XenbusState, AcceptsAFrontendThatDoesNotWaitForInitWait) {
  for (const State frontend : {State::initialised, State::connected}) {
    XenbusView view = fresh();
    view.frontend = frontend;  // blkfront_resume
    EXPECT_EQ(settle(view), (Actions{Action::announce, Action::connect, Action::publish}));
  }
}

TEST(XenbusState, KeepsServingAClosingFrontend) {
  XenbusView view = connected();
  view.frontend = State::closing;
  EXPECT_EQ(settle(view), (Actions{Action::write_closing}));
  EXPECT_EQ(view.ring, RingPhase::connected);
  view.frontend = State::closed;
  EXPECT_EQ(settle(view), (Actions{Action::disconnect, Action::write_closed}));
}

TEST(XenbusState, ADiskThatStaysOnlineWaitsForItsFrontendToComeBack) {
  XenbusView view = connected();
  view.frontend = State::closed;
  settle(view);
  EXPECT_TRUE(view.device_open);
  view.frontend = State::initialising;
  EXPECT_EQ(settle(view), (Actions{Action::announce}));
  view.frontend = State::initialised;
  EXPECT_EQ(settle(view), (Actions{Action::connect, Action::publish}));
}

TEST(XenbusState, AFrontendThatRestartsWithoutClosingIsDisconnectedFirst) {
  for (const State backend : {State::connected, State::closing}) {
    XenbusView view = connected();
    view.backend = backend;
    view.frontend = State::initialising;
    EXPECT_EQ(settle(view), (Actions{Action::disconnect, Action::announce}));
  }
}

TEST(XenbusState, DetachOfARunningGuest) {
  XenbusView view = connected();
  view.online = false;
  view.backend = State::closing;
  EXPECT_EQ(settle(view), Actions{});  // the guest's turn
  view.frontend = State::closed;
  EXPECT_EQ(settle(view), (Actions{Action::disconnect, Action::close_device, Action::write_closed,
                                   Action::finish}));
}

TEST(XenbusState, StateSixWaitsForTheDevice) {
  XenbusView view = connected();
  view.online = false;
  view.frontend = State::closed;
  view.backend = State::closing;
  view.ring = RingPhase::idle;
  view.device_open = view.device_ready = false;
  view.device_closing = true;
  EXPECT_EQ(next_action(view), Action::none);
  view.device_closing = false;  // closed, or it took too long
  EXPECT_EQ(next_action(view), Action::write_closed);
}

TEST(XenbusState, DetachBeforeAnyDriverHasStarted) {
  for (const State frontend : {State::initialising, State::init_wait}) {
    XenbusView view = fresh();
    settle(view);
    view.frontend = frontend;
    view.online = false;
    view.backend = State::closing;
    EXPECT_EQ(settle(view), (Actions{Action::close_device, Action::write_closed, Action::finish}));
  }
}

// Such a one stays in state 5: as blkfront that may not write its nodes.
TEST(XenbusState, AFrontendThatNeverConnectedIsNotWaitedFor) {
  XenbusView view;
  view.announced = view.device_ready = view.device_open = true;
  view.frontend = view.backend = State::closing;
  EXPECT_EQ(settle(view), Actions{}) << "nobody detaches the disk";
  view.online = false;
  EXPECT_EQ(settle(view), (Actions{Action::close_device, Action::write_closed, Action::finish}));
}

TEST(XenbusState, ForcedDetachRemovesTheFrontendFirst) {
  XenbusView view = connected();
  view.frontend = State::unknown;
  view.online = false;
  view.backend = State::closing;
  EXPECT_EQ(settle(view), (Actions{Action::disconnect, Action::close_device, Action::write_closed,
                                   Action::finish}));
}

TEST(XenbusState, ToolstackClosesTheDiskOfADeadGuestItself) {
  XenbusView view = connected();
  view.backend = State::closed;  // not ours
  EXPECT_EQ(settle(view), (Actions{Action::disconnect, Action::close_device, Action::finish}));
}

TEST(XenbusState, NothingIsWrittenToANodeThatHasGone) {
  XenbusView view = connected();
  view.backend = State::unknown;
  EXPECT_EQ(settle(view), (Actions{Action::disconnect, Action::finish}));
}

TEST(XenbusState, AnEndedGuestIsLeftAtOnce) {
  XenbusView view = connected();
  view.guest_runs = false;
  EXPECT_EQ(settle(view), (Actions{Action::disconnect, Action::close_device, Action::write_closed,
                                   Action::finish}));
}

TEST(XenbusState, ANodeMadeAnewIsLookedAtAnew) {
  XenbusView view = connected();
  view.backend = State::initialising;
  view.frontend = State::initialising;
  EXPECT_EQ(settle(view), (Actions{Action::disconnect, Action::replace}));
}

TEST(XenbusState, ARefusedDiskIsClosedWhenItsFrontendConnects) {
  XenbusView view = fresh();
  view.refused = true;
  EXPECT_EQ(settle(view), (Actions{Action::announce}));
  view.frontend = State::initialised;
  EXPECT_EQ(settle(view), (Actions{Action::write_closing}));
  view.frontend = State::closed;
  EXPECT_EQ(settle(view), (Actions{Action::write_closed}));
}

TEST(XenbusState, ABrokenRingIsNotTakenUpAgain) {
  XenbusView view = connected();
  view.ring = RingPhase::idle;
  EXPECT_EQ(settle(view), (Actions{Action::write_closing}));
}

TEST(XenbusState, TheRingOfADeadProcessIsNotTakenUpAgain) {
  XenbusView view = connected();
  view.announced = false;
  view.device_open = view.device_ready = false;
  view.ring = RingPhase::idle;
  EXPECT_EQ(settle(view), (Actions{Action::write_closing}));
}

// The end of it is an event of its own; until then every answer would be about the wrong ring.
TEST(XenbusState, NothingIsDoneWhileTheRingIsBeingConnectedOrDisconnected) {
  for (const RingPhase phase : {RingPhase::connecting, RingPhase::disconnecting}) {
    for (unsigned backend = 0; backend <= 8; ++backend) {
      for (unsigned frontend = 0; frontend <= 8; ++frontend) {
        for (const bool guest_runs : {true, false}) {
          XenbusView view = connected();
          view.ring = phase;
          view.backend = static_cast<State>(backend);
          view.frontend = static_cast<State>(frontend);
          view.guest_runs = guest_runs;
          EXPECT_EQ(next_action(view), Action::none) << backend << " " << frontend;
        }
      }
    }
  }
}

// y: adopted; g: while its guest runs; -: not. A line for each state of the backend, a letter for
// each state of the frontend, from 0 to 8.
TEST(XenbusState, WhichNodesAreAdopted) {
  struct Row {
    const char* online;
    const char* offline;
  };
  constexpr Row kTable[] = {
      {"---------", "---------"},  // 0: there is no node
      {"yyyyyyyyy", "yyyyyyyyy"},  // 1
      {"yyyyyyyyy", "yyyyyyyyy"},  // 2
      {"yyyyyyyyy", "yyyyyyyyy"},  // 3
      {"yyyyyyyyy", "yyyyyyyyy"},  // 4
      {"yyyyyyyyy", "yyyyyyyyy"},  // 5
      {"ggg--gggg", "---------"},  // 6: between two handshakes, or over
      {"yyyyyyyyy", "yyyyyyyyy"},  // 7
      {"yyyyyyyyy", "yyyyyyyyy"},  // 8
  };
  for (unsigned backend = 0; backend <= 8; ++backend) {
    for (unsigned frontend = 0; frontend <= 8; ++frontend) {
      for (const bool online : {true, false}) {
        const char expected = (online ? kTable[backend].online : kTable[backend].offline)[frontend];
        const Adoption found =
            adoption(static_cast<State>(backend), static_cast<State>(frontend), online);
        EXPECT_EQ("-gy"[static_cast<int>(found)], expected)
            << backend << " " << frontend << (online ? "" : ", offline");
      }
    }
  }
}

// A process may die at any moment, and what it leaves in xenstore is all that the next one has.
TEST(XenbusState, WhatAProcessGoesOnServingIsAdoptedByTheNext) {
  int served = 0;
  for (unsigned bits = 0; bits < 1u << 5; ++bits) {
    for (unsigned frontend = 0; frontend <= 8; ++frontend) {
      for (unsigned backend = 1; backend <= 8; ++backend) {
        XenbusView view = connected();
        view.frontend = static_cast<State>(frontend);
        view.backend = static_cast<State>(backend);
        view.online = (bits & 1) != 0;
        view.wrote_closed = (bits & 2) != 0;
        view.device_open = view.device_ready = (bits & 4) != 0;
        view.announced = (bits & 8) != 0;
        view.ring = (bits & 16) != 0 ? RingPhase::connected : RingPhase::idle;
        if (view.backend == State::closed && view.wrote_closed &&
            view.ring == RingPhase::connected) {
          continue;  // we write 6 without a ring only
        }
        // What is adopted while it rests counts as closed by us.
        if (view.backend == State::closed && !view.announced &&
            (!view.wrote_closed ||
             adoption(view.backend, view.frontend, view.online) == Adoption::no)) {
          continue;
        }
        const Actions actions = settle(view);
        if (!actions.empty() &&
            (actions.back() == Action::finish || actions.back() == Action::replace)) {
          continue;
        }
        ++served;
        EXPECT_NE(adoption(view.backend, view.frontend, view.online), Adoption::no)
            << backend << " " << frontend << " with " << bits << " rests at "
            << to_string(view.backend);
      }
    }
  }
  EXPECT_GT(served, 500);
}

// And the frontend that was closed meanwhile is served when it starts, however it does that.
TEST(XenbusState, AnAdoptedDiskBetweenTwoHandshakesIsServedWhenItsFrontendStarts) {
  for (const State rests : {State::unknown, State::closing, State::closed}) {
    for (const State starts : {State::initialising, State::initialised, State::connected}) {
      XenbusView view;
      view.backend = State::closed;
      view.wrote_closed = true;
      view.frontend = rests;
      EXPECT_EQ(settle(view), Actions{});
      view.frontend = starts;
      EXPECT_EQ(settle(view).front(), Action::announce);
    }
  }
}

// Whatever the two ends' nodes say: the handshake comes to rest, a ring is never connected twice or
// without a ready device, state 4 is never written without a ring, and nothing at all is written
// when the node has gone.
TEST(XenbusState, EveryCombinationComesToRest) {
  for (unsigned bits = 0; bits < 1u << 8; ++bits) {
    for (unsigned frontend = 0; frontend <= 8; ++frontend) {
      for (unsigned backend = 0; backend <= 8; ++backend) {
        for (const RingPhase ring : {RingPhase::idle, RingPhase::connected}) {
          XenbusView view;
          view.frontend = static_cast<State>(frontend);
          view.backend = static_cast<State>(backend);
          view.online = (bits & 1) != 0;
          view.announced = (bits & 2) != 0;
          view.wrote_closed = (bits & 4) != 0;
          view.guest_runs = (bits & 8) != 0;
          view.device_open = view.device_ready = (bits & 16) != 0;
          view.refused = (bits & 32) != 0;
          view.device_closing = !view.device_open && (bits & 64) != 0;
          view.size_changed = (bits & 128) != 0;
          view.ring = ring;
          const bool started_ready = view.device_ready;
          const Actions actions = settle(view);
          bool have_ring = ring == RingPhase::connected;
          bool have_device = started_ready;
          for (const Action action : actions) {
            switch (action) {
              case Action::announce:
                have_device = have_device || (bits & 32) == 0;
                break;
              case Action::connect:
                EXPECT_TRUE(have_device && !have_ring);
                have_ring = true;
                break;
              case Action::publish:
              case Action::tell_size:
                EXPECT_TRUE(have_ring);
                break;
              case Action::disconnect:
                EXPECT_TRUE(have_ring);
                have_ring = false;
                break;
              case Action::close_device:
              case Action::write_closed:
              case Action::finish:
              case Action::replace:
                EXPECT_FALSE(have_ring) << to_string(action);
                break;
              case Action::none:
              case Action::write_closing:
                break;
            }
            const bool writes = action == Action::announce || action == Action::publish ||
                                action == Action::tell_size || action == Action::write_closing ||
                                action == Action::write_closed;
            EXPECT_FALSE(backend == 0 && writes);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace iscsi_blkback
