iscsi_blkback_test(initiator_test
  SOURCES
    initiator/discovery/discovery_session_test.cpp
    initiator/discovery/discovery_test.cpp
    initiator/discovery/send_targets_test.cpp
    initiator/login/chap_ladder_test.cpp
    initiator/login/chap_test.cpp
    initiator/login/login_test.cpp
    initiator/login/portal_text_test.cpp
    initiator/lun/logical_unit_test.cpp
    initiator/pdu/digest_test.cpp
    initiator/pdu/pdu_bytes_test.cpp
    initiator/pdu/pdu_test.cpp
    initiator/pdu/transmit_batch_test.cpp
    initiator/scsi/cdb_test.cpp
    initiator/scsi/identity_pages_test.cpp
    initiator/scsi/lun_names_test.cpp
    initiator/scsi/sense_vpd_test.cpp
    initiator/scsi/vendor_pages_test.cpp
    initiator/session/command_watchdog_test.cpp
    initiator/session/gather_policy_test.cpp
    initiator/session/keep_alive_test.cpp
    initiator/session/logout_sequence_test.cpp
    initiator/session/session_address_test.cpp
    initiator/session/session_answers_test.cpp
    initiator/session/session_chap_test.cpp
    initiator/session/session_failure_test.cpp
    initiator/session/session_functions_test.cpp
    initiator/session/session_io_test.cpp
    initiator/session/session_ping_test.cpp
    initiator/session/session_protocol_test.cpp
    initiator/session/session_recovery_test.cpp
    initiator/session/session_redirect_test.cpp
    initiator/session/session_silence_test.cpp
    initiator/session/session_tolerance_test.cpp
    initiator/targets/libiscsi_bugs_test.cpp
  LIBRARIES iscsi_blkback_initiator)

iscsi_blkback_test(initiator_target_test LABEL target
  SOURCES
    initiator/discovery/discovery_target_test.cpp
    initiator/targets/bad_network_test.cpp
    initiator/targets/istgt_test.cpp
    initiator/targets/target_commands_test.cpp
    initiator/targets/target_login_test.cpp
    initiator/targets/target_test.cpp
    initiator/targets/tcp_proxy_test.cpp
  LIBRARIES iscsi_blkback_initiator)
