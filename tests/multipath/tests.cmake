# The pure parts, and the device over the real engine on the simulated network.
iscsi_blkback_test(multipath_test
  SOURCES
    multipath/access_state_test.cpp
    multipath/barrier_names_test.cpp
    multipath/busy_target_test.cpp
    multipath/capacity_test.cpp
    multipath/changed_lun_test.cpp
    multipath/checker_state_test.cpp
    multipath/command_forms_test.cpp
    multipath/error_policy_test.cpp
    multipath/following_disk_test.cpp
  multipath/following_guest_test.cpp
    multipath/lost_cache_test.cpp
    multipath/lost_write_order_test.cpp
    multipath/lost_writes_test.cpp
    multipath/lun_fence_test.cpp
    multipath/lun_write_barrier_guest_test.cpp
  multipath/lun_write_barrier_model_test.cpp
    multipath/lun_write_barrier_test.cpp
    multipath/multipath_device_test.cpp
    multipath/multipath_errors_test.cpp
    multipath/multipath_text_test.cpp
    multipath/path_activation_test.cpp
    multipath/path_changes_test.cpp
    multipath/path_group_test.cpp
    multipath/path_checker_test.cpp
    multipath/path_identity_test.cpp
    multipath/path_latency_test.cpp
    multipath/path_policies_test.cpp
    multipath/path_selector_test.cpp
    multipath/portal_group_trial_test.cpp
    multipath/predecessor_fence_test.cpp
    multipath/preempt_test.cpp
    multipath/prioritizer_test.cpp
    multipath/queue_depth_test.cpp
    multipath/redirected_login_test.cpp
    multipath/refused_flush_test.cpp
    multipath/renamed_lun_test.cpp
    multipath/reservation_key_test.cpp
    multipath/shared_disk_test.cpp
    multipath/shared_session_test.cpp
    multipath/silent_path_test.cpp
    multipath/split_requests_test.cpp
    multipath/slow_lun_test.cpp
    multipath/suspended_disk_test.cpp
    multipath/unfenced_writes_test.cpp
  LIBRARIES iscsi_blkback_multipath)

iscsi_blkback_test(multipath_target_test LABEL target
  SOURCES
    multipath/failover_target_test.cpp
    multipath/portal_group_target_test.cpp
    multipath/reservation_key_target_test.cpp
  LIBRARIES iscsi_blkback_multipath)
