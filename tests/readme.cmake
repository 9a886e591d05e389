# SPDX-License-Identifier: MIT
# Fails unless the README's example is examples/quickstart.cpp, which is compiled and run.
file(READ ${SOURCE_DIR}/README.md readme)
file(READ ${SOURCE_DIR}/examples/quickstart.cpp example)
string(REPLACE "// SPDX-License-Identifier: MIT\n" "" example "${example}")
string(FIND "${readme}" "```cpp\n${example}```" at)
if(at EQUAL -1)
  message(FATAL_ERROR "README.md does not show examples/quickstart.cpp as it is")
endif()
