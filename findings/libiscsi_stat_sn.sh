#!/bin/bash
# Finding: libiscsi's ExpStatSN stays at 1 where a target begins its StatSN in the upper half.
#
# Software   Debian 12: libiscsi, the version below
# Expected   StatSN begins where the target likes (LIO: at a random number for each connection) and
#            counts in 32-bit serial arithmetic (RFC 7143 4.2.2.1 and 4.2.2.2). ExpStatSN of each
#            request is the number after the last one that has come
# Seen       A StatSN that begins at 0x7ffffffe is followed, beyond 0x80000000 as well. One that
#            begins at 0x80000010 is not: libiscsi takes what is beyond the last number, and before
#            the first answer, without CHAP, that is 0. Each request says ExpStatSN 1.
# Matters    In serial arithmetic 1 is beyond all of those numbers: it acknowledges answers that
#            have not been sent. Every second session with LIO is one like that. A target that
#            refuses what it has not sent does so at every second login, for no visible reason.
# Here       The number of the login's last answer is where counting begins
#            (initiator/status_sequence.h).
#
# Runs libiscsi beside the few lines of Python below, a target in memory on a free port of the
# loopback address. Needs root, apt, gcc and python3. Exit status: 0 as described, 1 it behaves
# differently, 2 it could not be tried.
set -euo pipefail

readonly version='1.19.0-3'
work=$(mktemp -d)
target=''
finish() {
  [[ -z $target ]] || { kill "$target" && wait "$target"; } 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
cannot() {
  echo "not tried: $*" >&2
  exit 2
}

((EUID == 0)) || cannot 'needs root'
for tool in apt-get dpkg-deb gcc python3; do
  command -v "$tool" >/dev/null || cannot "$tool is missing"
done
cd "$work"
apt-get download -qq -o APT::Sandbox::User=root "libiscsi7=$version" "libiscsi-dev=$version" \
  libibverbs1 librdmacm1 libnl-3-200 libnl-route-3-200 >/dev/null ||
  cannot "version $version of libiscsi cannot be had"
for package in *.deb; do
  dpkg-deb -x "$package" root
done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu

cat >write.c <<'C'
// Writes three blocks with libiscsi, one after the other, and says how each has ended.
#include <poll.h>
#include <stdio.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
int main(int count, char** words) {
  static unsigned char block[512];
  struct iscsi_context* iscsi = iscsi_create_context("iqn.2026-11.example:host");
  iscsi_set_targetname(iscsi, "iqn.2026-11.example:disk");
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
gcc -w -I root/usr/include -o write write.c -L "${LD_LIBRARY_PATH%%:*}" -l:libiscsi.so.7 \
  -Wl,--allow-shlib-undefined

cat >target.py <<'P'
# A target for one connection, which answers every command with GOOD: whether the ExpStatSN of each
# is what the target sends next.
import socket, struct, sys

stat_sn = int(sys.argv[1], 16)
server = socket.create_server(('127.0.0.1', 0))
server.settimeout(30)
print('127.0.0.1:%d' % server.getsockname()[1], flush=True)
connection = server.accept()[0]
seen = []

def answer(first, second, middle, data=b''):
    global stat_sn
    header = struct.pack('>BBHI8s4sI', first, second, 0, len(data), middle, task, 0)
    expected = command + (request[0] & 0x40 == 0)  # an immediate one has no number of its own
    header += struct.pack('>III12x', stat_sn, expected, expected + 8)
    connection.sendall(header + data + bytes(-len(data) % 4))
    stat_sn = (stat_sn + 1) % 2**32

while len(request := connection.recv(48, socket.MSG_WAITALL)) == 48:
    length = int.from_bytes(request[5:8], 'big')
    connection.recv(length + -length % 4, socket.MSG_WAITALL)
    task, command = request[16:20], int.from_bytes(request[24:28], 'big')
    if request[0] & 0x3f == 3:  # the login, all of it in one request
        answer(0x23, 0x87, request[8:14] + b'\0\1', b'HeaderDigest=None\0')
    else:
        told = int.from_bytes(request[28:32], 'big')
        seen.append('right' if told == stat_sn else f'{told:#x}')
        answer(0x21, 0x80, bytes(8))
print(f'StatSN from {sys.argv[1]}: ExpStatSN {", ".join(seen)}', file=sys.stderr)
P
try() { # WORDS of target.py
  : >portal
  python3 target.py "$@" >portal 2>>told &
  target=$!
  for ((tries = 0; tries < 100; ++tries)); do
    [[ ! -s portal ]] || break
    sleep 0.1
  done
  timeout 30 ./write "$(cat portal)" || echo " the session ends: $?"
  wait "$target" || true
  target=''
}
ends=$(try 7ffffffe)$(try 80000010)
{
  cat told
  echo "commands:$ends"
} >seen
cat >described <<'T'
StatSN from 7ffffffe: ExpStatSN right, right, right, right
StatSN from 80000010: ExpStatSN 0x1, 0x1, 0x1, 0x1
commands: GOOD GOOD GOOD GOOD GOOD GOOD
T
echo "libiscsi $version"
cat seen
diff described seen >/dev/null || {
  echo 'this is not what was found before:' >&2
  diff described seen >&2
  exit 1
}
