# SPDX-License-Identifier: MIT
# Makes headers of the code that pages show, each block in a namespace block_1, block_2, ..., so that
# tests run it.
function(singleflight_code_of page prelude namespace header)
  set(page ${PROJECT_SOURCE_DIR}/docs/${page})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${page})
  file(READ ${page} text)
  string(REPLACE ";" "<semicolon>" text "${text}")  # else CMake takes it for a list
  string(REPLACE "[" "<open>" text "${text}")
  string(REPLACE "]" "<close>" text "${text}")
  string(REGEX MATCHALL "```cpp\n[^`]*```" blocks "${text}")
  set(code "#include \"${prelude}\"\nnamespace ${namespace} {\n")
  set(number 0)
  foreach(block IN LISTS blocks)
    math(EXPR number "${number} + 1")
    string(REGEX REPLACE "^```cpp\n|```$" "" block "${block}")
    if(block MATCHES "boost::")  # which not every system has
      set(block "#if __has_include(<boost/version.hpp>)\n${block}#endif\n")
    endif()
    string(APPEND code "namespace block_${number} {\n${block}}\n")
  endforeach()
  string(APPEND code "}\n")
  string(REPLACE "<semicolon>" ";" code "${code}")
  string(REPLACE "<open>" "[" code "${code}")
  string(REPLACE "<close>" "]" code "${code}")
  file(CONFIGURE OUTPUT ${header} CONTENT "${code}" @ONLY)
endfunction()
