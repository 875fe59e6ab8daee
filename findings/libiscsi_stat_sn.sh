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
#            (initiator/session/status_sequence.h).
#
# Runs libiscsi beside the few lines of Python below, a target in memory on a free port of the
# loopback address. Needs root, apt, gcc and python3. Exit status: 0 as described, 1 it behaves
# differently, 2 it could not be tried.
. "$(dirname "$0")/common.bash"

readonly version='1.19.0-3'
need gcc python3
unpack "libiscsi7=$version" "libiscsi-dev=$version" "${for_libiscsi[@]}"

build_write ""

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
  daemon=$!
  within_10_s test -s portal
  timeout 30 ./write "$(cat portal)" || echo " the session ends: $?"
  wait "$daemon" || true
  daemon=''
}
ends=$(try 7ffffffe)$(try 80000010)
{
  cat told
  echo "commands:$ends"
} >seen
compare "libiscsi $version" <<'T'
StatSN from 7ffffffe: ExpStatSN right, right, right, right
StatSN from 80000010: ExpStatSN 0x1, 0x1, 0x1, 0x1
commands: GOOD GOOD GOOD GOOD GOOD GOOD
T
