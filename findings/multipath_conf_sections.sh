#!/bin/bash
# Finding: where a section of multipath.conf stands in one line, multipath-tools read the next one
# as a part of it: a disk that was to have an alias is on the blacklist.
#
# Software   Debian 12: multipath-tools, the version below
# Expected   multipath.conf(5) wants a closing brace on a line of its own. A section in one line,
#            `blacklist { devnode "^sda" }`, is refused; or it is left out, and the next one counts
# Seen       All that is behind the opening brace is dropped, with a message, and the section is
#            open still. The next one's first line and its keywords are unknown there, but not all:
#            `wwid` of a multipath{} in multipaths{} is also a keyword of blacklist{}, and what it
#            names is blacklisted, while what the line wanted to blacklist is not. The first lone
#            brace, that of multipath{}, ends blacklist{}. The exit status is 0.
#            An asterisk, which other tools have for "all", is no regular expression: in blacklist{}
#            it is an error that ends the program, and every other line is lost with it; as a
#            vendor in devices{} it is taken without a word.
# Matters    A host comes up on one path without multipath, or with local disks in it, and only the
#            log says why. A converter that takes the file's text for what it means makes another
#            configuration of it than the one that was in force.
# Here       multipath.conf is not read. Lines of it that are copied are taken or refused one by
#            one, by name (tools/config_old_names.cpp).
#
# Runs `multipath -t` with a folder /etc of its own in a mount namespace. Needs root, apt and
# unshare. Exit status: 0 as described, 1 it behaves differently, 2 it could not be tried.
. "$(dirname "$0")/common.bash"

readonly version='0.9.4-3+deb12u2'
need unshare
unpack "multipath-tools=$version" libdevmapper1.02.1 libaio1 libjson-c5 liburcu8

show() { # with standard input as multipath.conf
  cat >given.conf
  # shellcheck disable=SC2016
  unshare --mount sh -c 'mount -t tmpfs none /etc && cp "$1" /etc/multipath.conf &&
    exec "$2" -t' sh "$work/given.conf" "$work/root/sbin/multipath" 2>messages >all || return
  # Each line with the sections that it stands in.
  awk '/{$/ { path = path $1 " "; next }
    /^\t*}$/ { sub(/[^ ]* $/, "", path); next }
    { sub(/^\t*/, ""); print path $0 }' all
}
tell() { # NAME
  local status=0
  show >meant || status=$?
  echo "$1: exit status $status"
  if ((status == 0)); then
    { diff empty meant || true; } | sed -n 's/^> /  in force: /p; s/^< /  no more: /p'
  fi
  sed -n 's/^[0-9.]* | /  says: /p' messages | sed 's/\/etc\/multipath.conf //'
}
: | show >empty || cannot "multipath -t: $(tail -n 1 messages)"

{
  tell 'as in the man page' <<'C'
blacklist {
  devnode "^sda"
}
multipaths {
  multipath {
    wwid 36001405aaaaaaaaaaaaaaaaaaaaaaaaa
    alias mail
  }
}
C
  tell 'blacklist in one line' <<'C'
blacklist { devnode "^sda" }
multipaths {
  multipath {
    wwid 36001405aaaaaaaaaaaaaaaaaaaaaaaaa
    alias mail
  }
}
C
  tell 'asterisk in blacklist' <<'C'
blacklist {
  devnode "*"
}
C
  tell 'asterisk in devices' <<'C'
devices {
  device {
    vendor "*"
    product "*"
  }
}
C
} >seen
compare "multipath-tools $version" <<'T'
as in the man page: exit status 0
  in force: blacklist devnode "^sda"
  in force: multipaths multipath wwid "36001405aaaaaaaaaaaaaaaaaaaaaaaaa"
  in force: multipaths multipath alias "mail"
blacklist in one line: exit status 0
  in force: blacklist wwid "36001405aaaaaaaaaaaaaaaaaaaaaaaaa"
  says: ignoring extra data starting with 'devnode' on line 1 of /etc/multipath.conf
  says: line 2, invalid keyword in the blacklist section: multipaths
  says: line 3, invalid keyword in the blacklist section: multipath
  says: line 5, invalid keyword in the blacklist section: alias
  says: unmatched '}' at line 7 of /etc/multipath.conf
  says: line 7, invalid keyword: }
asterisk in blacklist: exit status 1
  says: line 2, parsing failed:   devnode "*"
  says: error parsing config file
asterisk in devices: exit status 0
  in force: devices device vendor "*"
  in force: devices device product "*"
T
