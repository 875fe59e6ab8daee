# Deterministic simulation: everything from the guest's request to the target's medium, in virtual
# time, with faults from a seed. More seeds: SIMULATION_SEEDS=1-100000 simulation_test.
add_library(iscsi_blkback_disk_simulation STATIC
  simulation/disk_simulation.cpp
  simulation/disk_simulation_array.cpp
  simulation/disk_simulation_faults.cpp
  simulation/disk_simulation_paths.cpp
  simulation/disk_simulation_world.cpp
  simulation/ring_guest.cpp
  simulation/sector_oracle.cpp
  simulation/simulated_disk.cpp)
target_link_libraries(iscsi_blkback_disk_simulation PUBLIC
  iscsi_blkback_test_support iscsi_blkback_ring iscsi_blkback_multipath)

iscsi_blkback_test(simulation_test
  LABEL simulation
  SOURCES
    simulation/disk_simulation_test.cpp
    simulation/sector_oracle_test.cpp
  LIBRARIES iscsi_blkback_disk_simulation)

# The simulation of whole hosts: a library for its tests and for the command that runs many seeds.
add_library(iscsi_blkback_host_simulation STATIC
  simulation/host/breakage.cpp
  simulation/host/disk_workload.cpp
  simulation/host/event_kind.cpp
  simulation/host/host_simulation.cpp
  simulation/host/host_simulation_end.cpp
  simulation/host/host_trouble.cpp
  simulation/host/kept_plans.cpp
  simulation/host/kernel_process.cpp
  simulation/host/network_weather.cpp
  simulation/host/operator.cpp
  simulation/host/plan.cpp
  simulation/host/plan_generator.cpp
  simulation/host/plan_profile.cpp
  simulation/host/plan_runner.cpp
  simulation/host/plan_shrinker.cpp
  simulation/host/product_configuration.cpp
  simulation/host/product_process.cpp
  simulation/host/rule.cpp
  simulation/host/script.cpp
  simulation/host/simulated_domain.cpp
  simulation/host/simulated_guest.cpp
  simulation/host/simulated_host.cpp
  simulation/host/simulated_process.cpp
  simulation/host/simulated_storage.cpp
  simulation/host/simulated_xenstored.cpp
  simulation/host/target_weather.cpp
  simulation/host/toolstack.cpp
  simulation/host/toolstack_events.cpp
  simulation/host/wire_watch.cpp)
# Thousands of hosts are simulated, in the builds for sanitizers too.
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_options(iscsi_blkback_host_simulation PRIVATE -O1)
endif()
target_link_libraries(iscsi_blkback_host_simulation PUBLIC
  iscsi_blkback_disk_simulation iscsi_blkback_process)
# What a simulated process opens or maps goes when it is killed: see kernel_process.h.
target_link_options(iscsi_blkback_host_simulation PUBLIC
  LINKER:--wrap=open,--wrap=close,--wrap=mmap,--wrap=munmap,--wrap=getpid)

add_executable(simulate
  simulation/disk_seeds.cpp
  simulation/host/simulate_main.cpp
  simulation/host/simulate_options.cpp)
iscsi_blkback_off_data_path(simulate)
target_link_libraries(simulate PRIVATE iscsi_blkback_host_simulation)

iscsi_blkback_test(host_simulation_test
  LABEL simulation SHARDS 2
  SOURCES simulation/host/host_simulation_test.cpp
  LIBRARIES iscsi_blkback_host_simulation)
target_compile_definitions(host_simulation_test PRIVATE
  SIMULATION_PLANS="${CMAKE_CURRENT_SOURCE_DIR}/simulation/host/plans")

add_test(NAME simulation.Simulate.PrintsItsUsage COMMAND simulate --help)
add_test(NAME simulation.Simulate.SaysWhichOptionItDoesNotHave COMMAND simulate --dsik)
add_test(NAME simulation.Simulate.SaysWhereTheProfilesAre COMMAND simulate --profile=zzz)
add_test(NAME simulation.Simulate.SaysWhichOptionIsNotForDisks
  COMMAND simulate --disk --profile=moves)
add_test(NAME simulation.Simulate.PrintsTheFingerprintOfADisksSeed
  COMMAND simulate --disk --seeds=1 --print)
add_test(NAME simulation.Simulate.SaysWhyAPlanCannotBeRead COMMAND simulate --plan=/)
add_test(NAME simulation.Simulate.SaysThatAPlanNeedsAFile COMMAND simulate --plan=)
add_test(NAME simulation.Simulate.SaysThatSeedsAreNotRunBesideAPlan
  COMMAND simulate --seeds=3
  --plan=${CMAKE_CURRENT_SOURCE_DIR}/simulation/host/plans/slow-lun.plan)
add_test(NAME simulation.Simulate.SaysThatAPlanBreaksNothing
  COMMAND simulate --plan=${CMAKE_CURRENT_SOURCE_DIR}/simulation/host/plans/slow-lun.plan)
add_test(NAME simulation.Simulate.LeavesNoSeedBehind
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/simulation/no_child_is_left
  $<TARGET_FILE:simulate> --seeds=1-100000 --jobs=1)
add_test(NAME simulation.Simulate.LeavesNoSeedOfDisksBehind
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/simulation/no_child_is_left
  $<TARGET_FILE:simulate> --disk --seeds=1-100000 --jobs=1)
add_test(NAME simulation.Run.PrintsItsUsageBeforeItBuilds
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/simulation/run -h)
set_tests_properties(simulation.Run.PrintsItsUsageBeforeItBuilds PROPERTIES
  ENVIRONMENT BUILD=/nowhere)
set_tests_properties(simulation.Simulate.SaysWhichOptionItDoesNotHave PROPERTIES
  PASS_REGULAR_EXPRESSION "there is no option --dsik")
set_tests_properties(simulation.Simulate.SaysWhereTheProfilesAre PROPERTIES
  PASS_REGULAR_EXPRESSION "there is no profile zzz; simulate --profiles lists them")
set_tests_properties(simulation.Simulate.SaysWhichOptionIsNotForDisks PROPERTIES
  PASS_REGULAR_EXPRESSION "--profile is not for --disk")
set_tests_properties(simulation.Simulate.PrintsTheFingerprintOfADisksSeed PROPERTIES
  PASS_REGULAR_EXPRESSION "disk seed 1: fingerprint [0-9a-f]+[1-9a-f][0-9a-f]*\n")
set_tests_properties(simulation.Simulate.SaysWhyAPlanCannotBeRead PROPERTIES
  PASS_REGULAR_EXPRESSION "/ cannot be read: Is a directory")
set_tests_properties(simulation.Simulate.SaysThatAPlanNeedsAFile PROPERTIES
  PASS_REGULAR_EXPRESSION "--plan needs a value, as --plan=")
set_tests_properties(simulation.Simulate.SaysThatSeedsAreNotRunBesideAPlan PROPERTIES
  PASS_REGULAR_EXPRESSION "--seeds is for seeds, and --plan is run instead of them")
set_tests_properties(simulation.Simulate.SaysThatAPlanBreaksNothing PROPERTIES
  PASS_REGULAR_EXPRESSION "slow-lun.plan breaks no rule")
set_tests_properties(simulation.Simulate.PrintsItsUsage
  simulation.Simulate.SaysWhichOptionItDoesNotHave
  simulation.Simulate.SaysWhereTheProfilesAre
  simulation.Simulate.SaysWhichOptionIsNotForDisks
  simulation.Simulate.PrintsTheFingerprintOfADisksSeed
  simulation.Simulate.SaysWhyAPlanCannotBeRead
  simulation.Simulate.SaysThatAPlanNeedsAFile
  simulation.Simulate.SaysThatSeedsAreNotRunBesideAPlan
  simulation.Simulate.SaysThatAPlanBreaksNothing
  simulation.Simulate.LeavesNoSeedBehind
  simulation.Simulate.LeavesNoSeedOfDisksBehind
  simulation.Run.PrintsItsUsageBeforeItBuilds PROPERTIES LABELS simulation TIMEOUT 60)
