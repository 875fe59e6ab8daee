# What tools/quickstart shows: a guest writes and verifies, a path is cut meanwhile (quickstart.pv-reset,
# quickstart.pvh-drop, ...). Not among the tests: it has no `runs`, tools/quickstart names it. Results: quickstart.txt, one "key value" per line.
scenario() {
  phase_s=7 guest=${variant%-*} cut=${variant#*-}
  target_start tgt 2 64
  line=$(disk qdisk xvda 1)
  guest_create g "$guest" "$line"
  guest_start g fio 'measured_fio xvda'
  guest_says g fio 30 running
  tell "the guest writes and verifies over two paths"
  sleep $((phase_s + 1))   # fio takes a moment to start
  guest_start g cut 'mark cut'; cut_portal 1 "$cut"
  tell "path 1 of 2 is cut"
  sleep $phase_s
  show_paths
  guest_start g back 'mark back'; restore_portal 1
  tell "path 1 is back"
  sleep $phase_s
  guest_start g stop stop_fio
  guest_finish g fio 60
  guest_run g report 60 'report_fio xvda'
  show_paths
  guest_shutdown g
  assert_nothing_left
  {
    echo "xen $(xl info xen_version)"
    echo "guest $guest"
    echo "line $line"
    job_output g report | grep -v '^exit'
  } > "$scenario_dir/quickstart.txt"
}
