#include "multipath/fencing/barrier_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <map>
#include <system_error>

namespace iscsi_blkback {
namespace {

constexpr int kMostTries = 3;
// A file that is forwarded leads to another one, which may be forwarded in its turn.
constexpr int kMostForwards = 16;

// The file at the end of the line; `file` itself where it is not forwarded.
Result<BarrierFile> follow(BarrierFile file) {
  for (int forwards = 0; file.is_forwarded(); ++forwards) {
    const std::string next = file.forwarded_to();
    if (next.empty() || forwards == kMostForwards) {
      return fail(ErrorCode::conflict,
                  fmt::format("{} leads to no file of this program's: remove it while no disk of "
                              "the LUN is in use",
                              file.path()));
    }
    auto opened = BarrierFile::open_path(next);
    if (!opened) {
      return opened;
    }
    file = std::move(*opened);
  }
  return file;
}

// In the order of their names, as all processes must choose the same.
std::vector<std::string> paths_in(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code failed;
  for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end;
       at.increment(failed)) {
    if (BarrierFile::is_barrier_file(at->path().filename().string())) {
      paths.push_back(folder + "/" + at->path().filename().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// files.size(): none of them.
std::size_t index_of(const BarrierFile& wanted, const std::vector<BarrierFile>& files) {
  return static_cast<std::size_t>(
      std::find_if(files.begin(), files.end(),
                   [&](const BarrierFile& file) { return file.is_same_file(wanted); }) -
      files.begin());
}

// By way of other files that are forwarded.
bool leads_to(const BarrierFile& file, const std::map<std::string, std::string>& forwards,
              const BarrierFile& wanted) {
  std::string at = file.path();
  for (int count = 0; count < kMostForwards && at != wanted.path(); ++count) {
    const auto next = forwards.find(at);
    if (next == forwards.end()) {
      return false;
    }
    at = next->second;
  }
  return at == wanted.path();
}

// Each knows the LUN by names that the others' do not contradict.
bool are_of_one_lun(const std::vector<BarrierFile>& files, const BarrierNames& names) {
  BarrierNames all = names;
  for (const BarrierFile& file : files) {
    const BarrierNames theirs = file.names();
    if (!theirs.known.empty() && !is_same_lun(all, theirs)) {
      return false;
    }
    all.add(theirs);
  }
  return true;
}

}  // namespace

Result<BarrierFolder> BarrierFolder::lock(const std::string& folder) {
  std::error_code made;
  std::filesystem::create_directories(folder, made);  // or open() says why not
  for (int tries = 0; tries < kMostTries; ++tries) {
    UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) {
      return tl::unexpected(system_error(fmt::format("{} cannot be opened", folder), errno));
    }
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      break;
    }
    struct stat by_fd {};
    struct stat by_path {};
    if (::fstat(fd.get(), &by_fd) == 0 && ::stat(folder.c_str(), &by_path) == 0 &&
        by_fd.st_dev == by_path.st_dev && by_fd.st_ino == by_path.st_ino) {
      return BarrierFolder(folder, std::move(fd));
    }
  }
  return fail(ErrorCode::unavailable,
              fmt::format("{} is locked by another process just now", folder));
}

Result<BarrierFile> BarrierFolder::open_key(const std::string& key) const {
  auto file = BarrierFile::open(path_, key);
  return file ? follow(std::move(*file)) : std::move(file);
}

// Nobody comes to one of them meanwhile, as the folder is locked.
void BarrierFolder::forget_oldest(Files files) {
  if (files.size() <= kMostFiles) {
    return;
  }
  std::sort(files.begin(), files.end());
  std::size_t left = files.size();
  for (auto file = files.begin(); file != files.end() && left > kMostFiles; ++file) {
    if (BarrierFile::is_unused(file->second) && ::unlink(file->second.c_str()) == 0) {
      --left;
    }
  }
}

Result<BarrierFolder::Found> BarrierFolder::find(const std::string& key, const BarrierNames& names,
                                                 const BarrierFile* in_use) const {
  std::vector<BarrierFile> same;
  std::vector<BarrierFile> forwarded;
  Files others;
  std::uint64_t last_place = 0;
  for (const std::string& path : paths_in(path_)) {
    const auto about = BarrierFile::about(path);
    if (!about) {
      // It may be this LUN's, and this process may not see it: it is another user's.
      if (::access(path.c_str(), R_OK | W_OK) != 0 && errno == EACCES) {
        return tl::unexpected(system_error(fmt::format("{} cannot be opened", path), EACCES));
      }
      continue;
    }
    if (about->last_place <= barrier_layout::kMaxPlace) {
      last_place = std::max(last_place, about->last_place);
    }
    if (!about->forwarded && !is_same_lun(names, about->names) &&
        (in_use == nullptr || in_use->path() != path)) {
      others.emplace_back(about->last_place, path);
      continue;
    }
    auto file = BarrierFile::open_existing(path);
    if (!file) {
      return tl::unexpected(file.error());
    }
    (about->forwarded ? forwarded : same).push_back(std::move(*file));
  }
  forget_oldest(std::move(others));
  // Whatever names the file of the key has: two disks with one key always see each other.
  std::error_code ignored;
  if (same.empty() || std::filesystem::exists(BarrierFile::path_of(path_, key), ignored)) {
    auto file = open_key(key);
    if (!file) {
      return tl::unexpected(file.error());
    }
    if (index_of(*file, same) == same.size()) {
      same.push_back(std::move(*file));
    }
  }
  const bool of_one_lun = are_of_one_lun(same, names);
  Found found;
  found.last_place = last_place;
  std::size_t chosen = 0;
  if (of_one_lun) {
    // A disk that finds out goes to the other file itself: it knows at once, those there do not.
    chosen = in_use != nullptr && same.size() > 1 && same[0].is_same_file(*in_use) ? 1 : 0;
  } else if (in_use != nullptr) {
    chosen = index_of(*in_use, same);
  } else {
    auto own = open_key(key);
    if (!own) {
      return tl::unexpected(own.error());
    }
    chosen = index_of(*own, same);
    if (chosen == same.size()) {
      same.push_back(std::move(*own));
    }
  }
  found.file = std::move(same[chosen]);
  same.erase(same.begin() + static_cast<std::ptrdiff_t>(chosen));
  BarrierNames all = names;
  if (of_one_lun) {
    for (const BarrierFile& file : same) {
      all.add(file.names());
    }
  }
  if (auto added = found.file.add_names(all); !added) {
    return tl::unexpected(added.error());
  }
  if (!of_one_lun) {
    found.ambiguous = std::move(same);
    return found;
  }
  for (BarrierFile& file : same) {
    file.forward_to(found.file);
    forwarded.push_back(std::move(file));
  }
  std::map<std::string, std::string> forwards;
  for (const BarrierFile& file : forwarded) {
    forwards[file.path()] = file.forwarded_to();
  }
  for (BarrierFile& file : forwarded) {
    if (leads_to(file, forwards, found.file)) {
      found.former.push_back(std::move(file));
    }
  }
  return found;
}

}  // namespace iscsi_blkback
