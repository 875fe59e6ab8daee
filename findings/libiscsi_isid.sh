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
#            (multipath/fencing/unfenced_writes.h).
#
# Runs libiscsi beside the few lines of Python below, a target in memory on a free port of the
# loopback address. Needs root, apt, gcc and python3. Exit status: 0 as described, 1 it behaves
# differently, 2 it could not be tried.
. "$(dirname "$0")/common.bash"

readonly version='1.19.0-3'
need gcc python3
unpack "libiscsi7=$version" "libiscsi-dev=$version" "${for_libiscsi[@]}"

build_write 'iscsi_set_isid_random(iscsi, 0xabcdef, 0);'

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
daemon=$!
within_10_s test -s portal
ends=$(timeout 30 ./write "$(cat portal)" || echo " the session ends: $?")
wait "$daemon" || true
daemon=''
{
  cat told
  echo "to the user:$ends"
} >seen
compare "libiscsi $version" <<'T'
ISID of the first login: 80abcdef0000
ISID of the second one: another
blocks that were written: [0, 0, 1, 2]
to the user: GOOD GOOD GOOD
T
