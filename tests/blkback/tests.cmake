iscsi_blkback_test(blkback_nbd_test
  SOURCES
    blkback/nbd/nbd_protocol_test.cpp
    blkback/nbd/nbd_server_test.cpp
  LIBRARIES iscsi_blkback_nbd)

# QEMU and libnbd at a real socket.
iscsi_blkback_test(blkback_nbd_clients_test LABEL target
  SOURCES
    blkback/nbd/nbd_clients_test.cpp
  LIBRARIES iscsi_blkback_nbd)

iscsi_blkback_test(blkback_ring_test
  SOURCES
    blkback/ring/back_ring_order_test.cpp
    blkback/ring/back_ring_test.cpp
    blkback/ring/block_aligner_test.cpp
    blkback/ring/request_parser_test.cpp
    blkback/ring/ring_turn_test.cpp
    blkback/ring/vbd_queue_barrier_test.cpp
    blkback/ring/vbd_queue_discard_test.cpp
    blkback/ring/vbd_queue_flush_test.cpp
    blkback/ring/vbd_queue_hostile_test.cpp
    blkback/ring/vbd_queue_indirect_test.cpp
    blkback/ring/vbd_queue_refusal_test.cpp
    blkback/ring/vbd_queue_test.cpp
    blkback/ring/vbd_room_test.cpp
    blkback/ring/vbd_test.cpp
  LIBRARIES iscsi_blkback_ring)

# In memory here; `xen_contract_test --real` in a Xen domain (component "tests" carries it there).
iscsi_blkback_test(xen_contract_test LABEL contract
  SOURCES
    blkback/xen/xen_contract_test.cpp
    blkback/xen/xen_rig_memory.cpp
    blkback/xen/xen_rig_real.cpp
  LIBRARIES iscsi_blkback_ring PkgConfig::XEN)
install(TARGETS xen_contract_test
  RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/iscsi-blkback COMPONENT tests EXCLUDE_FROM_ALL)

# For a guest of the lab, which has no libraries but libxen*'s: nothing of the product is linked.
add_executable(hostile_frontend
  blkback/xen/hostile_frontend_main.cpp
  blkback/xen/libxen_guest_platform.cpp
  support/hostile_frontend.cpp)
target_link_libraries(hostile_frontend PRIVATE
  iscsi_blkback_options PkgConfig::XEN_GUEST Threads::Threads)
iscsi_blkback_off_data_path(hostile_frontend)
install(TARGETS hostile_frontend
  RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/iscsi-blkback COMPONENT tests EXCLUDE_FROM_ALL)
add_test(NAME unit.HostileFrontend.SaysHowItIsUsed COMMAND hostile_frontend 51728 nonsense 1)
set_tests_properties(unit.HostileFrontend.SaysHowItIsUsed PROPERTIES LABELS unit TIMEOUT 60
  PASS_REGULAR_EXPRESSION "usage: hostile_frontend DEVICE-ID")

# The control side.
iscsi_blkback_test(blkback_control_test
  SOURCES
    blkback/guest/disk_device_test.cpp
    blkback/guest/disk_ring_test.cpp
    blkback/guest/disk_teller_test.cpp
    blkback/guest/runtime_overrides_test.cpp
    blkback/guest/statistics_folder_test.cpp
    blkback/guest/guest_run_state_test.cpp
    blkback/guest/guest_threads_test.cpp
    blkback/guest/xenbus_node_test.cpp
    blkback/guest/xenbus_state_test.cpp
    blkback/process/control_request_test.cpp
    blkback/process/control_server_test.cpp
    blkback/process/guest_supervisor_test.cpp
    blkback/process/host_end_test.cpp
    blkback/process/hostile_text_test.cpp
    blkback/process/process_lock_test.cpp
    blkback/process/status_report_test.cpp
    blkback/xen/libxen_xenstore_test.cpp
  LIBRARIES iscsi_blkback_process)
iscsi_blkback_test(guest_sandbox_test
  SOURCES
    blkback/process/guest_helper_test.cpp
    blkback/process/guest_sandbox_test.cpp
    blkback/process/xenstore_gate_test.cpp
  LIBRARIES iscsi_blkback_process PkgConfig::LIBURING)
iscsi_blkback_test(suspend_sentry_test
  SOURCES
    blkback/guest/suspend_sentry_test.cpp
  LIBRARIES iscsi_blkback_process)
iscsi_blkback_test(guest_backend_test LABEL simulation
  SOURCES
    blkback/guest/guest_backend_attach_test.cpp
    blkback/guest/guest_backend_blocks_test.cpp
    blkback/guest/guest_backend_change_test.cpp
    blkback/guest/guest_backend_crash_test.cpp
    blkback/guest/guest_backend_discard_test.cpp
    blkback/guest/guest_backend_end_test.cpp
    blkback/guest/guest_backend_hostile_guest_test.cpp
    blkback/guest/guest_backend_firmware_test.cpp
    blkback/guest/guest_backend_hostile_target_test.cpp
    blkback/guest/guest_backend_log_test.cpp
    blkback/guest/guest_backend_next_process_test.cpp
    blkback/guest/guest_backend_node_test.cpp
    blkback/guest/guest_backend_paths_test.cpp
    blkback/guest/guest_backend_questions_test.cpp
    blkback/guest/guest_backend_queues_test.cpp
    blkback/guest/guest_backend_refusal_test.cpp
    blkback/guest/guest_backend_reactors_test.cpp
    blkback/guest/guest_backend_reuse_test.cpp
    blkback/guest/guest_backend_statistics_test.cpp
    blkback/guest/guest_backend_test.cpp
    blkback/guest/guest_backend_trouble_test.cpp
    blkback/guest/guest_disk_order_test.cpp
    blkback/guest/hostile_frontend_test.cpp
  LIBRARIES iscsi_blkback_process)
