#!/bin/bash
# Finding: libiscsi reports success for a command that the target says it has not carried out.
#
# Software   Debian 12: libiscsi, the version below
# Expected   A SCSI Response has two answers (RFC 7143 11.4.2 and 11.4.3). Response: 0 the command
#            has been completed at the target, 1 target failure. Status counts only where Response
#            is 0, and is 0 otherwise, which would be GOOD
# Seen       libiscsi reads Status alone: a WRITE(10) that is answered with target failure is
#            SCSI_STATUS_GOOD to its user, with no word in iscsi_get_error(). A WRITE(10) that ends
#            with CHECK CONDITION is reported as it should be.
# Matters    QEMU and the other users of the library tell the guest that the block is written.
#            Linux's initiator takes Response 1 for an error of the host and tries again.
# Here       Response is judged before Status (initiator/session_pdus.cpp).
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
# A target for one connection: every command is GOOD, but for a WRITE(10), which gets this Response
# and this Status.
import socket, struct, sys

response, status = int(sys.argv[1]), int(sys.argv[2])
server = socket.create_server(('127.0.0.1', 0))
server.settimeout(30)
print('127.0.0.1:%d' % server.getsockname()[1], flush=True)
connection = server.accept()[0]
stat_sn = 1

def answer(first, second, response, status, middle, data=b''):
    global stat_sn
    header = struct.pack('>BBBBI8s4sI', first, second, response, status, len(data), middle, task, 0)
    expected = command + (request[0] & 0x40 == 0)  # an immediate one has no number of its own
    header += struct.pack('>III12x', stat_sn, expected, expected + 8)
    connection.sendall(header + data + bytes(-len(data) % 4))
    stat_sn += 1

while len(request := connection.recv(48, socket.MSG_WAITALL)) == 48:
    length = int.from_bytes(request[5:8], 'big')
    connection.recv(length + -length % 4, socket.MSG_WAITALL)
    task, command = request[16:20], int.from_bytes(request[24:28], 'big')
    opcode, operation = request[0] & 0x3f, request[32]
    if opcode == 3:  # the login, all of it in one request
        answer(0x23, 0x87, 0, 0, request[8:14] + b'\0\1', b'HeaderDigest=None\0')
    elif operation == 0x2a:
        # What a CHECK CONDITION is about: HARDWARE ERROR.
        sense = b'\0\x12\x70\0\4\0\0\0\0\x0a' + bytes(10) if status == 2 else b''
        answer(0x21, 0x80, response, status, bytes(8), sense)
    else:
        answer(0x21, 0x80, 0, 0, bytes(8))
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
{
  echo "Response 0, Status GOOD:$(try 0 0)"
  echo "Response 0, Status CHECK CONDITION:$(try 0 2)"
  echo "Response 1, Status 0:$(try 1 0)"
} >seen
cat >described <<'T'
Response 0, Status GOOD: GOOD GOOD GOOD
Response 0, Status CHECK CONDITION: failed failed failed
Response 1, Status 0: GOOD GOOD GOOD
T
echo "libiscsi $version"
cat seen
diff described seen >/dev/null || {
  echo 'this is not what was found before:' >&2
  diff described seen >&2
  exit 1
}
