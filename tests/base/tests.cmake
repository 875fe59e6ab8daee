# Its children filter their own system calls, of which the ThreadSanitizer makes more.
set(syscall_filter_test base/syscall_filter_test.cpp)
if(ISCSI_BLKBACK_SANITIZE STREQUAL "thread")
  set(syscall_filter_test)
endif()
iscsi_blkback_test(base_test LABEL unit
  SOURCES base/base64_test.cpp base/byte_order_test.cpp base/crc32c_test.cpp base/documents_test.cpp base/interface_binding_test.cpp
          base/intrusive_list_test.cpp
          base/latency_histogram_test.cpp base/layers_test.cpp base/link_watch_test.cpp base/peer_silence_test.cpp
          base/log_test.cpp base/one_door_test.cpp base/poll_governor_test.cpp base/printable_text_test.cpp
          base/privileges_test.cpp
          base/sim_network_test.cpp ${syscall_filter_test} base/uring_reactor_test.cpp
          base/values_test.cpp
  LIBRARIES iscsi_blkback_base PkgConfig::LIBURING)
target_compile_definitions(base_test PRIVATE
  ISCSI_BLKBACK_SOURCE_FOLDER="${PROJECT_SOURCE_DIR}")
iscsi_blkback_test(base_contract_test LABEL contract
  SOURCES base/adopted_stream_test.cpp base/byte_stream_contract_test.cpp base/contract_world.cpp
          base/reactor_contract_test.cpp
  LIBRARIES iscsi_blkback_base)
