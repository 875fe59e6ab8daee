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
# Here       Response is judged before Status (initiator/session/command_answers.cpp).
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
  daemon=$!
  within_10_s test -s portal
  timeout 30 ./write "$(cat portal)" || echo " the session ends: $?"
  wait "$daemon" || true
  daemon=''
}
{
  echo "Response 0, Status GOOD:$(try 0 0)"
  echo "Response 0, Status CHECK CONDITION:$(try 0 2)"
  echo "Response 1, Status 0:$(try 1 0)"
} >seen
compare "libiscsi $version" <<'T'
Response 0, Status GOOD: GOOD GOOD GOOD
Response 0, Status CHECK CONDITION: failed failed failed
Response 1, Status 0: GOOD GOOD GOOD
T
