iscsi_blkback_test(base_contract_test LABEL contract
  SOURCES base/contract_world.cpp base/reactor_contract_test.cpp base/byte_stream_contract_test.cpp
  LIBRARIES iscsi_blkback_base)
