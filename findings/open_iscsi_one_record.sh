#!/bin/bash
# Finding: one word that open-iscsi does not know, in one node record, hides all nodes of the host,
# while they are logged in to as before.
#
# Software   Debian 12: open-iscsi (iscsiadm), the version below
# Expected   A word in another case (`node.startup = Automatic`), or with a comment behind it, is
#            refused where it stands: that node is left out, or has its default. `iscsiadm -o
#            update` refuses such a word by name; and in a record, what is behind the digits of a
#            number does not count
# Seen       iscsiadm has two readers of its records. The one that shows them (libopeniscsiusr)
#            ends at that word with status 1: it shows no node at all, also where another one was
#            asked for by its name and portal. Its message has neither the node nor the file, and
#            as the value not what was written but what holds without it. The one that logs in
#            ignores the line, names it by its number, and goes on with all of them.
# Matters    Records are written by scripts, and what comes after them asks iscsiadm which nodes
#            there are: there are none, although the sessions are there. And it is the line's
#            default that counts at login: a node that was to be logged in to at boot is not.
# Here       A wrong value is refused by its file and line, in a sentence with what was written
#            (tools/config_old_names.cpp).
#
# Runs iscsiadm with folders /etc and /run of its own in a mount namespace, without iscsid. Needs
# root, apt and unshare. Exit status: 0 as described, 1 it behaves differently, 2 it could not be
# tried.
. "$(dirname "$0")/common.bash"

readonly version='2.1.8-1+deb12u1'
need unshare
unpack "open-iscsi=$version" "libopeniscsiusr=$version" libisns0 libkmod2 libmount1
export iscsiadm=$work/root/sbin/iscsiadm

cat >records.sh <<'S'
# In a mount namespace: three nodes, and one word in the record of the second.
mount -t tmpfs none /etc
mount -t tmpfs none /run
mkdir -p /etc/iscsi /run/lock/iscsi
echo 'InitiatorName=iqn.2026-11.example:host' >/etc/iscsi/initiatorname.iscsi
: >/etc/iscsi/iscsid.conf
for disk in a b c; do
  # It asks for iscsid, and goes on without it.
  "$iscsiadm" -m node -T iqn.2026-11.example:$disk -p 127.0.0.1:3260,1 -o new >/dev/null 2>&1
done
sed -i 's/^node.startup = .*/node.startup = automatic/' /etc/iscsi/nodes/*/*/default
record=$(echo /etc/iscsi/nodes/*:b/127.0.0.1,3260,1/default)
cp "$record" /run/record
tell() {
  status=0
  "$iscsiadm" -m node "$@" >/run/out 2>/run/messages || status=$?
  echo "  -m node${*:+ $*}: $(grep -c -e '^127' -e '^node.name = ' /run/out) shown, status $status"
  # The number after "data type" is another one each time.
  sed -E 's/ -?[0-9]+ for/ ... for/; s/ # idbm.*//; s/^/  says: /' /run/messages
}
try() { # LINE
  echo "$1"
  sed -i "s/^${1%% *} = .*/$1/" "$record"
  tell
  tell -T iqn.2026-11.example:a -p 127.0.0.1:3260,1
  # No login succeeds, since there is no iscsid.
  "$iscsiadm" -m node --loginall=automatic >/dev/null 2>/run/messages
  echo "  -m node --loginall=automatic: $(grep -c 'Could not login to' /run/messages) tried"
  grep -o 'config file line.*' /run/messages | sed -E 's/line [0-9]+/line .../; s/^/  says: /'
  cp /run/record "$record"
}
try 'node.startup = automatic'
try 'node.startup = Automatic'
try 'node.session.iscsi.ImmediateData = Yes # as before'
try 'node.session.timeo.replacement_timeout = 60 # seconds'
S
unshare --mount bash records.sh >seen || cannot 'no mount namespace'
compare "open-iscsi $version" <<'T'
node.startup = automatic
  -m node: 3 shown, status 0
  -m node -T iqn.2026-11.example:a -p 127.0.0.1:3260,1: 1 shown, status 0
  -m node --loginall=automatic: 3 tried
node.startup = Automatic
  -m node: 0 shown, status 1
  says: iSCSI ERROR: Got unknown data type ... for name 'node.startup', value 'manual'
  -m node -T iqn.2026-11.example:a -p 127.0.0.1:3260,1: 0 shown, status 1
  says: iSCSI ERROR: Got unknown data type ... for name 'node.startup', value 'manual'
  -m node --loginall=automatic: 2 tried
  says: config file line ... contains unknown value format 'Automatic' for parameter name 'node.startup'
node.session.iscsi.ImmediateData = Yes # as before
  -m node: 0 shown, status 1
  says: iSCSI ERROR: Got unknown data type ... for name 'node.session.iscsi.ImmediateData', value 'Yes'
  -m node -T iqn.2026-11.example:a -p 127.0.0.1:3260,1: 0 shown, status 1
  says: iSCSI ERROR: Got unknown data type ... for name 'node.session.iscsi.ImmediateData', value 'Yes'
  -m node --loginall=automatic: 3 tried
  says: config file line ... contains unknown value format 'Yes # as before' for parameter name 'node.session.iscsi.ImmediateData'
node.session.timeo.replacement_timeout = 60 # seconds
  -m node: 3 shown, status 0
  -m node -T iqn.2026-11.example:a -p 127.0.0.1:3260,1: 1 shown, status 0
  -m node --loginall=automatic: 3 tried
T
