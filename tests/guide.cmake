# SPDX-License-Identifier: MIT
# Makes a header of the code of docs/guide.md, each block in a namespace block_1, block_2, ..., so that
# guide_test runs what the guide shows.
set(guide ${PROJECT_SOURCE_DIR}/docs/guide.md)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${guide})
file(READ ${guide} text)
string(REPLACE ";" "<semicolon>" text "${text}")  # else CMake takes it for a list
string(REPLACE "[" "<open>" text "${text}")
string(REPLACE "]" "<close>" text "${text}")
string(REGEX MATCHALL "```cpp\n[^`]*```" blocks "${text}")
set(code "#include \"guide_prelude.hpp\"\nnamespace guide {\n")
set(number 0)
foreach(block IN LISTS blocks)
  math(EXPR number "${number} + 1")
  string(REGEX REPLACE "^```cpp\n|```$" "" block "${block}")
  string(APPEND code "namespace block_${number} {\n${block}}\n")
endforeach()
string(APPEND code "}\n")
string(REPLACE "<semicolon>" ";" code "${code}")
string(REPLACE "<open>" "[" code "${code}")
string(REPLACE "<close>" "]" code "${code}")
file(CONFIGURE OUTPUT guide_blocks.hpp CONTENT "${code}" @ONLY)
