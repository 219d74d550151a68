# SPDX-License-Identifier: Apache-2.0
# `cmake --install`: libraries, headers, the benchmark, and what find_package(tfrewprune)
# reads. Its targets are tfrewprune::ops and tfrewprune::delegate.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(TFREWPRUNE_PACKAGE ${CMAKE_INSTALL_LIBDIR}/cmake/tfrewprune)
set_target_properties(tfrewprune_ops PROPERTIES EXPORT_NAME ops)
set_target_properties(tfrewprune_delegate PROPERTIES EXPORT_NAME delegate)
target_include_directories(tfrewprune_delegate INTERFACE $<INSTALL_INTERFACE:include>)
install(TARGETS tfrewprune_ops tfrewprune_delegate EXPORT tfrewprune)
install(TARGETS tfrewprune_benchmark)
install(FILES tfrewprune.h tfrewprune_ops.h TYPE INCLUDE)
install(EXPORT tfrewprune FILE targets.cmake NAMESPACE tfrewprune::
        DESTINATION ${TFREWPRUNE_PACKAGE})
configure_package_config_file(cmake/tfrewprune-config.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/tfrewprune-config.cmake
  INSTALL_DESTINATION ${TFREWPRUNE_PACKAGE})
write_basic_package_version_file(
  ${CMAKE_CURRENT_BINARY_DIR}/tfrewprune-config-version.cmake
  VERSION ${TFREWPRUNE_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tfrewprune-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/tfrewprune-config-version.cmake
        DESTINATION ${TFREWPRUNE_PACKAGE})
