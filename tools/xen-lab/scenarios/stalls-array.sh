# What a guest sees when an array's two controllers change places, through each stack (measuring.sh), with
# the Linux kernel's target: ALUA, implicit.
# tools/xen-lab/stalls runs it and prints the table.
# runs on demand: bookworm:product bookworm:kernel
# wants: kernel-stack
# timeout: 200
. "$harness_dir/measuring.sh"
scenario() {
  target_start lio-groups 2 64
  alua_start
  measure 2
  event alua-non-optimized
  alua_become 2 $alua_optimized; alua_become 1 $alua_non_optimized; sleep 6
  alua_become 1 $alua_optimized; alua_become 2 $alua_non_optimized; sleep 6
  calm
  event alua-standby
  alua_become 2 $alua_optimized; alua_become 1 $alua_standby; sleep 6
  alua_become 1 $alua_optimized; alua_become 2 $alua_standby; sleep 6
  alua_become 2 $alua_non_optimized
  calm
  measured
}
