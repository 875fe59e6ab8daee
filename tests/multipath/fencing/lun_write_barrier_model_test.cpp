// LunWriteBarrier against a model: disks of one guest that is moved, resumed and killed, and disks
// of two guests, come and go in random order.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/blocking_barrier.h"
#include "tests/support/sim_random.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;

constexpr TimePoint kModelStart{std::chrono::hours(100)};
constexpr std::chrono::seconds kModelQuiesceTime{60};
constexpr std::uint64_t kSeeds = 300;
constexpr int kSteps = 40;
constexpr std::size_t kMostDisks = 4;
constexpr std::uint64_t kMovedGuest = 5;

struct ModelDisk {
  std::unique_ptr<BlockingBarrier> barrier;
  HolderUse use = HolderUse::runs;
  std::uint64_t vm = kMovedGuest;
  bool shared = false;
  bool overtaken = false;
  bool passed_on = false;  // the guest has gone on at another disk
  long knows = -1;         // the number of writes that its guest knows of; -1: it never had the LUN
  std::string name;
};

class BarrierModel {
 public:
  explicit BarrierModel(std::uint64_t seed) : random_(seed) {}

  [[nodiscard]] SimRandom& random() { return random_; }
  [[nodiscard]] std::vector<ModelDisk>& disks() { return disks_; }
  [[nodiscard]] const std::string& trace() const { return trace_; }
  [[nodiscard]] TimePoint now() const { return now_; }
  void pass_time() { now_ += milliseconds(random_.below(50)); }
  void note(const std::string& what) { trace_ += what + "; "; }

  ModelDisk& enter(std::uint64_t vm, bool shared) {
    ModelDisk& disk = disks_.emplace_back();
    disk.name = "d" + std::to_string(++number_);
    disk.vm = vm;
    disk.shared = shared;
    auto barrier = BlockingBarrier::enter(folder_.path(), "k",
                                          {.name = disk.name,
                                           .vm = vm,
                                           .domain = number_,
                                           .shared = shared,
                                           .quiesce_time = kModelQuiesceTime},
                                          now_);
    EXPECT_TRUE(barrier);
    disk.barrier = std::make_unique<BlockingBarrier>(std::move(*barrier));
    note("enter " + disk.name + (shared ? " shared" : "") + " of " + std::to_string(vm));
    return disk;
  }
  void use(ModelDisk& disk, HolderUse use) {
    disk.use = use;
    disk.barrier->set_use(use, disk.vm, now_);
    note((use == HolderUse::runs ? "resume " : "suspend ") + disk.name);
  }
  // It ends in order, or its process dies.
  void remove(std::size_t at, bool dies) {
    note((dies ? "die " : "end ") + disks_[at].name);
    if (!dies) {
      disks_[at].barrier->set_use(HolderUse::ended, disks_[at].vm, now_);
      disks_[at].barrier->leave();
    }
    disks_.erase(disks_.begin() + static_cast<std::ptrdiff_t>(at));
  }
  // Whether it may send something.
  bool has_the_lun(ModelDisk& disk) {
    if (disk.use != HolderUse::runs) {
      return false;
    }
    const BlockingBarrier::Others others = disk.barrier->look(now_);
    disk.overtaken = disk.overtaken || others.overtaken;
    return others.may_write() && !disk.overtaken;
  }
  static void write(ModelDisk& disk) {
    disk.barrier->set_outstanding(0, true);
    disk.barrier->set_outstanding(0, false);
  }

 private:
  SimRandom random_;
  TemporaryFolder folder_;
  std::vector<ModelDisk> disks_;
  std::string trace_;
  TimePoint now_ = kModelStart;
  std::uint32_t number_ = 0;
};

// One guest: a disk comes where the guest begins, or where it is moved to while it is suspended, or
// where it has gone on and its disk there has gone.
// Returns what is wrong.
std::string move_about(BarrierModel& model, bool deaths) {
  std::vector<ModelDisk>& disks = model.disks();
  long writes = 0;
  bool place_was_kept = false;  // for a guest that knows what the one that has died knew
  for (int step = 0; step < kSteps; ++step) {
    model.pass_time();
    const std::uint64_t what = model.random().below(10);
    if (what <= 1 && disks.size() < kMostDisks) {
      const bool runs = std::any_of(disks.begin(), disks.end(), [](const ModelDisk& disk) {
        return disk.use == HolderUse::runs;
      });
      if (!runs) {
        const auto from = std::find_if(disks.rbegin(), disks.rend(),
                                       [](const ModelDisk& disk) { return !disk.passed_on; });
        const long knows = from == disks.rend() ? -1 : from->knows;
        model.enter(kMovedGuest, false).knows = knows;
      }
      continue;
    }
    if (disks.empty()) {
      continue;
    }
    const std::size_t at = model.random().below(disks.size());
    ModelDisk& disk = disks[at];
    if (what <= 5 && model.has_the_lun(disk)) {
      if (disk.knows >= 0 && disk.knows != writes) {
        return disk.name + " writes, and knows of " + std::to_string(disk.knows) + " writes of " +
               std::to_string(writes);
      }
      for (ModelDisk& other : disks) {
        if (&other != &disk && model.has_the_lun(other)) {
          return disk.name + " and " + other.name + " have the LUN";
        }
      }
      disk.knows = writes;
      if (model.random().one_in(2)) {
        BarrierModel::write(disk);
        disk.knows = ++writes;
        for (ModelDisk& other : disks) {
          other.passed_on = &other != &disk;
        }
        model.note("write " + disk.name);
      }
    } else if (what == 6 && disk.use == HolderUse::runs) {
      model.use(disk, HolderUse::suspended);
    } else if (what == 7 && disk.use == HolderUse::suspended) {
      model.use(disk, HolderUse::runs);
    } else if (what == 8 || (what == 9 && deaths)) {
      place_was_kept = place_was_kept || (what == 9 && disk.use == HolderUse::suspended);
      model.remove(at, what == 9);
    }
  }
  // The last one of them has the LUN, unless what it knows is old.
  while (disks.size() > 1) {
    model.remove(disks.size() - 1, false);
  }
  if (!disks.empty()) {
    ModelDisk& last = disks.front();
    if (last.use != HolderUse::runs) {
      model.use(last, HolderUse::runs);
    }
    const bool has = model.has_the_lun(last);
    const bool old = last.knows >= 0 && last.knows != writes;
    if (has == old && (has || !place_was_kept)) {
      return last.name + (has ? " has the LUN" : " has not the LUN") + ", and knows of " +
             std::to_string(last.knows) + " writes of " + std::to_string(writes);
    }
  }
  return {};
}

TEST(LunWriteBarrierModel, AGuestThatIsMovedAndResumedNeverWritesFromOldKnowledge) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    BarrierModel model(seed);
    const std::string wrong = move_about(model, seed % 3 == 0);
    ASSERT_EQ(wrong, "") << "seed " << seed << ": " << model.trace();
  }
}

TEST(LunWriteBarrierModel, NoTwoDisksHaveTheLunAndSomebodyAlwaysGetsIt) {
  std::size_t together = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    BarrierModel model(seed);
    std::vector<ModelDisk>& disks = model.disks();
    bool place_is_kept = false;
    for (int step = 0; step < kSteps; ++step) {
      model.pass_time();
      const std::uint64_t what = model.random().below(10);
      if (what <= 1 && disks.size() < kMostDisks) {
        model.enter(kMovedGuest + model.random().below(2), model.random().one_in(4));
        continue;
      }
      if (disks.empty()) {
        continue;
      }
      const std::size_t at = model.random().below(disks.size());
      ModelDisk& disk = disks[at];
      if (what == 6 && disk.use == HolderUse::runs) {
        model.use(disk, HolderUse::suspended);
      } else if (what == 7 && disk.use == HolderUse::suspended) {
        model.use(disk, HolderUse::runs);
      } else if (what >= 8) {
        // The place of a guest that was suspended is kept.
        place_is_kept = place_is_kept || (what == 9 && disk.use == HolderUse::suspended);
        model.remove(at, what == 9);
      }
      std::vector<ModelDisk*> have;
      bool all_run = !disks.empty();
      for (ModelDisk& each : disks) {
        if (model.has_the_lun(each)) {
          have.push_back(&each);
          BarrierModel::write(each);
        }
        all_run = all_run && each.use == HolderUse::runs && !each.overtaken;
      }
      ASSERT_FALSE(all_run && have.empty() && !place_is_kept)
          << "seed " << seed << ": " << model.trace();
      for (const ModelDisk* one : have) {
        for (const ModelDisk* other : have) {
          ASSERT_TRUE(one == other || (one->shared && other->shared))
              << "seed " << seed << ", " << one->name << " and " << other->name << ": "
              << model.trace();
        }
      }
      together += have.size() > 1 ? 1 : 0;
    }
  }
  EXPECT_GT(together, 20U);
}

}  // namespace
}  // namespace iscsi_blkback
