# A guest that is paused, and one that is gone all of a sudden: its disk has nothing to do meanwhile, and loses nothing.
#   pause           paused and unpaused under load
#   pause-in-outage the outage is there before the pause and after it; the outage begins and ends in a pause
#   destroy-paused  a paused guest is destroyed with requests under way
#   crash           the guest's kernel panics under load; on_crash restarts it, and its data are there
# runs on demand: trixie:pvh bookworm:pv
# timeout: 500
# steps: pause pause-in-outage destroy-paused crash
pause() { xl pause "$(domain "$1")" || fail "xl pause failed"; note "guest $1 is paused"; } # GUEST
unpause() { xl unpause "$(domain "$1")" || fail "xl unpause failed"; note "guest $1 goes on"; } # GUEST
no_portal_in_use() { not portal_in_use 1 && not portal_in_use 2; }
paused() {
  local turn
  for turn in 1 2 3; do
    pause g
    wait_until 20 "a paused guest has no I/O" io_stands
    unpause g
    goes_on g fio
  done
}
pause_in_outage() {
  cut_portal 1 reset
  cut_portal 2 drop
  wait_until 60 "no portal is in use" no_portal_in_use
  pause g
  nap 5
  restore_portal 1
  restore_portal 2
  wait_until 60 "a portal has a connection again" has_connections 1
  unpause g
  goes_on g fio
  wait_until 60 "both portals have connections again" has_connections 2
  pause g
  cut_portal 1 drop
  cut_portal 2 drop
  wait_until 60 "no portal is in use" no_portal_in_use
  unpause g
  nap 5
  restore_portal 2
  goes_on g fio
  pause g
  restore_portal 1
  wait_until 60 "both portals have connections again" has_connections 2
  unpause g
  goes_on g fio
  end_fio g fio
}
destroy_paused() {
  begin_fio g busy 0
  pause g
  guest_destroy g
  assert_nothing_left
}
crash() {
  local first
  guest_create h "$variant" "$(disk qdisk xvda 1)"
  first=$(domid h)
  guest_run h mark 30 'leave_mark xvda'
  begin_fio h busy 0
  guest_start h crash 'echo c > /proc/sysrq-trigger'
  guest_up h 2
  [ "$(domid h)" != "$first" ] || fail "the guest did not get a new domain"
  wait_until 20 "no process serves the crashed domain" has_no_child "$first"
  wait_until 20 "xenstore has no node of the crashed domain" has_no_nodes "$first"
  guest_run h find 30 'find_mark xvda'
  begin_fio h fio
  end_fio h fio
  guest_shutdown h
  assert_nothing_left
}
scenario() {
  step pause
  target_start tgt 2
  # The target notices by itself when an initiator is gone behind a dead link.
  tgt --mode target --op update --tid 1 --name nop_interval --value 2
  tgt --mode target --op update --tid 1 --name nop_count --value 2
  guest_create g "$variant" "$(disk qdisk xvda 1)"
  begin_fio g fio
  paused
  step pause-in-outage
  pause_in_outage
  step destroy-paused
  destroy_paused
  step crash
  guest_on_crash=restart crash
}
