// A part of a test in a child of its own, for what a process does to itself for good.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "base/unique_fd.h"

namespace iscsi_blkback {

struct ChildEnd {
  int signal = 0;    // that ended it
  std::string said;  // else
};

// body: what it returns is said. The child is gone when this returns.
inline ChildEnd in_child(const std::function<std::string()>& body) {
  int ends[2] = {-1, -1};
  if (::pipe(ends) != 0) {
    return {.said = "no pipe"};
  }
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string said = body();
    std::size_t written = 0;
    while (written < said.size()) {
      const ssize_t count = ::write(ends[1], said.data() + written, said.size() - written);
      if (count <= 0) {
        break;
      }
      written += static_cast<std::size_t>(count);
    }
    ::_exit(0);
  }
  ::close(ends[1]);
  const UniqueFd out(ends[0]);
  ChildEnd end;
  char part[4096];
  for (ssize_t count = 0; (count = ::read(out.get(), part, sizeof part)) > 0;) {
    end.said.append(part, static_cast<std::size_t>(count));
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child) {
    end.said += "; the child is lost";
  } else if (WIFSIGNALED(status)) {
    end.signal = WTERMSIG(status);
  }
  return end;
}

}  // namespace iscsi_blkback
