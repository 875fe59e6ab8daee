# A guest that moves, and LUNs that pass from one guest to another, with writes under way: what it left at its former
# place must not land after what it writes at the new one. Each step verifies all data with fio.
#   save       xl save -c, which goes on where it was, while another guest waits for the LUN; xl save and restore
#   migrate    xl migrate localhost, ten times under load
#   hand-over  detached from one guest, attached to another, while a path is silent and its bytes come late
#   kill       a guest's process is killed with bytes on the way, and the guest recreated at once
# runs: trixie:pvh bookworm:pv
# timeout: 900
# steps: save migrate hand-over kill
gone_with_its_process() { # DOMID
  wait_until 40 "domain $1 is gone from Xen" is_gone "$1"
  wait_until 40 "no process serves domain $1" has_no_child "$1"
}
still_waits() { xenstore-read "$(backend_node w xvda)/hotplug-error" 2> /dev/null | grep -q "in use by xvda of guest $1 "; } # DOMID
save() {
  local first; first=$(domid g)
  guest_create w "$variant" "$(disk qdisk xvdb 2)"
  attach w "$(disk qdisk xvda 1)" || note "xl block-attach of a LUN that is in use: $(cat "$scenario_dir/attach.log")"
  wait_until 20 "another guest waits for the LUN" still_waits "$first"
  timeout $((120 * patience)) xl save -c "$(domain g)" "$scenario_dir/g.save" || fail "xl save -c failed"
  [ "$(domid g)" = "$first" ] || fail "the guest is another domain after xl save -c"
  goes_on g fio
  still_waits "$first" || fail "xl save -c has given the LUN away: $(xenstore-read "$(backend_node w xvda)/hotplug-error")"
  guest_destroy w
  timeout $((120 * patience)) xl save "$(domain g)" "$scenario_dir/g.save" || fail "xl save failed"
  gone_with_its_process "$first"
  timeout $((120 * patience)) xl restore "$scenario_dir/g.save" || fail "xl restore failed"
  rm -f "$scenario_dir/g.save"
  domid g >> "$scenario_dir/domids"
  goes_on g fio
}
migrate() { # TIMES
  local first turn
  # The console's log goes on under the name that the guest has while it arrives.
  ln -sf "$(console_of g)" "/var/log/xen/console/guest-$(domain g)--incoming.log"
  for turn in $(seq "$1"); do
    first=$(domid g)
    timeout $((120 * patience)) xl migrate -s '' "$(domain g)" 'xl migrate-receive' || fail "xl migrate $turn failed"
    domid g >> "$scenario_dir/domids"
    [ "$(domid g)" != "$first" ] || fail "the guest is the same domain after xl migrate $turn"
    goes_on g fio
    gone_with_its_process "$first"
    tell "migrated $turn times"
  done
}
# What guest a has sent to portal 1 when it loses the disk arrives there 20 s later.
hand_over() {
  guest_create a "$variant" "$(disk qdisk xvdb 2)" "$(disk qdisk xvda 3)"
  guest_create b "$variant" "$(disk qdisk xvdb 4)"
  guest_start a fio-a 'fio_iops=0 fio_verify xvda 3000 --size=1M'
  guest_says a fio-a 60 running
  sleep 3
  delay_portal 1 20
  sleep 1
  guest_start a stop-a 'touch /tmp/stopped; killall -KILL fio; sleep 1; true'
  guest_finish a stop-a 60
  detach a xvda --force || detach a xvda || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
  attach b "$(disk qdisk xvda 3)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  guest_start b fio-b 'fio_iops=0 fio_verify xvda 3000 --size=1M'
  guest_says b fio-b 60 running
  sleep 25
  show_paths
  delay_portal 1 0
  job_goes_on b fio-b
  end_fio b fio-b
  guest_destroy a
  guest_destroy b
}
kill_and_recreate() {
  local id pid
  guest_create c "$variant" "$(disk qdisk xvda 5)"
  id=$(domid c)
  guest_start c fio-c 'fio_iops=0 fio_verify xvda 3000 --size=1M'
  guest_says c fio-c 60 running
  sleep 3
  delay_portal 1 20
  sleep 1
  pid=$(guest_processes "$id" | head -n 1)
  [ -n "$pid" ] || fail "no process serves guest c"
  kill -KILL "$pid"
  guest_destroy c
  guest_create c2 "$variant" "$(disk qdisk xvda 5)"
  guest_start c2 fio-c2 'fio_iops=0 fio_verify xvda 3000 --size=1M'
  guest_says c2 fio-c2 60 running
  sleep 25
  show_paths
  delay_portal 1 0
  job_goes_on c2 fio-c2
  end_fio c2 fio-c2
  guest_destroy c2
}
scenario() {
  step save
  target_start tgt 2 64 64 64 64 64
  guest_create g "$variant" "$(disk qdisk xvda 1)"
  begin_fio g fio
  save
  step migrate
  migrate 10
  end_fio g fio
  guest_shutdown g
  step hand-over
  hand_over
  step kill
  kill_and_recreate
  assert_nothing_left
}
