// The paths of a disk by their numbers, and the masks of those that may be used for what.
#include "multipath/path/path_set.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/log.h"
#include "tests/multipath/unconnected_paths.h"

namespace iscsi_blkback {
namespace {

class PathSetTest : public testing::Test {
 protected:
  PathSetTest() { set_log_level(LogLevel::error); }

  using Numbers = std::vector<std::uint32_t>;
  template <class Paths>
  static Numbers numbers(const Paths& paths) {
    Numbers found;
    for (const Path* path : paths) {
      found.push_back(path->index());
    }
    return found;
  }
  void set_state(const Path& path, PathState state) {
    set_.note_state(path.index(), {.state = state});
  }
  // Those that may take a request where each has room for one.
  [[nodiscard]] PathMask able() {
    for (const Path* path : set_.all()) {
      set_.note_room(path->index(), true);
    }
    return set_.able();
  }

  SimReactor reactor_{1};
  DiskLog log_{reactor_, "disk"};
  UnconnectedPaths paths_{reactor_, log_};
  PathSet& set_ = paths_.set;
};

TEST_F(PathSetTest, ANumberIsGivenAgainWhenNothingNeedsItAnyMore) {
  paths_.add();
  Path& leaves = paths_.add();
  paths_.add();
  EXPECT_EQ(numbers(set_), (Numbers{0, 1, 2}));
  set_.retire(leaves);
  EXPECT_EQ(paths_.add().index(), 3U) << "something of the one that leaves may be outstanding";
  EXPECT_EQ(numbers(set_), (Numbers{0, 2, 3}));
  EXPECT_EQ(numbers(set_.all()), (Numbers{0, 1, 2, 3}));
  set_.remove(1);
  EXPECT_FALSE(set_.contains(1));
  EXPECT_EQ(set_.leaving(), 0U);
  EXPECT_EQ(paths_.add().index(), 1U);
  EXPECT_EQ(numbers(set_), (Numbers{0, 2, 3, 1})) << "in the order in which they were added";
  EXPECT_EQ(numbers(set_.all()), (Numbers{0, 1, 2, 3}));
}

TEST_F(PathSetTest, APathIsAddedOnceAndIsThereUntilItIsForgotten) {
  Session& session = paths_.add_session();
  Path& path = paths_.add(session, 5);
  paths_.add(session, 6);
  EXPECT_EQ(set_.find(session, 5), &path);
  EXPECT_EQ(set_.find(session, 7), nullptr);
  const auto again = [&] { return set_.number_for(session, 5, "portal", "disk"); };
  ASSERT_FALSE(again());
  EXPECT_EQ(again().error().code, ErrorCode::conflict);
  set_.retire(path);
  EXPECT_FALSE(again()) << "its commands may still be at the target";
  EXPECT_EQ(set_.find(session, 5), &path);
  set_.remove(path.index());
  EXPECT_TRUE(again());
}

TEST_F(PathSetTest, TheOnlyPathIsNotRemoved) {
  Session& session = paths_.add_session();
  Path& path = paths_.add(session);
  const auto error = [&](std::uint16_t lun) {
    const Result<Path*> found = set_.removable(session, lun, "disk");
    return found ? ErrorCode{} : found.error().code;
  };
  EXPECT_EQ(error(0), ErrorCode::conflict);
  EXPECT_EQ(error(1), ErrorCode::not_found);
  Path& other = paths_.add();
  EXPECT_EQ(set_.removable(session, 0, "disk").value_or(nullptr), &path);
  set_.retire(path);
  EXPECT_EQ(error(0), ErrorCode::not_found) << "it is being removed already";
  EXPECT_FALSE(set_.removable(other.session(), 0, "disk")) << "the only one that is left";
}

TEST_F(PathSetTest, ThereAreNoMoreThanTheirMasksHaveBits) {
  Session& session = paths_.add_session();
  for (std::uint16_t lun = 0; lun < kMaxPaths; ++lun) {
    ASSERT_TRUE(set_.has_room("disk"));
    paths_.add(session, lun);
  }
  ASSERT_FALSE(set_.has_room("disk"));
  EXPECT_EQ(set_.has_room("disk").error().code, ErrorCode::exhausted);
  EXPECT_EQ(set_.number_for(session, kMaxPaths, "portal", "disk").error().code,
            ErrorCode::exhausted);
}

TEST_F(PathSetTest, OnlyAnErrorOfAPathThatWasUpIsItsFailure) {
  struct Row {
    const char* what;
    PathState before;
    PathState after;
    bool blameless;
    bool failed;
  };
  const Row rows[] = {
      {"an error", PathState::up, PathState::down, false, true},
      {"a logout that the target asked for", PathState::up, PathState::down, true, false},
      {"it is identified anew", PathState::up, PathState::pending, false, false},
      {"the array serves the LUN elsewhere", PathState::up, PathState::ghost, false, false},
      {"it leads to another LUN", PathState::up, PathState::quarantined, false, false},
      {"the identification fails", PathState::pending, PathState::down, false, false},
      {"a ghost's connection goes", PathState::ghost, PathState::down, false, false},
      {"it comes up", PathState::down, PathState::up, false, false},
  };
  const Path& path = paths_.add();
  for (const Row& row : rows) {
    set_state(path, row.before);
    (void)set_.take_changes();
    set_.note_state(path.index(), {.state = row.after, .blameless = row.blameless});
    EXPECT_EQ(set_.up(), row.after == PathState::up ? 1U : 0U) << row.what;
    EXPECT_EQ(set_.ghost(), row.after == PathState::ghost ? 1U : 0U) << row.what;
    const PathSet::Changes changes = set_.take_changes();
    EXPECT_EQ(changes.states, 1U) << row.what;
    EXPECT_EQ(changes.failed, row.failed ? 1U : 0U) << row.what;
    EXPECT_EQ(changes.had_path, row.before == PathState::up) << row.what;
    EXPECT_EQ(set_.take_changes().states, 0U) << row.what;
  }
}

TEST_F(PathSetTest, ASilentPathIsUsedOnlyWhileNoOtherOneAnswers) {
  const Path& one = paths_.add();
  const Path& other = paths_.add();
  set_state(one, PathState::up);
  set_state(other, PathState::up);
  EXPECT_EQ(able(), 0b11U);
  set_.note_suspect(one, true);
  EXPECT_EQ(able(), 0b10U);
  EXPECT_EQ(set_.answering(), 0b10U);
  EXPECT_EQ(set_.up(), 0b11U);
  set_.note_suspect(other, true);
  EXPECT_EQ(able(), 0b11U) << "perhaps it is the target that is slow";
  EXPECT_EQ(set_.answering(), 0U);
  set_.note_suspect(one, false);
  EXPECT_EQ(able(), 0b01U);
  set_state(one, PathState::down);
  EXPECT_EQ(able(), 0b10U);
}

TEST_F(PathSetTest, AFullPathIsUpButTakesNothing) {
  const Path& path = paths_.add();
  set_state(path, PathState::up);
  ASSERT_EQ(able(), 1U);
  EXPECT_FALSE(set_.note_room(path.index(), false)) << "what waits there for room goes on waiting";
  EXPECT_EQ(set_.able(), 0U);
  EXPECT_EQ(set_.up(), 1U);
}

TEST_F(PathSetTest, APathThatIsHeldBackIsUsedWhenItIsReleased) {
  Path& path = paths_.add();
  EXPECT_EQ(set_.release_held_back(), nullptr);
  set_.hold_back(path);
  set_state(path, PathState::up);
  EXPECT_EQ(set_.up(), 0U);
  EXPECT_EQ(able(), 0U);
  EXPECT_EQ(set_.release_held_back(), &path);
  EXPECT_EQ(set_.release_held_back(), nullptr);
  set_state(path, PathState::up);
  EXPECT_EQ(able(), 1U);
}

TEST_F(PathSetTest, APathThatComesOutOfUseIsToldOnce) {
  Path& path = paths_.add();
  paths_.add();
  set_state(path, PathState::up);
  EXPECT_FALSE(set_.note_room(path.index(), true));
  set_.hold_back(path);
  EXPECT_TRUE(set_.note_room(path.index(), true));
  EXPECT_FALSE(set_.note_room(path.index(), true));
  (void)set_.release_held_back();
  EXPECT_EQ(able(), 1U);
  set_.retire(path);
  EXPECT_TRUE(set_.note_room(path.index(), true));
  EXPECT_EQ(set_.able(), 0U);
  EXPECT_TRUE(set_.take_changes().had_path);
}

}  // namespace
}  // namespace iscsi_blkback
