iscsi_blkback_test(bench_null_target_test LABEL contract
  SOURCES bench/null_target_engine_test.cpp bench/null_target_connection_test.cpp
  LIBRARIES iscsi_blkback_null_target)
