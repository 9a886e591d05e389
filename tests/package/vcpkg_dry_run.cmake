# SPDX-License-Identifier: MIT
# Runs the port without vcpkg: its functions' names, with behind them the steps that they are for.
# It cannot show vcpkg's own checks of the installed files.
set(CURRENT_PORT_DIR ${SOURCE_DIR}/packaging/vcpkg/singleflight)
set(CURRENT_PACKAGES_DIR ${PREFIX})

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
function(vcpkg_cmake_configure)
  cmake_parse_arguments(arg "" SOURCE_PATH OPTIONS ${ARGN})
  run(${CMAKE_COMMAND} -G Ninja -S ${arg_SOURCE_PATH} -B ${BUILD_DIR}
    -DCMAKE_INSTALL_PREFIX=${PREFIX} ${arg_OPTIONS})
endfunction()
function(vcpkg_cmake_install)
  run(${CMAKE_COMMAND} --build ${BUILD_DIR} --target install)
endfunction()
function(vcpkg_cmake_config_fixup)
  cmake_parse_arguments(arg "" CONFIG_PATH "" ${ARGN})
  if(NOT EXISTS ${PREFIX}/${arg_CONFIG_PATH}/singleflight-config.cmake)
    message(FATAL_ERROR "the port looks for its CMake files in ${arg_CONFIG_PATH}")
  endif()
  # vcpkg adapts the depth of the import prefix; here the files stay where they are.
endfunction()
function(vcpkg_fixup_pkgconfig)
endfunction()
function(vcpkg_install_copyright)
  cmake_parse_arguments(arg "" "" FILE_LIST ${ARGN})
  file(COPY_FILE ${arg_FILE_LIST} ${PREFIX}/share/singleflight-copyright)
endfunction()

include(${CURRENT_PORT_DIR}/portfile.cmake)
