iscsi_blkback_test(initiator_test
  SOURCES
    initiator/chap_ladder_test.cpp
    initiator/chap_test.cpp
    initiator/digest_test.cpp
    initiator/cdb_test.cpp
    initiator/discovery_session_test.cpp
    initiator/discovery_test.cpp
    initiator/gather_policy_test.cpp
    initiator/identity_pages_test.cpp
    initiator/libiscsi_bugs_test.cpp
    initiator/logical_unit_test.cpp
    initiator/login_test.cpp
    initiator/lun_names_test.cpp
    initiator/pdu_bytes_test.cpp
    initiator/pdu_test.cpp
    initiator/portal_text_test.cpp
    initiator/send_targets_test.cpp
    initiator/sense_vpd_test.cpp
    initiator/session_address_test.cpp
    initiator/session_answers_test.cpp
    initiator/session_chap_test.cpp
    initiator/session_failure_test.cpp
    initiator/session_functions_test.cpp
    initiator/session_io_test.cpp
    initiator/session_ping_test.cpp
    initiator/session_protocol_test.cpp
    initiator/session_recovery_test.cpp
    initiator/session_redirect_test.cpp
    initiator/session_silence_test.cpp
    initiator/session_tolerance_test.cpp
    initiator/transmit_batch_test.cpp
    initiator/vendor_pages_test.cpp
  LIBRARIES iscsi_blkback_initiator)

iscsi_blkback_test(initiator_target_test LABEL target
  SOURCES
    initiator/bad_network_test.cpp
    initiator/discovery_target_test.cpp
    initiator/istgt_test.cpp
    initiator/target_login_test.cpp
    initiator/target_commands_test.cpp
    initiator/target_test.cpp
    initiator/tcp_proxy_test.cpp
  LIBRARIES iscsi_blkback_initiator)
