# SPDX-License-Identifier: MIT
# What `cmake --install` and `cpack` put where. Nothing of it depends on the machine, hence share/.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(config_dir ${CMAKE_INSTALL_DATADIR}/cmake/singleflight)
set(pkgconfig_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)

install(TARGETS singleflight EXPORT singleflight-targets FILE_SET HEADERS
  FILE_SET hiredis_client FILE_SET asio FILE_SET boost_asio)
install(EXPORT singleflight-targets NAMESPACE singleflight:: DESTINATION ${config_dir})
install(FILES include/singleflight/singleflight.cppm
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/singleflight)

set(include_dir ${CMAKE_INSTALL_INCLUDEDIR})
configure_package_config_file(packaging/singleflight-config.cmake.in singleflight-config.cmake
  INSTALL_DESTINATION ${config_dir} PATH_VARS include_dir)
write_basic_package_version_file(singleflight-config-version.cmake
  COMPATIBILITY SameMajorVersion ARCH_INDEPENDENT)
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/singleflight-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/singleflight-config-version.cmake
  packaging/singleflight-module.cmake
  DESTINATION ${config_dir})

# Relative to the file itself, so that the installed tree can be moved.
file(RELATIVE_PATH to_prefix ${CMAKE_INSTALL_FULL_DATADIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" to_prefix ${to_prefix})
file(RELATIVE_PATH to_include_dir
  ${CMAKE_INSTALL_FULL_DATADIR}/pkgconfig ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(packaging/singleflight.pc.in singleflight.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/singleflight.pc DESTINATION ${pkgconfig_dir})

install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)  # Debian's name for it
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR}
  FILES_MATCHING PATTERN "*.md" PATTERN "*.svg" PATTERN "*.png")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME singleflight)
set(CPACK_PACKAGE_VENDOR "The singleflight authors")
set(CPACK_PACKAGE_CONTACT "The singleflight authors")
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_CURRENT_SOURCE_DIR}/LICENSE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
include(CPack)
