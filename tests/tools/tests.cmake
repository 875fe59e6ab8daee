iscsi_blkback_test(tools_config_test
  SOURCES
    tools/config/array_table_test.cpp
    tools/config/config_effect_test.cpp
    tools/config/config_files_test.cpp
    tools/config/config_help_test.cpp
    tools/config/config_old_files_test.cpp
    tools/config/config_per_lun_test.cpp
    tools/config/config_policy_refusal_test.cpp
    tools/config/config_refusal_test.cpp
    tools/config/config_test.cpp
  LIBRARIES iscsi_blkback_config)
target_compile_definitions(tools_config_test PRIVATE
  ISCSI_BLKBACK_SOURCE_FOLDER="${PROJECT_SOURCE_DIR}")

iscsi_blkback_test(tools_status_test SOURCES tools/ctl/status_test.cpp LIBRARIES iscsi_blkback_ctl)
target_compile_definitions(tools_status_test PRIVATE
  ISCSI_BLKBACK_CTL="$<TARGET_FILE:iscsi-blkctl>")
add_dependencies(tools_status_test iscsi-blkctl)

iscsi_blkback_test(tools_hotplug_script_test SOURCES tools/packaging/hotplug_script_test.cpp)
target_compile_definitions(tools_hotplug_script_test PRIVATE
  ISCSI_BLKBACK_SOURCE_FOLDER="${PROJECT_SOURCE_DIR}")

iscsi_blkback_test(tools_lunex_test SOURCES tools/lunex/lunex_disk_test.cpp tools/lunex/lunex_test.cpp
  LIBRARIES iscsi_blkback_lunex)

iscsi_blkback_test(tools_lunex_target_test LABEL target SHARDS 2
  SOURCES tools/lunex/lunex_slow_target_test.cpp tools/lunex/lunex_target_test.cpp
  LIBRARIES iscsi_blkback_null_target)
target_compile_definitions(tools_lunex_target_test PRIVATE
  ISCSI_BLKBACK_LUNEX="$<TARGET_FILE:lunex>")
add_dependencies(tools_lunex_target_test lunex)

iscsi_blkback_test(tools_programs_test SOURCES tools/programs_test.cpp LIBRARIES iscsi_blkback_ctl)
target_compile_definitions(tools_programs_test PRIVATE
  ISCSI_BLKBACK_DAEMON="$<TARGET_FILE:iscsi-blkback>" ISCSI_BLKBACK_CTL="$<TARGET_FILE:iscsi-blkctl>"
  ISCSI_BLKBACK_LUNEX="$<TARGET_FILE:lunex>" ISCSI_BLKBACK_SOURCE_FOLDER="${PROJECT_SOURCE_DIR}")
add_dependencies(tools_programs_test iscsi-blkback iscsi-blkctl lunex)

iscsi_blkback_test(tools_core_dumps_test SOURCES tools/core_dumps_test.cpp LIBRARIES iscsi_blkback_ctl)
target_compile_definitions(tools_core_dumps_test PRIVATE
  ISCSI_BLKBACK_DAEMON="$<TARGET_FILE:iscsi-blkback>")
add_dependencies(tools_core_dumps_test iscsi-blkback)

add_library(iscsi_blkback_xen_devices_stub MODULE tools/xen_devices_stub.c)
iscsi_blkback_test(tools_guest_process_test LABEL target SOURCES tools/guest_process_test.cpp
  LIBRARIES iscsi_blkback_xen)
target_compile_definitions(tools_guest_process_test PRIVATE
  ISCSI_BLKBACK_DAEMON="$<TARGET_FILE:iscsi-blkback>"
  ISCSI_BLKBACK_XEN_DEVICES_STUB="$<TARGET_FILE:iscsi_blkback_xen_devices_stub>")
add_dependencies(tools_guest_process_test iscsi-blkback iscsi_blkback_xen_devices_stub)
