# The pure parts, and the device over the real engine on the simulated network.
iscsi_blkback_test(multipath_test
  SOURCES
    multipath/busy_target_test.cpp
    multipath/capacity_test.cpp
    multipath/changed_lun_test.cpp
    multipath/command_forms_test.cpp
    multipath/disk_end_test.cpp
    multipath/disk_identity_test.cpp
    multipath/fencing/barrier_names_test.cpp
    multipath/fencing/barrier_thread_test.cpp
    multipath/fencing/fence_carrier_test.cpp
    multipath/fencing/lost_cache_test.cpp
    multipath/fencing/lost_write_order_test.cpp
    multipath/fencing/lost_writes_test.cpp
    multipath/fencing/lun_fence_test.cpp
    multipath/fencing/lun_fence_times_test.cpp
    multipath/fencing/lun_turn_test.cpp
    multipath/fencing/lun_write_barrier_guest_test.cpp
    multipath/fencing/lun_write_barrier_model_test.cpp
    multipath/fencing/lun_write_barrier_test.cpp
    multipath/fencing/portal_group_trial_test.cpp
    multipath/fencing/predecessor_fence_test.cpp
    multipath/fencing/preempt_test.cpp
    multipath/fencing/redirected_login_test.cpp
    multipath/fencing/reservation_key_test.cpp
    multipath/fencing/session_budget_test.cpp
    multipath/fencing/unfenced_writes_test.cpp
    multipath/fencing/write_fence_test.cpp
    multipath/following_disk_test.cpp
    multipath/following_guest_test.cpp
    multipath/groups/group_controller_test.cpp
    multipath/groups/path_activation_test.cpp
    multipath/groups/path_activator_test.cpp
    multipath/groups/path_group_test.cpp
    multipath/groups/path_latency_test.cpp
    multipath/groups/path_policies_test.cpp
    multipath/groups/path_selector_test.cpp
    multipath/groups/prioritizer_test.cpp
    multipath/groups/priority_poll_test.cpp
    multipath/multipath_device_test.cpp
    multipath/multipath_errors_test.cpp
    multipath/multipath_text_test.cpp
    multipath/path/access_state_test.cpp
    multipath/path/checker_state_test.cpp
    multipath/path/disk_steps_test.cpp
    multipath/path/error_policy_test.cpp
    multipath/path/path_access_test.cpp
    multipath/path/path_checker_test.cpp
    multipath/path/path_identity_test.cpp
    multipath/path/path_set_test.cpp
    multipath/path/queue_depth_test.cpp
    multipath/path/silent_path_test.cpp
    multipath/path_changes_test.cpp
    multipath/refused_flush_test.cpp
    multipath/renamed_lun_test.cpp
    multipath/requests/discard_test.cpp
    multipath/requests/flush_rules_test.cpp
    multipath/requests/hedger_test.cpp
    multipath/requests/no_path_timer_test.cpp
    multipath/requests/outage_test.cpp
    multipath/requests/request_piece_test.cpp
    multipath/requests/request_queue_test.cpp
    multipath/requests/write_order_test.cpp
    multipath/shared_disk_test.cpp
    multipath/shared_session_test.cpp
    multipath/silent_paths_test.cpp
    multipath/slow_lun_test.cpp
    multipath/split_requests_test.cpp
    multipath/suspended_disk_test.cpp
  LIBRARIES iscsi_blkback_multipath)

iscsi_blkback_test(multipath_target_test LABEL target
  SOURCES
    multipath/failover_target_test.cpp
    multipath/fencing/portal_group_target_test.cpp
    multipath/fencing/reservation_key_target_test.cpp
  LIBRARIES iscsi_blkback_multipath)

# What turns a disk's URL into an open LUN.
iscsi_blkback_test(multipath_attach_test
  SOURCES
    multipath/attach/path_discovery_test.cpp
    multipath/attach/disk_url_test.cpp
    multipath/attach/host_id_test.cpp
    multipath/attach/session_pool_isid_test.cpp
    multipath/attach/session_pool_test.cpp
  LIBRARIES iscsi_blkback_attach)
