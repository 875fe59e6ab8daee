# The lab's own promises, without the product: portals answer, a cut portal refuses or is silent, only
# that one, and comes back; with both targets. A lab that lies would make every other test worthless.
# runs: trixie:tgt bookworm:lio
answers() { # PORTAL_NUMBER LUN
  timeout $((5 * patience)) iscsi-inq "iscsi://$(portal "$1")/$(target_iqn)/$2" > /dev/null 2>&1
}
scenario() {
  target_start "$variant" 2
  for n in 1 2; do answers $n 1 && answers $n 2 || fail "portal $n does not serve both LUNs"; done
  # A connection that stays, to see it die.
  exec 7<> "/dev/tcp/$(portal 1)/3260" || fail "portal 1 refuses a connection"
  wait_until 5 "the target shows the connection" has_connections 1
  cut_portal 1 reset
  wait_until 5 "the connection is gone at the target" not has_connections 1
  timeout $((5 * patience)) cat <&7 > /dev/null 2>&1; [ $? != 124 ] || fail "the initiator's side was not told"
  exec 7>&-
  (: <> "/dev/tcp/$(portal 1)/3260") 2> /dev/null && fail "a reset portal accepts connections"
  answers 2 1 || fail "cutting portal 1 cut portal 2 as well"
  restore_portal 1
  answers 1 1 || fail "portal 1 did not come back"
  cut_portal 2 drop
  timeout $((3 * patience)) bash -c ": <> /dev/tcp/$(portal 2)/3260" 2> /dev/null
  [ $? = 124 ] || fail "a dropped portal answers"
  answers 1 1 || fail "cutting portal 2 cut portal 1 as well"
  restore_portal 2
  answers 2 1 || fail "portal 2 did not come back"
  wait_until 10 "no session is left" has_no_sessions
}
