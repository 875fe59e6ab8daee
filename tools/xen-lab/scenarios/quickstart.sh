# What tools/quickstart shows: a guest writes and verifies, a path is cut meanwhile. Not among the
# tests (no `runs`): tools/quickstart names it. Results: quickstart.txt, one "key value" per line.
# timeout: 180
scenario() {
  phase_s=7
  target_start tgt 2 64
  line=$(disk qdisk xvda 1)
  guest_create g "${variant:-pv}" "$line"
  guest_start g fio "measured_fio xvda $((phase_s * 3 + 1))"
  guest_says g fio 30 started
  echo "scenario quickstart: the guest writes and verifies over two paths"
  sleep $phase_s
  guest_start g cut 'mark cut'; cut_portal 1 "${cut:-reset}"
  echo "scenario quickstart: path 1 of 2 is cut"
  sleep $phase_s
  show_paths
  guest_start g back 'mark back'; restore_portal 1
  echo "scenario quickstart: path 1 is back"
  guest_finish g fio 90
  guest_run g report 60 'report_fio xvda'
  show_paths
  guest_shutdown g
  assert_nothing_left
  {
    echo "xen $(xl info xen_version)"
    echo "guest ${variant:-pv}"
    echo "line $line"
    job_output g report | grep -v '^exit'
  } > "$scenario_dir/quickstart.txt"
}
