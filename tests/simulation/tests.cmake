# Deterministic simulation: everything from the guest's request to the target's medium, in virtual
# time, with faults from a seed. More seeds: SIMULATION_SEEDS=1-100000 simulation_test.
iscsi_blkback_test(simulation_test
  LABEL simulation
  SOURCES
    simulation/disk_simulation.cpp
    simulation/disk_simulation_array.cpp
    simulation/disk_simulation_faults.cpp
    simulation/disk_simulation_paths.cpp
    simulation/disk_simulation_test.cpp
    simulation/disk_simulation_world.cpp
    simulation/ring_guest.cpp
    simulation/sector_oracle.cpp
    simulation/sector_oracle_test.cpp
    simulation/simulated_disk.cpp
  LIBRARIES iscsi_blkback_blkback iscsi_blkback_multipath)
