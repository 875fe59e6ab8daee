# A guest whose frontend is evil (tests/support/hostile_frontend.h, a program in the guest, at a disk that its kernel's
# driver does not touch) beside a guest that reads, writes and compares. For each kind of harm and
# twice: the other guest's waits while the evil one is a good but busy neighbour, and while it is evil; a storm of
# doorbells is compared with a greedy one, which reads as much and burns its processors as well. Its 99th
# percentile shall not move by a tenth; under emulation, where it moves by itself, only half as much again is a failure,
# and what it was is printed. What is logged is bounded, no grant stays in use, and at last nothing of either guest is
# left.
#   evil   each kind of harm; the evil disk works again after each
#   after  nothing is left, and the table
# runs on demand: trixie:pvh bookworm:pv
# runs alone: it measures, and its evil guest takes all the processors that an emulator has
# timeout: 900
# steps: evil after
program=/usr/libexec/iscsi-blkback/hostile_frontend
phase_s=15
evil_id='' turn=1
evil_grants() { grants_in_use "$evil_id" | wc -l; }
evil_grants_at_most() { [ "$(evil_grants)" -le "$1" ]; }
evil_state_is() { [ "$(xenstore-read "$(backend_node e xvdb)/state" 2> /dev/null)" = "$1" ]; } # STATE
# What the service has logged of the evil guest so far, in lines.
evil_lines() { grep -cE "(qdisk|vbd3)/$evil_id/|guest $evil_id\b" /tmp/results/iscsi-blkback.log || true; }
marks_made=0
marks() { marks_made=$((marks_made + 1)); guest_run v "mark-$marks_made" 30 "mark $1"; } # NAME
phase() { # MODE NAME: of the evil guest's program
  local lines
  lines=$(evil_lines)
  guest_start e "$2-$turn" "$program 51728 $1 $phase_s $turn"
  marks "$2"
  guest_finish e "$2-$turn" $((phase_s + 120))
  marks rest
  job_goes_on v fio
  lines=$(($(evil_lines) - lines))
  note "$2: $lines lines of the log"
  echo "lines $2 $lines" >> "$scenario_dir/lines"
  [ "$lines" -le 100 ] || fail "$lines lines were logged of $phase_s s of $2"
}
evil() {
  local mode
  guest_start v fio 'stalls_fio xvda'
  guest_says v fio 30 running
  nap 3
  for turn in 1 2; do
    marks quiet
    nap $phase_s
    for mode in storm bad-requests bad-ring flap; do
      phase "$([ $mode = storm ] && echo greedy || echo busy)" "busy-$mode"
      phase $mode $mode
      tell "$mode, time $turn: over"
    done
  done
  # Each in one sentence at least, which the limit leaves.
  grep -qE "guest $evil_id.*request refused" /tmp/results/iscsi-blkback.log || fail "nothing is said of refused requests"
  grep -qE "guest $evil_id.*is not served any more" /tmp/results/iscsi-blkback.log || fail "nothing is said of a broken ring"
}
# The table, and whether an evil neighbour costs clearly more than a busy one.
judge() {
  job_output v report | awk -v modes='storm bad-requests bad-ring flap' '
    $1 == "together" { count[$2] = $3; p50[$2] = $4; p99[$2] = $5; longest[$2] = $7 }
    END {
      printf "quiet: %d requests, p50 %.1f ms, p99 %.1f ms, longest %.0f ms\n", count["quiet"], p50["quiet"], p99["quiet"], longest["quiet"]
      n = split(modes, mode, " ")
      for (i = 1; i <= n; i++) {
        m = mode[i]; good = "busy-" m
        if (!count[m] || !count[good]) { printf "%s: nothing was measured\n", m; bad = 1; continue }
        ratio = p99[good] > 0 ? p99[m] / p99[good] : 1
        printf "%s: p99 %.1f ms of %d requests, beside a good one %.1f ms of %d: ratio %.2f, to quiet %.2f\n",
          m, p99[m], count[m], p99[good], count[good], ratio, (p99["quiet"] > 0 ? p99[m] / p99["quiet"] : 1)
        if (ratio > 1.5 && p99[m] - p99[good] > 10) { printf "%s: clearly more\n", m; bad = 1 }
      }
      exit bad
    }' > "$scenario_dir/hostile.txt"
}
scenario() {
  local before verdict=0
  step evil
  [ -x $program ] || fail "the payload has no hostile_frontend"
  target_start tgt 2 64 64 64
  guest_create v "$variant" "$(disk qdisk xvda 1)"
  guest_ramdisk=$(guest_ramdisk_with $program xen-evtchn xen-gntalloc)
  guest_vcpus=2 guest_create e "$variant" "$(disk qdisk xvda 2)"
  unset guest_ramdisk
  evil_id=$(domid e)
  guest_run e modules 30 'load_modules; [ -c /dev/xen/evtchn ] && [ -c /dev/xen/gntalloc ] && echo 0 > /sys/bus/xen/drivers_autoprobe'
  before=$(evil_grants)
  attach e "$(disk qdisk xvdb 3)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  wait_until 30 "the backend offers the evil disk a ring" evil_state_is 2
  evil
  step after
  detach e xvdb || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
  wait_until 30 "no more than $before grants of the evil guest are in use" evil_grants_at_most "$before"
  note "grants of the evil guest in use: $before before, $(evil_grants) after it all"
  guest_start v stop stop_fio
  guest_finish v fio 60
  guest_run v report 60 report_together
  judge || verdict=1
  while read -r line; do tell "$line"; done < "$scenario_dir/hostile.txt"
  guest_shutdown e
  guest_shutdown v
  assert_nothing_left
  [ $verdict = 0 ] || fail "an evil neighbour costs the other guest more than a busy one: $(grep -m1 -E 'clearly|nothing' "$scenario_dir/hostile.txt")"
}
