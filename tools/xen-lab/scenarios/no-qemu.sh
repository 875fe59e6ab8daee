# A host that has no QEMU at all: disks of kind vbd3 need none. A file system, data verified while a path is lost, a disk that
# comes and goes.
# runs: trixie:pv trixie:pvh
# runs alone: QEMU is taken from dom0
programs() { find /usr -xdev -type f \( -path '*bin/*qemu-system*' -o -path '/usr/libexec/*qemu-system*' \); }
# As it was found: the programs at their places, and dom0's QEMU runs.
give_back() {
  local program
  for program in "${taken[@]}"; do mv "/tmp/taken$program" "$program"; done
  "${qemu[@]}"
}
take_away() {
  local program
  mapfile -d '' qemu < "/proc/$(cat /run/qemu-dom0.pid)/cmdline"
  mapfile -t taken < <(programs)
  [ ${#taken[@]} -gt 0 ] || fail "dom0 has no QEMU that could be taken away"
  trap give_back EXIT
  kill "$(cat /run/qemu-dom0.pid)"
  wait_until 20 "dom0's QEMU has ended" no_qemu_runs
  for program in "${taken[@]}"; do install -D "$program" "/tmp/taken$program"; rm "$program"; note "$program is gone"; done
}
no_qemu_runs() { ! pgrep -f qemu-system > /dev/null; }
scenario() {
  take_away
  target_start tgt 2
  guest_create g "$variant" "$(disk vbd3 xvda 1)"
  guest_run g fs 60 'check_filesystem xvda'
  begin_fio g fio
  attach g "$(disk vbd3 xvdb 2)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  guest_run g fs2 60 'check_filesystem xvdb'
  cut_portal 1 drop
  goes_on g fio
  detach g xvdb || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
  guest_run g gone 40 'wait_no_disk xvdb'
  restore_portal 1
  end_fio g fio
  guest_shutdown g
  no_qemu_runs || fail "a QEMU has been started"
  assert_nothing_left
  assert_no_kernel_path
}
