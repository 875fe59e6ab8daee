# Ten disks of one guest with four processors, and so four queues each, and four guests at once: attached one by one,
# all under load, while disks come and go and a path of all of them is lost; then all is gone.
# runs: trixie:pvh bookworm:pv
# timeout: 600
# steps: ten-disks come-and-go four-guests
ten='xvda xvdb xvdc xvdd xvde xvdf xvdg xvdh xvdi xvdj'
all_run() { local count; console_count g '\[all\] running*'; [ "$count" -ge 10 ]; }
ten_disks() {
  local vdev lun=1
  for vdev in ${ten#xvda }; do
    lun=$((lun + 1))
    attach g "$(disk qdisk "$vdev" $lun)" || fail "xl block-attach of $vdev failed: $(cat "$scenario_dir/attach.log")"
  done
  guest_run g queues 30 'echo "queues: $(ls /sys/block/xvda/mq | wc -l)"; [ "$(ls /sys/block/xvda/mq | wc -l)" = 4 ]'
  guest_start g all "for vdev in $ten; do { fio_iops=8 fio_verify \$vdev 3000 --iodepth=4 || touch /tmp/bad; } & done; wait; [ ! -f /tmp/bad ]"
  wait_until 90 "all ten disks are written to" all_run
  nap 5
  cut_portal 1 drop
  nap 8
  job_goes_on g all
  restore_portal 1
  wait_until 40 "portal 1 has a connection again" portal_in_use 1
  job_goes_on g all
}
come_and_go() {
  local turn
  for turn in 1 2 3; do
    attach g "$(disk qdisk xvdk 11)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
    guest_run g "fs-$turn" 60 'check_filesystem xvdk'
    detach g xvdk || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
    guest_run g "gone-$turn" 40 'wait_no_disk xvdk'
    [ -z "$(backend_node g xvdk)" ] || fail "a backend node of xvdk is left"
    job_goes_on g all
  done
  guest_start g stop stop_fio
  guest_finish g all 120
  guest_shutdown g
}
four_guests() {
  local guest lun=0
  for guest in a b c d; do
    lun=$((lun + 1))
    guest_create $guest "$variant" "$(disk qdisk xvda $lun)"
    guest_start $guest fio 'fio_verify xvda 600'
    guest_says $guest fio 60 running
  done
  cut_portal 2 reset
  nap 5
  for guest in a b c d; do job_goes_on $guest fio; done
  restore_portal 2
  guest_destroy b
  for guest in a c d; do
    job_goes_on $guest fio
    end_fio $guest fio
    guest_shutdown $guest
  done
}
scenario() {
  step ten-disks
  target_start tgt 2 64 64 64 64 64 64 64 64 64 64 64
  guest_vcpus=4 guest_create g "$variant" "$(disk qdisk xvda 1)"
  ten_disks
  step come-and-go
  come_and_go
  step four-guests
  four_guests
  assert_nothing_left
}
