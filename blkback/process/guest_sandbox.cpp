#include "blkback/process/guest_sandbox.h"

#include <asm/ioctls.h>
#include <fmt/format.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/prctl.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "blkback/xen/device_requests.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kUseRegisteredRing =
    1U << 31;                               // IORING_REGISTER_USE_REGISTERED_RING of Linux 6.3
constexpr std::uint32_t kSocketType = 0xf;  // beside SOCK_CLOEXEC and SOCK_NONBLOCK
#ifndef PR_SET_VMA
constexpr std::uint32_t PR_SET_VMA = 0x53564d41;
#endif

// Xen's devices in each turn of the I/O thread first: the filter is run for these, while the kernel remembers
// what it says to calls whose arguments it does not look at.
void allow_devices(SyscallFilter& filter) {
  std::vector<std::uint32_t> requests = xen_device_requests();
  // Of sockets: the resolver's; the names and the links of interfaces.
  requests.insert(requests.end(), {FIONREAD, FIONBIO, SIOCGIFNAME, SIOCGIFINDEX, SIOCGIFFLAGS});
  filter.allow(SYS_ioctl, 1, requests);
  filter.allow({SYS_io_uring_enter});
  // liburing 2.4 and later names a ring that is registered by its number there.
  filter.allow(SYS_io_uring_register, 1,
               {IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS,
                IORING_UNREGISTER_RING_FDS | kUseRegisteredRing});
}

void allow_descriptors(SyscallFilter& filter) {
  filter.allow({SYS_read,           SYS_write,           SYS_readv,       SYS_writev,
                SYS_pread64,        SYS_pwrite64,        SYS_lseek,       SYS_close,
                SYS_fcntl,          SYS_fstat,           SYS_ppoll,       SYS_pselect6,
                SYS_epoll_create1,  SYS_epoll_ctl,       SYS_epoll_pwait, SYS_eventfd2,
                SYS_timerfd_create, SYS_timerfd_settime, SYS_signalfd4,   SYS_pipe2,
                SYS_flock,          SYS_ftruncate,       SYS_fallocate,   SYS_getdents64});
#ifdef __x86_64__
  filter.allow({SYS_poll, SYS_select, SYS_epoll_wait, SYS_pipe});
#endif
}

// What may be opened is for the file system to say.
void allow_files(SyscallFilter& filter) {
  filter.allow({SYS_openat, SYS_newfstatat, SYS_statx, SYS_faccessat, SYS_faccessat2,
                SYS_readlinkat, SYS_unlinkat, SYS_mkdirat});
#ifdef __x86_64__
  filter.allow(
      {SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_unlink, SYS_mkdir, SYS_rmdir});
#endif
}

void allow_sockets(SyscallFilter& filter) {
  filter.allow({SYS_connect, SYS_bind, SYS_accept4, SYS_getsockname, SYS_getpeername,
                SYS_getsockopt, SYS_setsockopt, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg,
                SYS_sendmmsg, SYS_shutdown});
  for (const unsigned family : {unsigned{AF_INET}, unsigned{AF_INET6}, unsigned{AF_UNIX}}) {
    for (const unsigned type : {unsigned{SOCK_STREAM}, unsigned{SOCK_DGRAM}}) {
      filter.allow(SYS_socket, {{.number = 0, .value = family},
                                {.number = 1, .value = type, .mask = kSocketType}});
    }
  }
  filter.allow(SYS_socket,
               {{.number = 0, .value = AF_NETLINK}, {.number = 2, .value = NETLINK_ROUTE}});
  filter.refuse(SYS_socket, EAFNOSUPPORT);
}

// No memory is both written and executed, and none that was written is executed later; libraries that the
// resolver loads are.
void allow_memory(SyscallFilter& filter) {
  filter.allow({SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk});
  filter.allow(SYS_mmap, {{.number = 2, .value = 0, .mask = PROT_EXEC}});
  filter.allow(SYS_mmap, {{.number = 2, .value = 0, .mask = PROT_WRITE}});
  filter.allow(SYS_mprotect, {{.number = 2, .value = 0, .mask = PROT_EXEC}});
}

void allow_threads(SyscallFilter& filter, pid_t process) {
  filter.allow({SYS_futex, SYS_set_robust_list, SYS_rseq, SYS_sched_yield, SYS_sched_getaffinity,
                SYS_exit, SYS_exit_group, SYS_gettid, SYS_getpid, SYS_rt_sigprocmask,
                SYS_rt_sigaction, SYS_rt_sigreturn, SYS_sigaltstack, SYS_restart_syscall,
                SYS_membarrier});
  filter.allow(SYS_clone, {{.number = 0, .value = CLONE_THREAD, .mask = CLONE_THREAD}});
  // Its flags are in memory, where a filter cannot see them: glibc then takes the call above, each time.
  filter.refuse_quietly(SYS_clone3, ENOSYS);
  filter.allow(SYS_tgkill, {{.number = 0, .value = static_cast<std::uint32_t>(process)}});
  filter.allow(SYS_prctl, 0, {PR_SET_NAME, PR_SET_VMA});
}

void allow_looking(SyscallFilter& filter) {
  filter.allow({SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep,
                SYS_gettimeofday, SYS_getrandom, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
                SYS_uname, SYS_sysinfo, SYS_getcpu});
  filter.allow(SYS_getrusage, 0, {RUSAGE_THREAD});
#ifdef __x86_64__
  filter.allow({SYS_time, SYS_getrlimit});
#endif
  // Its own limits, and only to look at them.
  filter.allow(SYS_prlimit64, {{.number = 0, .value = 0},
                               {.number = 2, .value = 0},
                               {.number = 2, .value = 0, .upper = true}});
}

// None of these is made by a library that we use, whatever the host's settings: they are an attack.
void kill_attacks(SyscallFilter& filter) {
  filter.kill({SYS_execve,
               SYS_execveat,
               SYS_ptrace,
               SYS_process_vm_readv,
               SYS_process_vm_writev,
               SYS_mount,
               SYS_umount2,
               SYS_pivot_root,
               SYS_chroot,
               SYS_unshare,
               SYS_setns,
               SYS_open_tree,
               SYS_move_mount,
               SYS_fsopen,
               SYS_fsconfig,
               SYS_fsmount,
               SYS_bpf,
               SYS_perf_event_open,
               SYS_init_module,
               SYS_finit_module,
               SYS_delete_module,
               SYS_kexec_load,
               SYS_reboot,
               SYS_swapon,
               SYS_setuid,
               SYS_setgid,
               SYS_setreuid,
               SYS_setregid,
               SYS_setresuid,
               SYS_setresgid,
               SYS_setfsuid,
               SYS_setfsgid,
               SYS_setgroups,
               SYS_capset,
               SYS_keyctl,
               SYS_add_key,
               SYS_userfaultfd,
               SYS_open_by_handle_at});
#ifdef __x86_64__
  filter.kill({SYS_iopl, SYS_ioperm});
#endif
}

}  // namespace

SyscallFilter guest_syscalls(pid_t process) {
  SyscallFilter filter;
  allow_devices(filter);
  allow_descriptors(filter);
  allow_files(filter);
  allow_sockets(filter);
  allow_memory(filter);
  allow_threads(filter, process);
  allow_looking(filter);
  kill_attacks(filter);
  return filter;
}

Result<void> enter_guest_sandbox(const std::optional<ProcessUser>& user) {
  if (user) {
    if (auto became = become_user(*user); !became) {
      return became;
    }
  } else if (auto none = keep_capabilities(0); !none) {
    return none;
  }
  return guest_syscalls(::getpid()).install();
}

Result<void> share_new_files(gid_t group) {
  ::umask(S_IRWXO);
  if (::setegid(group) != 0) {
    return tl::unexpected(system_error(fmt::format("group {} cannot be taken", group), errno));
  }
  return {};
}

}  // namespace iscsi_blkback
