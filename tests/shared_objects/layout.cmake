# SPDX-License-Identifier: MIT
# Compiles the two halves of layout.cpp, the second with FLAG. The program must not link, or work.
#   cmake -D CXX=… -D FLAGS=… -D FLAG=… -D INCLUDE=… -D SOURCE=… -D OUT=… -P layout.cmake
separate_arguments(flags NATIVE_COMMAND "-std=c++20 ${FLAGS} -I${INCLUDE}")
file(MAKE_DIRECTORY ${OUT})
foreach(half IN ITEMS "-DPART_ONE" "${FLAG}")
  string(MAKE_C_IDENTIFIER "half${half}" name)
  execute_process(COMMAND ${CXX} ${flags} ${half} -c ${SOURCE} -o ${OUT}/${name}.o
    COMMAND_ERROR_IS_FATAL ANY)
  list(APPEND objects ${OUT}/${name}.o)
endforeach()
execute_process(COMMAND ${CXX} ${flags} ${objects} -o ${OUT}/program
  RESULT_VARIABLE failed ERROR_VARIABLE why)
if(failed AND why MATCHES "attempts_of")
  message(STATUS "the halves do not link")
elseif(failed)
  message(FATAL_ERROR "${why}")
else()
  execute_process(COMMAND ${OUT}/program COMMAND_ERROR_IS_FATAL ANY)
endif()
