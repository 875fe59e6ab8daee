#!/bin/bash
# Finding: at tgt a login ends the session before it, of the same name and ISID, only where it
# begins with the security stage.
#
# Software   Debian 12: tgt, the version below
# Expected   RFC 7143 6.3.5: a login with TSIH 0 and the ISID of a session that the target has
#            ends that session, whichever stages the login passes through. The initiator may begin
#            with the operational stage where it wants no authentication (6.3)
# Seen       By way of the security stage: so, the old connection is closed. A login that begins
#            with the operational stage gets a session of its own, beside the old one: two of one
#            name and ISID, and both of them answer. How the old session began does not matter.
# Matters    Who has lost a connection with writes under way logs in once more with the same ISID,
#            to know that nothing of the old session is carried out any more. Here it may still
#            be. libiscsi begins with the operational stage unless it has a user's name.
# Here       Every login passes through the security stage (initiator/login/login.h).
#
# Runs tgtd on a free port of the loopback address, and logs in with the few lines of Python below.
# Needs root, apt and python3. Exit status: 0 as described, 1 it behaves differently, 2 it could
# not be tried.
. "$(dirname "$0")/common.bash"

readonly version='1:1.0.85-1+deb12u1'
need python3
unpack "tgt=$version" "${for_tgt[@]}"
start_tgtd 127.0.0.1
make_target 1 iqn.2026-11.example:disk

cat >sessions.py <<'P'
# Two logins of one initiator, one ISID, TSIH 0; then a ping on each of the two connections.
import socket, struct, sys, time

NAMES = ('InitiatorName=iqn.2026-11.example:host', 'TargetName=iqn.2026-11.example:disk',
         'SessionType=Normal')

class Connection:
    def __init__(self):
        self.socket = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)
        self.stream = self.socket.makefile('rb')
        self.stat_sn = 0

    def exchange(self, first, flags, middle, text=b''):
        header = struct.pack('>BBHI8s', first, flags, 0, len(text), middle)
        header += struct.pack('>IIII16x', 7, self.task, 1, self.stat_sn)
        try:
            self.socket.sendall(header + text + bytes(-len(text) % 4))
            answer = self.stream.read(48)
        except ConnectionError:
            return b''
        if len(answer) == 48:
            self.stat_sn = int.from_bytes(answer[24:28], 'big') + 1
            length = int.from_bytes(answer[5:8], 'big')
            self.stream.read(length + -length % 4)
        return answer

    def log_in(self, flags, *pairs):
        text = ''.join(pair + '\0' for pair in pairs).encode()
        self.task = 0  # in a login: the connection's number
        isid_and_tsih = bytes.fromhex('80abcdef00010000')
        answer = self.exchange(0x43, flags, isid_and_tsih, text)
        if answer[36:38] != b'\0\0':
            sys.exit('a login is refused: ' + answer[36:38].hex())

    def ping(self):
        self.task = 0xffffffff
        return 'answers' if self.exchange(0x40, 0x80, bytes(8))[:1] == b'\x20' else 'closed'

def session(stage):
    connection = Connection()
    if stage == 'security':
        connection.log_in(0x81, *NAMES, 'AuthMethod=None')
        connection.log_in(0x87, 'HeaderDigest=None')
    else:
        connection.log_in(0x87, *NAMES, 'HeaderDigest=None')
    return connection

for old_stage in 'security', 'operational':
    for new_stage in 'security', 'operational':
        old, new = session(old_stage), session(new_stage)
        print(f'old session by {old_stage}: {old.ping()}; new one by {new_stage}: {new.ping()}')
        old.socket.close()
        new.socket.close()
        time.sleep(0.5)
P
python3 sessions.py "$port" >seen 2>&1 || true
compare "tgt $version" <<'T'
old session by security: closed; new one by security: answers
old session by security: answers; new one by operational: answers
old session by operational: closed; new one by security: answers
old session by operational: answers; new one by operational: answers
T
