#!/bin/bash
# Finding: istgt's answers to pings do not fit in with those to commands: the StatSN have another
# order than the PDUs, and without a command queue one PDU stands in the middle of another.
#
# Software   Debian 12: istgt, the version below
# Expected   A ping (NOP-Out) may come at any time (RFC 7143 11.18). Its answer has the next StatSN
#            (4.2.2.2), and comes before or behind the PDUs of READs that are under way
# Seen       QueueDepth 32: the answer to a ping has its number before those of READs that are sent
#            before it. The initiator sees a gap of one, which closes by itself some PDUs later.
#            QueueDepth 0, which the configuration has for "no command queuing": its 48 bytes also
#            stand within the data of a READ, whose status is GOOD. The last 48 bytes of the data
#            are then where the next header should be, and the connection is lost. Without pings
#            neither happens.
# Matters    Initiators ping, Linux's and QEMU's every 5 s. Without DataDigest a READ gives foreign
#            bytes to its user. Who takes a gap in StatSN for a broken connection, as error recovery
#            level 0 allows, breaks one with each ping under load.
# Here       Gaps are waited for (initiator/session/status_sequence.h), and only a connection that is silent
#            is pinged (initiator/session/keep_alive.h). QueueDepth 0 is not to be used.
#
# Runs istgt on free ports of the loopback address, with a disk in the temporary folder, and keeps
# it busy with READs and pings for some seconds with the few lines of Python below. Needs root, apt
# and python3. Exit status: 0 as described, 1 it behaves differently, 2 it could not be tried.
. "$(dirname "$0")/common.bash"

readonly version='0.4~20111008-4+b1'
need python3
unpack "istgt=$version"
python3 -c 'open("disk", "wb").write(b"Z" * 16384 * 64)'
(umask 077 && : >auth)

start() { # QUEUE_DEPTH
  local ports
  ports=$(free_ports 2)
  port=${ports% *}
  cat >conf <<C
[Global]
  NodeBase "iqn.2026-11.example"
  PidFile $work/pid
  AuthFile $work/auth
  MediaDirectory $work
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod None
  MaxSessions 4
  MaxConnections 4
  FirstBurstLength 65536
  MaxBurstLength 262144
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
  ErrorRecoveryLevel 0
[UnitControl]
  AuthMethod None
  Portal UC1 127.0.0.1:${ports#* }
  Netmask 127.0.0.1
[PortalGroup1]
  Portal DA1 127.0.0.1:$port
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.0/8
[LogicalUnit1]
  TargetName disk
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  UseDigest Auto
  UnitType Disk
  QueueDepth $1
  LUN0 Storage $work/disk Auto
C
  root/usr/sbin/istgt -D -c conf >daemon.log 2>&1 &
  daemon=$!
  within_10_s grep -q 'command queuing' daemon.log ||
    cannot "istgt does not start: $(tail -n 1 daemon.log)"
}

cat >busy.py <<'P'
# Eight READs of 16 KiB of the letter Z are under way all the time, and one ping, if wanted. Ends
# after some seconds, or at what is no PDU.
import socket, struct, sys, time

connection = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)
stream = connection.makefile('rb')
stat_sn = 0
BLOCKS, READS = 32, 8

def request(opcode, flags, middle, task, word, command, cdb=bytes(16), text=b''):
    header = struct.pack('>BBHI8sIIII16s', opcode, flags, 0, len(text), middle, task, word, command,
                         stat_sn, cdb)
    return header + text + bytes(-len(text) % 4)

def take():
    header = stream.read(48)
    length = int.from_bytes(header[5:8], 'big')
    return header, stream.read(length + -length % 4) if length <= BLOCKS * 512 else b''

def log_in(flags, text):
    global stat_sn
    isid = bytes.fromhex('80abcdef00010000')
    connection.sendall(request(0x43, flags, isid, 1, 0, 1, text=text))
    header, _ = take()
    stat_sn = int.from_bytes(header[24:28], 'big') + 1
    if header[36:38] != b'\0\0':
        sys.exit('the login is refused: ' + header[36:38].hex())

log_in(0x81, b'InitiatorName=iqn.2026-11.example:host\0TargetName=iqn.2026-11.example:disk\0'
             b'SessionType=Normal\0AuthMethod=None\0')
log_in(0x87, b'HeaderDigest=None\0DataDigest=None\0MaxRecvDataSegmentLength=262144\0'
             b'MaxBurstLength=262144\0FirstBurstLength=65536\0')
connection.sendall(request(0x01, 0x81, bytes(8), 1, 0, 1))  # TEST UNIT READY: a UNIT ATTENTION
take()
stat_sn += 1
pings = sys.argv[2] == 'pings'
command = task = 2
under_way = {}
missing = set()
gaps = foreign = 0
whole = True
end = time.monotonic() + float(sys.argv[3])
while whole and (time.monotonic() < end or under_way):
    requests = b''
    while time.monotonic() < end and list(under_way.values()).count('read') < READS:
        cdb = struct.pack('>BBIBHB6x', 0x28, 0, 0, 0, BLOCKS, 0)
        requests += request(0x01, 0xc1, bytes(8), task, BLOCKS * 512, command, cdb)
        under_way[task] = 'read'
        task, command = task + 1, command + 1
    if pings and time.monotonic() < end and 'ping' not in under_way.values():
        requests += request(0x40, 0x80, bytes(8), task, 0xffffffff, command)
        under_way[task] = 'ping'
        task += 1
    connection.sendall(requests)
    header, data = take()
    kind = {b'\x25': 'read', b'\x20': 'ping'}.get(header[:1])
    number, answered = (int.from_bytes(header[i:i + 4], 'big') for i in (24, 16))
    good = kind == 'ping' or header[1:4:2] == b'\x81\0'  # its data are all there, and GOOD
    if under_way.pop(answered, 'none') != kind or not good:
        whole = False
    else:
        foreign += kind == 'read' and len(data.strip(b'Z'))
        gaps += number > stat_sn
        missing |= set(range(stat_sn, number))
        missing.discard(number)
        stat_sn = max(stat_sn, number + 1)  # as Linux does: each number as it comes
print('gaps in StatSN' if gaps else 'no gap in StatSN', end=', ')
if whole:
    print(f'{len(missing)} left at the end', end=', ')
print(f'{foreign} foreign bytes in data', end=', ')
print('all answered' if whole else 'then no header where one should be')
P
run() { # QUEUE_DEPTH pings|none SECONDS
  start "$1"
  echo "QueueDepth $1, $2: $(python3 busy.py "$port" "$2" "$3" 2>&1 | tail -n 1)"
  stop_daemon
}
{
  run 32 none 3
  run 32 pings 3
  run 0 none 3
  run 0 pings 120
} >seen
compare "istgt $version" <<'T'
QueueDepth 32, none: no gap in StatSN, 0 left at the end, 0 foreign bytes in data, all answered
QueueDepth 32, pings: gaps in StatSN, 0 left at the end, 0 foreign bytes in data, all answered
QueueDepth 0, none: no gap in StatSN, 0 left at the end, 0 foreign bytes in data, all answered
QueueDepth 0, pings: gaps in StatSN, 48 foreign bytes in data, then no header where one should be
T
