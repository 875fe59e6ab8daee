# A frontend that starts anew without having closed, as a kernel does that has replaced another: a program in the guest
# (tests/support/hostile_frontend.h), with the disk that it takes from the kernel's driver. Again and again it leaves its ring with
# requests under way and asks for another, also while what is sent comes late to the target, and while that stands still. All
# that was acknowledged is there, what was under way does not undo what was written after it, nothing is written into the former
# kernel's memory, and no grant stays in use.
# runs: trixie:pvh bookworm:pv
program=/usr/libexec/iscsi-blkback/hostile_frontend
count_grants() { grants_in_use "$(domid g)" | wc -l; }
grants_at_most() { [ "$(count_grants)" -le "$1" ]; }
said() { grep -cE "guest $1\b.*starts anew and has not closed" /tmp/results/iscsi-blkback.log || true; } # DOMID
scenario() {
  local before
  [ -x $program ] || fail "the payload has no hostile_frontend"
  target_start tgt 2 64 64
  guest_ramdisk=$(guest_ramdisk_with $program xen-evtchn xen-gntalloc)
  guest_create g "$variant" "$(disk qdisk xvda 1)"
  unset guest_ramdisk
  guest_run g modules 30 'load_modules; [ -c /dev/xen/evtchn ] && [ -c /dev/xen/gntalloc ]'
  before=$(count_grants)
  attach g "$(disk qdisk xvdb 2)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  guest_run g before 60 'fio_verify xvdb 4 && leave_mark xvdb'
  guest_run g unbind 30 'echo vbd-51728 > /sys/bus/xen/drivers/vbd/unbind && wait_no_disk xvdb'
  guest_start g reconnect "$program 51728 reconnect 30 1"
  nap 4
  # What is under way is still on its way to the target when the ring is left.
  delay_portal 1 0.4
  delay_portal 2 0.4
  nap 12
  delay_portal 1 0
  delay_portal 2 0
  nap 2
  kill -STOP "$(tgtd_pid)" && note "the target stands still"
  nap 6
  kill -CONT "$(tgtd_pid)" && note "the target goes on"
  guest_finish g reconnect 150
  [ "$(said "$(domid g)")" -gt 0 ] || fail "the log says nothing of a frontend that starts anew"
  # A device that its driver has left once the kernel's driver does not take again: the disk is attached anew.
  detach g xvdb || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
  note "grants in use: $before before, $(count_grants) after it all"
  wait_until 15 "no more than $before grants are in use: $(grants_in_use "$(domid g)")" grants_at_most "$before"
  attach g "$(disk qdisk xvdb 2)" || fail "the second xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  guest_run g after 60 'find_mark xvdb && fio_verify xvdb 4'
  guest_shutdown g
  assert_nothing_left
}
