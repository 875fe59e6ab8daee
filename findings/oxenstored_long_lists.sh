#!/bin/bash
# Finding: libxenstore cannot list a node of oxenstored's whose list is longer than 4096 bytes.
#
# Software   Debian 12: xen-utils-4.17 (oxenstored, xenstored) and libxenstore4, the version below
# Expected   XENSTORE_PAYLOAD_MAX (4096) bounds a message of xenstore's protocol; a longer list is
#            refused with E2BIG, and then asked for by XS_DIRECTORY_PART (docs/misc/xenstore.txt)
# Seen       The xenstored in C: so, and xs_directory() gives all 400 names.
#            oxenstored: its answer on the socket has 12000 bytes, beyond the bound. libxenstore
#            takes that for a broken connection and closes it: xs_directory() fails, and so does
#            each later call by this handle. XS_DIRECTORY_PART is ENOSYS.
# Matters    Debian's init script starts oxenstored where both are installed. /local/domain and
#            the folders of a backend have a name for each guest: 700 to 1000 guests are enough.
# Here       The lists are asked for by another connection (blkback/xen/libxen_xenstore.cpp).
#
# Runs the two daemons without Xen, each on a socket of its own and with calls to the hypervisor
# that do nothing, in a temporary folder. Needs root (for a mount namespace, since the path of
# oxenstored's socket is fixed), apt, gcc and python3. Exit status: 0 as described, 1 it behaves
# differently, 2 it could not be tried.
. "$(dirname "$0")/common.bash"

readonly version='4.17.7+13-g2445b30a44-0+deb12u1'
need gcc python3 unshare
packages=(xen-utils-4.17 libxenstore4 libxenevtchn1 libxengnttab1 libxenmisc4.17 libxencall1
  libxenforeignmemory1 libxendevicemodel1 libxentoolcore1 libxentoollog1 libxen-dev)
unpack "${packages[@]/%/=$version}"
readonly programs=$work/root/usr/lib/xen-4.17/bin

cat >hypervisor.c <<'C'
// Instead of the hypervisor: domain 0 runs, its event channels are silent.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <xenctrl.h>
static int events = -1;
static char handle[64];
void* xenevtchn_open(void* l, unsigned f) { events = eventfd(0, EFD_CLOEXEC); return handle; }
int xenevtchn_fd(void* h) { return events; }
int xenevtchn_notify(void* h, unsigned p) { return 0; }
int xenevtchn_bind_virq(void* h, unsigned v) { return 1; }
int xenevtchn_bind_interdomain(void* h, unsigned d, unsigned p) { return 2; }
xc_interface* xc_interface_open(xentoollog_logger* a, xentoollog_logger* b, unsigned f) {
  return (xc_interface*)handle;
}
int xc_domain_getinfo(xc_interface* h, uint32_t first, unsigned n, xc_dominfo_t* info) {
  memset(info, 0, sizeof *info);
  info->running = 1;
  return first == 0;
}
void* xengnttab_open(void* l, unsigned f) { return handle; }
int xengnttab_set_max_grants(void* h, unsigned n) { return 0; }
int setrlimit(int resource, const void* limits) { return 0; }
int setrlimit64(int resource, const void* limits) { return 0; }
int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = va_arg(rest, int);
  va_end(rest);
  int (*next)(const char*, int, ...) = (int (*)(const char*, int, ...))dlsym(RTLD_NEXT, "open");
  if (strcmp(path, "/proc/xen/xsd_port") == 0) path = getenv("XSD_PORT");
  if (strcmp(path, "/proc/xen/xsd_kva") == 0) path = getenv("XSD_RING");
  return next(path, flags, mode);
}
C
cat >list.c <<'C'
#include <stdio.h>
#include <xenstore.h>
int main(void) {
  struct xs_handle* store = xs_open(0);
  if (store == NULL || !xs_watch(store, "/w", "t")) return 2;
  char path[64];
  for (int child = 0; child < 400; ++child) {
    snprintf(path, sizeof path, "/many/a-child-with-a-long-name-%d", 1000 + child);
    if (!xs_write(store, XBT_NULL, path, "1", 1)) return 2;
  }
  unsigned count = 0, length = 0;
  char** names = xs_directory(store, XBT_NULL, "/many", &count);
  printf("xs_directory: %s, %u names; ", names ? "ok" : "fails", names ? count : 0);
  char* value = xs_read(store, XBT_NULL, path, &length);
  printf("xs_read after it: %s\n", value ? "ok" : "fails");
  return 0;
}
C
cat >answer.py <<'P'
# What the daemon itself answers, by type: XS_ERROR is 16.
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
def ask(kind, payload):
    s.sendall(struct.pack('<IIII', kind, 0, 0, len(payload)) + payload)
    kind, _, _, length = struct.unpack('<IIII', s.recv(16, socket.MSG_WAITALL))
    return kind, s.recv(length, socket.MSG_WAITALL)
def text(kind, answer):
    if kind == 16:
        return answer.rstrip(b'\0').decode()
    return 'more than 4096 bytes' if len(answer) > 4096 else 'up to 4096 bytes'
print('XS_DIRECTORY: ' + text(*ask(1, b'/many\0')), end='; ')
print('XS_DIRECTORY_PART: ' + text(*ask(22, b'/many\x000\0')))
P
gcc -w -shared -fPIC -I root/usr/include -o hypervisor.so hypervisor.c
gcc -w -I root/usr/include -o list list.c \
  -L "$LD_LIBRARY_PATH" -l:libxenstore.so.4 -Wl,--allow-shlib-undefined
printf 1 >port
head -c 4096 /dev/zero >ring
mkdir run
cat >oxenstored.conf <<C
pid-file = $work/run/pid
xenstored-log-file = $work/run/log
access-log-file = $work/run/access
C
export XENSTORED_RUNDIR=$work/run XENSTORED_ROOTDIR=$work/run XENSTORED_PATH=$work/run/socket

# oxenstored uses /run/xenstored: a folder of ours in a mount namespace of its own.
start() {
  rm -f run/*
  # shellcheck disable=SC2016
  XSD_PORT=$work/port XSD_RING=$work/ring unshare --mount sh -c '
    mount --bind "$1" /mnt && mount -t tmpfs none /run && mkdir /run/xenstored &&
    mount --bind /mnt /run/xenstored && shift && exec env LD_PRELOAD="$@"' sh \
    "$work/run" "$work/hypervisor.so" "$@" >daemon.log 2>&1 &
  daemon=$!
  within_10_s test -S run/socket || cannot "$1 does not start: $(tail -n 1 daemon.log)"
}

{
  start "$programs/xenstored" -N
  echo "xenstored: $(./list)"
  echo "xenstored: $(python3 answer.py run/socket)"
  stop_daemon
  start "$programs/oxenstored" --no-domain-init --no-fork --config-file "$work/oxenstored.conf"
  echo "oxenstored: $(./list)"
  echo "oxenstored: $(python3 answer.py run/socket)"
  stop_daemon
} >seen
compare "Xen $version" <<'T'
xenstored: xs_directory: ok, 400 names; xs_read after it: ok
xenstored: XS_DIRECTORY: E2BIG; XS_DIRECTORY_PART: up to 4096 bytes
oxenstored: xs_directory: fails, 0 names; xs_read after it: fails
oxenstored: XS_DIRECTORY: more than 4096 bytes; XS_DIRECTORY_PART: ENOSYS
T
