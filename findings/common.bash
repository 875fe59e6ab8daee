# What the scripts beside this file have in common; they source it. It makes $work, a temporary
# folder that goes when the script ends, and changes to it.
# shellcheck shell=bash
set -euo pipefail

work=$(mktemp -d)
daemon='' # what a script has started, by its process id; ends with it
stop_daemon() {
  [[ -z $daemon ]] || { kill -KILL "$daemon" && wait "$daemon"; } 2>/dev/null || true
  daemon=''
}
trap 'stop_daemon; rm -rf "$work"' EXIT
cd "$work"

cannot() { # WHY
  echo "not tried: $*" >&2
  exit 2
}

need() { # TOOL...: beside root, apt-get and dpkg-deb
  local tool
  ((EUID == 0)) || cannot 'needs root'
  for tool in apt-get dpkg-deb "$@"; do
    command -v "$tool" >/dev/null || cannot "$tool is missing"
  done
}

unpack() { # PACKAGE[=VERSION]...: into root/, with its libraries to be found
  local package folder
  apt-get download -qq -o APT::Sandbox::User=root "$@" >/dev/null ||
    cannot "not all of these packages can be had: $*"
  for package in *.deb; do
    dpkg-deb -x "$package" root
  done
  for folder in lib lib/x86_64-linux-gnu usr/lib/x86_64-linux-gnu; do
    LD_LIBRARY_PATH=$work/root/$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  done
  export LD_LIBRARY_PATH
}

within_10_s() { # COMMAND...: until it succeeds
  local tries
  for ((tries = 0; tries < 100; ++tries)); do
    ! "$@" || return 0
    sleep 0.1
  done
  return 1
}

# Standard input: what was found when the script was written.
compare() { # WHAT: seen, a file
  cat >described
  echo "$1"
  cat seen
  diff described seen >/dev/null || {
    echo 'this is not what was found before:' >&2
    diff described seen >&2
    exit 1
  }
}

free_ports() { # COUNT: of the loopback address
  python3 -c 'import socket, sys
s = [socket.create_server(("127.0.0.1", 0)) for i in range(int(sys.argv[1]))]
print(*(i.getsockname()[1] for i in s))' "$1"
}

# Packages that those of tgt and libiscsi need.
# shellcheck disable=SC2034
readonly for_tgt=(libaio1 libibverbs1 librdmacm1 libnl-3-200 libnl-route-3-200)
# shellcheck disable=SC2034
readonly for_libiscsi=(libibverbs1 librdmacm1 libnl-3-200 libnl-route-3-200)

tgtadm() { root/usr/sbin/tgtadm --control-port 1 --lld iscsi "$@" 2>>adm.log; }
start_tgtd() { # ADDRESS...: at $port of each
  local portals
  export TGT_IPC_SOCKET=$work/ipc
  port=$(free_ports 1)
  portals=$(printf ",portal=%s:$port" "$@")
  root/usr/sbin/tgtd --foreground --control-port 1 --iscsi "${portals#,}" >daemon.log 2>&1 &
  daemon=$!
  within_10_s tgtadm --mode sys --op show >/dev/null ||
    cannot "tgtd does not start: $(tail -n 1 daemon.log)"
}
make_target() { # NUMBER NAME [ADDRESS]
  tgtadm --mode target --op new --tid "$1" --targetname "$2"
  tgtadm --mode target --op bind --tid "$1" --initiator-address "${3:-127.0.0.1}"
}

build_with_libiscsi() { # NAME: of NAME.c
  gcc -w -I root/usr/include -o "$1" "$1.c" -L root/usr/lib/x86_64-linux-gnu -l:libiscsi.so.7 \
    -Wl,--allow-shlib-undefined
}
# ./write ADDRESS: writes three blocks with libiscsi, one after the other, and says how each has
# ended.
build_write() { # [STATEMENT]: in C, of $iscsi, before the login
  cat >write.c <<C
#include <poll.h>
#include <stdio.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
int main(int count, char** words) {
  static unsigned char block[512];
  struct iscsi_context* iscsi = iscsi_create_context("iqn.2026-11.example:host");
  iscsi_set_targetname(iscsi, "iqn.2026-11.example:disk");
  ${1:-}
  iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
  if (count != 2 || iscsi_full_connect_sync(iscsi, words[1], 0) != 0) return 2;
  for (int lba = 0; lba < 3; ++lba) {
    struct scsi_task* task =
        iscsi_write10_sync(iscsi, 0, lba, block, sizeof block, 512, 0, 0, 0, 0, 0);
    printf(" %s", task == NULL ? "none" : task->status == SCSI_STATUS_GOOD ? "GOOD" : "failed");
  }
  puts("");
  return 0;
}
C
  build_with_libiscsi write
}
