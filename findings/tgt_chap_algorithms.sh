#!/bin/bash
# Finding: tgt takes the number of CHAP with SHA-256 for SHA-1, and picks it where it comes first.
#
# Software   Debian 12: tgt, the version below
# Expected   CHAP_A (RFC 7143 12.1.3) has the numbers of PPP's authentication algorithms at IANA:
#            5 MD5, 6 SHA-1, 7 SHA-256, 8 SHA3-256. The target picks one that it knows from the
#            list; the right secret is let in
# Seen       tgt knows 5 and 7, and takes the first of them in the list. Its 7 is SHA-1: an answer
#            computed with SHA-256 from the right secret is refused, not as wrong (0x0201) but as
#            an initiator's error (0x0200); the 20 bytes of SHA-1 under that number are let in.
#            6, which is SHA-1, it does not know.
# Matters    An initiator that offers the stronger ones first, as open-iscsi can
#            (chap_algs), cannot log in with the right secret, and the status says nothing of it.
# Here       What was refused is left out of the next login's list (initiator/login/chap_ladder.h).
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

tgtadm --mode account --op new --user user --password 'a-secret-of-16-b'
tgtadm --mode account --op bind --tid 1 --user user

cat >chap.py <<'P'
# Logs in with CHAP_A as given, and the answer computed with the function and secret given.
import hashlib, socket, struct, sys

def log_in(port, offer, function, secret):
    connection = socket.create_connection(('127.0.0.1', port), 10)
    stream = connection.makefile('rb')
    isid = bytes.fromhex('80abcdef00010000')
    stat_sn = 0

    def exchange(flags, *pairs):
        nonlocal stat_sn
        text = ''.join(pair + '\0' for pair in pairs).encode()
        header = struct.pack('>BBHI8s', 0x43, flags, 0, len(text), isid)
        header += struct.pack('>IIII16x', 1, 0, 1, stat_sn)
        connection.sendall(header + text + bytes(-len(text) % 4))
        answer = stream.read(48)
        stat_sn = int.from_bytes(answer[24:28], 'big') + 1
        length = int.from_bytes(answer[5:8], 'big')
        text = stream.read(length + -length % 4)[:length].decode()
        keys = dict(pair.split('=', 1) for pair in text.split('\0') if pair)
        return int.from_bytes(answer[36:38], 'big'), keys

    exchange(0x81, 'InitiatorName=iqn.2026-11.example:host', 'SessionType=Normal',
             'TargetName=iqn.2026-11.example:disk', 'AuthMethod=CHAP')
    status, keys = exchange(0, 'CHAP_A=' + offer)
    if status:
        return f'nothing is picked, status 0x{status:04x}'
    message = bytes([int(keys['CHAP_I'])]) + secret + bytes.fromhex(keys['CHAP_C'][2:])
    response = hashlib.new(function, message).hexdigest()
    status, _ = exchange(0x81, 'CHAP_N=user', 'CHAP_R=0x' + response)
    verdict = f'status 0x{status:04x}' if status else 'let in'
    return f'{keys["CHAP_A"]} is picked, {function}: {verdict}'

RIGHT = b'a-secret-of-16-b'
for offer, function in ('8,7,6,5', 'sha256'), ('8,7,6,5', 'sha1'), ('5,7', 'md5'), ('6', 'sha1'):
    print(f'{offer} offered: {log_in(int(sys.argv[1]), offer, function, RIGHT)}')
print(f'wrong secret, 7 offered: {log_in(int(sys.argv[1]), "7", "sha1", RIGHT[::-1])}')
P
python3 chap.py "$port" >seen 2>&1 || true
compare "tgt $version" <<'T'
8,7,6,5 offered: 7 is picked, sha256: status 0x0200
8,7,6,5 offered: 7 is picked, sha1: let in
5,7 offered: 5 is picked, md5: let in
6 offered: nothing is picked, status 0x0200
wrong secret, 7 offered: 7 is picked, sha1: status 0x0201
T
