# What the ways to a guest's data cost (bench/grant_costs.cpp), with nothing beside it. The product copies: that may not cost
# more than to map the pages for each request.
# runs on demand: trixie:- bookworm:-
# runs alone: it measures
scenario() {
  local pages copied mapped kept
  /usr/libexec/iscsi-blkback/grant_costs > "$scenario_dir/grant-costs" || fail "grant_costs failed with status $?"
  cat "$scenario_dir/grant-costs"
  while read -r pages copied mapped kept; do
    case $pages in pages) continue ;; esac
    tell "$pages pages: copied $copied us, mapped $mapped us, kept mapped $kept us"
    awk -v copied="$copied" -v mapped="$mapped" 'BEGIN { exit copied > mapped }' || fail "$pages pages are mapped in less time than they are copied"
  done < "$scenario_dir/grant-costs"
}
