# A guest whose queue is longer than the command window of its target (the Linux kernel's, which takes 4 commands here
# at once): most of its writes wait in the session when it is saved or migrated, and none of them may be sent after that.
# runs: trixie:pvh bookworm:pv
# timeout: 400
lun_file() { echo "$scenario_dir/disk.1"; }
# The target's disk does not change any more.
is_at_rest() { local before; before=$(md5sum < "$(lun_file)"); nap 3; [ "$(md5sum < "$(lun_file)")" = "$before" ]; }
scenario() {
  local first turn group
  target_start lio 2 64
  # For sessions that begin from now on.
  for group in "$(cat "$scenario_dir/lio")"/tpgt_*; do
    echo 4 > "$group/attrib/default_cmdsn_depth" || fail "LIO refuses a window of 4 commands"
  done
  guest_create g "$variant" "$(disk qdisk xvda 1)"
  guest_start g fio 'fio_iops=0 fio_verify xvda 3000 --size=2M --bsrange=4k-4k --iodepth=32'
  guest_says g fio 60 running
  sleep 3
  ln -sf "$(console_of g)" "/var/log/xen/console/guest-$(domain g)--incoming.log"
  for turn in 1 2 3; do
    first=$(domid g)
    timeout $((120 * patience)) xl migrate -s '' "$(domain g)" 'xl migrate-receive' || fail "xl migrate $turn failed"
    domid g >> "$scenario_dir/domids"
    wait_until 40 "domain $first is gone from Xen" is_gone "$first"
    wait_until 40 "no process serves domain $first" has_no_child "$first"
    sleep 3
    job_goes_on g fio
  done
  first=$(domid g)
  timeout $((120 * patience)) xl save "$(domain g)" "$scenario_dir/g.save" || fail "xl save failed"
  wait_until 40 "domain $first is gone from Xen" is_gone "$first"
  wait_until 20 "nothing is written for the saved guest any more" is_at_rest
  wait_until 40 "no process serves domain $first" has_no_child "$first"
  timeout $((120 * patience)) xl restore "$scenario_dir/g.save" || fail "xl restore failed"
  rm -f "$scenario_dir/g.save"
  domid g >> "$scenario_dir/domids"
  sleep 5
  guest_start g stop stop_fio
  guest_finish g fio 90
  guest_shutdown g
  assert_nothing_left
}
