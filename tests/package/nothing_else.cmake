# SPDX-License-Identifier: MIT
# Included by a user's project: fails if singleflight looks for anything but a threads library, or
# makes a target, a test or an install rule beside its one library.
macro(refuse_dependencies method name)
  if(NOT "${name}" MATCHES "^(Threads|singleflight)$")
    message(FATAL_ERROR "singleflight asks its user for ${name}")
  endif()
endmacro()
cmake_language(SET_DEPENDENCY_PROVIDER refuse_dependencies
  SUPPORTED_METHODS FIND_PACKAGE FETCHCONTENT_MAKEAVAILABLE_SERIAL)

function(check_directory directory)
  get_property(targets DIRECTORY ${directory} PROPERTY BUILDSYSTEM_TARGETS)
  list(REMOVE_ITEM targets your_program singleflight)
  get_property(tests DIRECTORY ${directory} PROPERTY TESTS)
  if(targets OR tests)
    message(FATAL_ERROR "singleflight makes in its user's build: ${targets} ${tests}")
  endif()
  get_property(subdirectories DIRECTORY ${directory} PROPERTY SUBDIRECTORIES)
  foreach(subdirectory IN LISTS subdirectories)
    check_directory(${subdirectory})
  endforeach()
endfunction()
cmake_language(DEFER CALL check_directory ${CMAKE_SOURCE_DIR})
