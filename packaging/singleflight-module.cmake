# SPDX-License-Identifier: MIT
# Makes the target singleflight::module of the module's source and the headers below include_dir. A
# compiled module fits one compiler and its flags, so it is built where it is used.
function(singleflight_add_module include_dir)
  if(TARGET singleflight::module)
    return()
  endif()
  if(CMAKE_VERSION VERSION_LESS 3.28)
    message(FATAL_ERROR "singleflight: the C++20 module needs CMake 3.28 or newer; "
      "this is ${CMAKE_VERSION}. The headers work as they are.")
  endif()
  add_library(singleflight_module STATIC EXCLUDE_FROM_ALL)
  add_library(singleflight::module ALIAS singleflight_module)
  target_sources(singleflight_module PUBLIC FILE_SET CXX_MODULES
    BASE_DIRS ${include_dir} FILES ${include_dir}/singleflight/singleflight.cppm)
  target_link_libraries(singleflight_module PUBLIC singleflight::singleflight)
endfunction()
