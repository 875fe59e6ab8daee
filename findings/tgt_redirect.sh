#!/bin/bash
# Finding: tgt redirects every login that does not come from the address to which it redirects.
#
# Software   Debian 12: tgt and libiscsi-bin (iscsi-inq), the versions below
# Expected   A target with RedirectAddress and RedirectPort sends a login that comes in at another
#            portal to this one (RFC 7143 11.13.5, status 0x0101); there it is let in
# Seen       tgt compares RedirectAddress with the address of the initiator, not with the one that
#            the login has come to. A redirect to a portal of the same tgtd goes round in a circle,
#            at that portal as well; libiscsi gives up: "login took too many tries". And who has
#            the address himself, and asks at the other portal, is let in there.
# Matters    Nobody gets in, where logins were to be moved to another network of the same server;
#            and where target and initiator are on one host, on which this would be tried out
#            first, it seems to work. Only a redirect to another server does what it says.
# Here       A circle ends with a sentence that names it (initiator/session/redirect_chain.cpp).
#
# Runs tgtd on a free port of two loopback addresses. Needs root, apt and python3. Exit status: 0
# as described, 1 it behaves differently, 2 it could not be tried.
. "$(dirname "$0")/common.bash"

readonly tgt_version='1:1.0.85-1+deb12u1'
readonly libiscsi_version='1.19.0-3'
need python3
unpack "tgt=$tgt_version" "libiscsi-bin=$libiscsi_version" "libiscsi7=$libiscsi_version" "${for_tgt[@]}"
start_tgtd 127.0.0.1 127.0.0.2
make_target 1 iqn.2026-11.example:disk ALL

redirect() { # ADDRESS
  echo "redirect to $1:"
  tgtadm --mode target --op update --tid 1 --name RedirectAddress --value "$1"
  tgtadm --mode target --op update --tid 1 --name RedirectPort --value "$port"
  tgtadm --mode target --op update --tid 1 --name RedirectReason --value Temporary
}
ask() { # PORTAL: all connections to the loopback addresses come from 127.0.0.1
  echo "  asked at $1: $(root/usr/bin/iscsi-inq "iscsi://$1:$port/iqn.2026-11.example:disk/0" 2>&1 |
    sed -n 's/^Peripheral Qualifier:CONNECTED/let in/p; s/.*\(login took too many tries\).*/\1/p')"
}
{
  redirect 127.0.0.2
  ask 127.0.0.1
  ask 127.0.0.2
  redirect 127.0.0.1
  ask 127.0.0.1
  ask 127.0.0.2
} >seen
compare "tgt $tgt_version, libiscsi $libiscsi_version" <<'T'
redirect to 127.0.0.2:
  asked at 127.0.0.1: login took too many tries
  asked at 127.0.0.2: login took too many tries
redirect to 127.0.0.1:
  asked at 127.0.0.1: let in
  asked at 127.0.0.2: let in
T
