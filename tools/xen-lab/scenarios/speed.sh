# How fast a guest's disks are: through the product; through xen-blkback on dm-multipath on open-iscsi, both at
# the same LUN of the same target with two portals; and through QEMU on a plain file, without any network. One guest has all
# three, and each job runs on each of them in turn, so that only ratios within one boot are compared. Results: speed.txt, a line
# for each job: "job ROUND STACK RW BS DEPTH IOPS MEAN_US P99_US DOM0_US_PER_IO".
# Not among the tests: tools/xen-lab/speed names it.
# runs on demand: bookworm:-
# wants: kernel-stack
# timeout: 2400
. "$harness_dir/measuring.sh"
rounds=3 seconds=5
service_settings() { :; }
# fio's terse report; a job of several threads is reported as one.
guest_words='speed_job() { # VDEV RW BS DEPTH JOBS SECONDS
  fio --name=j --filename=/dev/$1 --rw=$2 --bs=$3 --iodepth=$4 --numjobs=$5 --group_reporting --ioengine=libaio --direct=1 --runtime=$6 \
    --time_based --size=48M --thread --norandommap --randrepeat=0 --percentile_list=50:99 --output-format=terse --terse-version=3 --output=/tmp/out ||
    { cat /tmp/out; return 1; }
  awk -F";" -v bs="${3%k}" "NF > 60 { o = \$6 > 0 ? 0 : 41; split(\$(19 + o), p99, \"=\")
    printf \"fio %d %d %d %d\n\", \$(6 + o) / bs, \$(8 + o), \$(40 + o), p99[2] }" /tmp/out
}'
# Processor time that dom0 has used so far, the target and interrupts included, in us.
dom0_us() { awk '$1 == "cpu" { print ($2 + $3 + $4 + $7 + $8) * 10000; exit }' /proc/stat; }
job() { # ROUND STACK VDEV RW BS DEPTH JOBS
  local name=r$1-$2-$4-$5-$6x$7 before said
  before=$(dom0_us)
  guest_start g "$name" "speed_job $3 $4 $5 $6 $7 $seconds"
  nap $seconds
  wait_until 60 "job $name ends" job_ended g "$name"
  before=$(($(dom0_us) - before))
  said=$(job_output g "$name" | grep '^fio ') || fail "job $name: $(job_output g "$name" | tail -3)"
  # shellcheck disable=SC2086
  set -- "$1" "$2" "$4" "$5" "$(($6 * $7))" ${said#fio }
  echo "job $1 $2 $3 $4 $5 $7 $8 $9 $((before / $6))" | tee -a "$scenario_dir/speed.txt"
}
scenario() {
  local round work disk
  # Blocks that were never written would be read from nowhere.
  target_start tgt 2 48 48
  for disk in 1 2; do dd if=/dev/zero of="$scenario_dir/disk.$disk" bs=1M count=48 conv=notrunc 2> /dev/null; done
  variant=kernel
  kernel_stack_start 2
  variant=product paths=2
  guest_vcpus=4 guest_create g pv "$(disk qdisk xvda 1 2)" "backendtype=phy,vdev=xvdb,access=rw,target=/dev/mapper/$map" \
    "backendtype=qdisk,format=raw,vdev=xvdc,access=rw,target=$scenario_dir/disk.2"
  guest_run g words 60 "cat > /lab/speed.sh <<'END'
$guest_words
END
echo '. /lab/speed.sh' >> /lab/guest.sh
for d in xvda xvdb xvdc; do wait_disk \$d && (cd /sys/block/\$d; echo \"\$d: queues \$(ls mq | wc -l), requests of \$(cat queue/max_sectors_kb) KiB\"); done"
  wait_until 60 "the product's paths are ready" all_is_well
  for round in $(seq $rounds); do
    tell "round $round of $rounds"
    for work in 'randread 4k 1 1' 'randwrite 4k 1 1' 'randread 4k 32 1' 'randwrite 4k 32 1' 'randread 4k 32 4' 'randwrite 4k 32 4' 'read 128k 8 1' 'write 128k 8 1'; do
      # shellcheck disable=SC2086
      { job $round product xvda $work; job $round kernel xvdb $work; job $round file xvdc $work; }
    done
  done
  guest_shutdown g
  kernel_stack_stop
  assert_nothing_left
}
