iscsi_blkback_test(initiator_test
  SOURCES
    initiator/discovery_test.cpp
    initiator/logical_unit_test.cpp
    initiator/login_test.cpp
    initiator/pdu_test.cpp
    initiator/sense_vpd_test.cpp
    initiator/session_failure_test.cpp
    initiator/session_io_test.cpp
    initiator/session_protocol_test.cpp
  LIBRARIES iscsi_blkback_initiator)

iscsi_blkback_test(initiator_target_test LABEL target
  SOURCES
    initiator/target_test.cpp
    initiator/tgt_process.cpp
  LIBRARIES iscsi_blkback_initiator)
