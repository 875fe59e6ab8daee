#!/bin/bash
# Finding: libiscsi's discovery gives up at a list of targets that comes in more than one PDU, and
# tgt divides its list in the middle of a word without saying so (the C bit).
#
# Software   Debian 12: tgt and libiscsi-bin (iscsi-ls), the versions below
# Expected   RFC 7143 11.11: an answer longer than what the other side takes in one PDU goes in
#            several. All but the last have F 0, C 1 where the text goes on, and a Target Transfer
#            Tag, by which the initiator asks for the next
# Seen       libiscsi takes 262144 bytes in a PDU: 900 targets with names of 223 bytes are few
#            enough; of 1200 it lists none: "unsupported flags in text reply 00".
#            tgt gives all of them to an initiator that asks on. But C is 0 in each piece, although
#            a piece ends where it is full, in the middle of a name or of a word.
# Matters    A target for each volume or snapshot, and some arrays have thousands. An initiator
#            that reads each PDU for itself where C is 0, as it may, loses what lies on a seam.
# Here       Pieces are joined for as long as there is a tag (initiator/discovery/discovery_session.cpp).
#
# Runs tgtd on a free port of the loopback address; asks by iscsi-ls, and with the few lines of
# Python below by an initiator that takes 8192 bytes in a PDU, the RFC's default. Needs root, apt
# and python3. Exit status: 0 as described, 1 it behaves differently, 2 it could not be tried.
. "$(dirname "$0")/common.bash"

readonly tgt_version='1:1.0.85-1+deb12u1'
readonly libiscsi_version='1.19.0-3'
need python3
unpack "tgt=$tgt_version" "libiscsi-bin=$libiscsi_version" "libiscsi7=$libiscsi_version" "${for_tgt[@]}"
start_tgtd 127.0.0.1

targets=0
make_targets() { # UP_TO: each with a name of 223 bytes, the longest that there is
  local name
  while ((targets < $1)); do
    name=iqn.2026-11.example:volume-$((++targets))-
    name+=$(printf '%0*d' $((223 - ${#name})) 0)
    make_target "$targets" "$name"
  done
}

cat >pieces.py <<'P'
# A discovery session that takes 8192 bytes in a PDU, since it has told nothing else.
import socket, struct, sys

connection = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)
stream = connection.makefile('rb')
stat_sn = 0

def exchange(opcode, flags, middle, task, tag, text):
    global stat_sn
    header = struct.pack('>BBHI8s', opcode, flags, 0, len(text), middle)
    header += struct.pack('>I4sII16x', task, tag, 1, stat_sn)
    connection.sendall(header + text + bytes(-len(text) % 4))
    answer = stream.read(48)
    stat_sn = int.from_bytes(answer[24:28], 'big') + 1
    length = int.from_bytes(answer[5:8], 'big')
    return answer, stream.read(length + -length % 4)[:length]

NAMES = b'InitiatorName=iqn.2026-11.example:host\0SessionType=Discovery\0'
ISID = bytes.fromhex('80abcdef00010000')
exchange(0x43, 0x81, ISID, 1, bytes(4), NAMES + b'AuthMethod=None\0')
answer, _ = exchange(0x43, 0x87, ISID, 1, bytes(4), b'HeaderDigest=None\0')
if answer[36:38] != b'\0\0':
    sys.exit('the login is refused: ' + answer[36:38].hex())
pieces = []
flags = set()
none = tag = b'\xff' * 4
request = b'SendTargets=All\0'
while not pieces or tag != none:
    answer, piece = exchange(0x44, 0x80, bytes(8), 2, tag, request)
    tag, request = answer[20:24], b''
    pieces.append(piece)
    flags.add(f'F {answer[1] >> 7} C {answer[1] >> 6 & 1} {"no tag" if tag == none else "tag"}')
targets = b''.join(pieces).count(b'TargetName=iqn.')
print(f'{targets} in {"several pieces" if len(pieces) > 1 else "one piece"} '
      f'({", ".join(sorted(flags))})', end=', ')
print('some end' if any(piece[-1] for piece in pieces) else 'none ends', 'inside a word')
P
list() {
  echo "iscsi-ls, $targets targets: $(root/usr/bin/iscsi-ls -i iqn.2026-11.example:host \
    "iscsi://127.0.0.1:$port" 2>&1 | sed -n 's/^Target:.*/listed/p; s/^Failed.* : //p' |
    sort | uniq -c | sed 's/^ *//')"
}
{
  make_targets 900
  list
  make_targets 1200
  list
  echo "8192 bytes at a time: $(python3 pieces.py "$port" 2>&1)"
} >seen
compare "tgt $tgt_version, libiscsi $libiscsi_version" <<'T'
iscsi-ls, 900 targets: 900 listed
iscsi-ls, 1200 targets: 1 unsupported flags in text reply 00
8192 bytes at a time: 1200 in several pieces (F 0 C 0 tag, F 1 C 0 no tag), some end inside a word
T
