// Where xentop (Xen 4.19 and later) looks for the statistics of disks of kind vbd3: a file for each,
// vbd-DOMID-DEVID, in /dev/shm/td3-PID, where PID is what the node kthread-pid of the disk's backend
// says (xen, tools/libs/stat/xenstat_linux.c). tapdisk has folders of this name there, too.
//
// StatisticsFolder: the one of this process. Made with its first file, removed with it; its files are
// StatisticsFile. Control thread.
//
// /dev/shm is everybody's: nothing is put into a folder that another user has made or may write to.
// A process that ends in disorder leaves its folder. It is known by a file of ours in it and by its
// lock (flock(2)), which nobody holds any more.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/domain_id.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "blkback/guest/statistics_page.h"

namespace iscsi_blkback {

inline constexpr const char* kSharedMemory = "/dev/shm";

// A disk's file; gone with it. Its page may live longer.
class StatisticsFile {
 public:
  ~StatisticsFile();
  StatisticsFile(const StatisticsFile&) = delete;
  StatisticsFile& operator=(const StatisticsFile&) = delete;

  [[nodiscard]] const std::shared_ptr<StatisticsPage>& page() const { return page_; }

 private:
  friend class StatisticsFolder;
  StatisticsFile(int folder, std::string name, std::shared_ptr<StatisticsPage> page)
      : folder_(folder), name_(std::move(name)), page_(std::move(page)) {}

  const int folder_;  // its descriptor
  const std::string name_;
  const std::shared_ptr<StatisticsPage> page_;
};

class StatisticsFolder {
 public:
  // parent: kSharedMemory but in tests; process: this one.
  StatisticsFolder(const std::string& parent, pid_t process);
  ~StatisticsFolder();  // after its files
  StatisticsFolder(const StatisticsFolder&) = delete;
  StatisticsFolder& operator=(const StatisticsFolder&) = delete;

  // The error is one sentence. conflict: the disk has a file.
  [[nodiscard]] Result<std::unique_ptr<StatisticsFile>> make_file(DomainId guest,
                                                                  std::uint32_t device_id);
  // For the node kthread-pid.
  [[nodiscard]] pid_t process() const { return process_; }

 private:
  [[nodiscard]] Result<void> open();

  const std::string path_;
  const pid_t process_;
  UniqueFd fd_;  // locked; not valid: there is no folder yet
};

// Removes what a process that has ended has left, if it has, and if it was one of ours.
void remove_statistics_left_by(pid_t process, const std::string& parent = kSharedMemory);
// What any has left. Looks at so many names of the folder, in which everybody may make some.
void remove_statistics_left(const std::string& parent = kSharedMemory);
inline constexpr int kMostNamesLookedAt = 100'000;

}  // namespace iscsi_blkback
