#!/bin/bash
# Finding: libiscsi sends a write again after a lost connection, in a session of another ISID.
#
# Software   Debian 12: libiscsi, the version below
# Expected   A login with the ISID of the session that was lost ends it at the target (RFC 7143
#            6.3.5). Only then is it known that what was sent there is not carried out any more,
#            and a command that was not answered may be sent once more
# Seen       libiscsi makes a new ISID at random for each connection that it makes by itself, also
#            where its user has set one: to the target this is another initiator port, and the old
#            session lives on. The write that was not answered is sent again there, and is GOOD to
#            its user, who is told of nothing.
# Matters    Data of the first connection that are still under way, or that the target has taken in
#            and not written yet, can be written after the second ones have been answered, and over
#            what the guest has written there since. QEMU's disks at iscsi: are libiscsi's.
# Here       Writes are sent again only when the older ones are fenced, with the same ISID first
#            (multipath/unfenced_writes.h).
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
// Sets an ISID, writes three blocks with libiscsi, one by one, and says how each has ended.
#include <poll.h>
#include <stdio.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
int main(int count, char** words) {
  static unsigned char block[512];
  struct iscsi_context* iscsi = iscsi_create_context("iqn.2026-11.example:host");
  iscsi_set_targetname(iscsi, "iqn.2026-11.example:disk");
  iscsi_set_isid_random(iscsi, 0xabcdef, 0);
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
# A target that loses its first connection with a WRITE(10) unanswered, and serves the second.
import socket, struct, sys

server = socket.create_server(('127.0.0.1', 0))
server.settimeout(30)
print('127.0.0.1:%d' % server.getsockname()[1], flush=True)
isids = []
writes = []

def serve(connection, answers_writes):
    stat_sn = 1
    while len(request := connection.recv(48, socket.MSG_WAITALL)) == 48:
        length = int.from_bytes(request[5:8], 'big')
        connection.recv(length + -length % 4, socket.MSG_WAITALL)
        command = int.from_bytes(request[24:28], 'big')
        first, second, middle, data = 0x21, 0x80, bytes(8), b''
        if request[0] & 0x3f == 3:  # the login, all of it in one request
            isids.append(request[8:14])
            first, second, middle = 0x23, 0x87, request[8:14] + b'\0\1'
            data = b'HeaderDigest=None\0'
        elif request[32] == 0x2a:
            writes.append(int.from_bytes(request[34:38], 'big'))
            if not answers_writes:
                return
        expected = command + (request[0] & 0x40 == 0)  # an immediate one has no number of its own
        task = request[16:20]
        header = struct.pack('>BBHI8s4sI', first, second, 0, len(data), middle, task, 0)
        header += struct.pack('>III12x', stat_sn, expected, expected + 8)
        connection.sendall(header + data + bytes(-len(data) % 4))
        stat_sn += 1

for answers_writes in False, True:
    with server.accept()[0] as connection:
        serve(connection, answers_writes)
print('ISID of the first login:', isids[0].hex(), file=sys.stderr)
print('ISID of the second one:', 'the same' if isids[0] == isids[1] else 'another', file=sys.stderr)
print('blocks that were written:', writes, file=sys.stderr)
P
python3 target.py >portal 2>told &
target=$!
for ((tries = 0; tries < 100; ++tries)); do
  [[ ! -s portal ]] || break
  sleep 0.1
done
ends=$(timeout 30 ./write "$(cat portal)" || echo " the session ends: $?")
wait "$target" || true
target=''
{
  cat told
  echo "to the user:$ends"
} >seen
cat >described <<'T'
ISID of the first login: 80abcdef0000
ISID of the second one: another
blocks that were written: [0, 0, 1, 2]
to the user: GOOD GOOD GOOD
T
echo "libiscsi $version"
cat seen
diff described seen >/dev/null || {
  echo 'this is not what was found before:' >&2
  diff described seen >&2
  exit 1
}
