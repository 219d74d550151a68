# SPDX-License-Identifier: Apache-2.0
# -DTFREWPRUNE_SANITIZE=address,undefined | thread: everything is compiled and
# linked with these sanitizers, and any finding ends the program.
set(TFREWPRUNE_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize=")
if(TFREWPRUNE_SANITIZE)
  add_compile_options(-fsanitize=${TFREWPRUNE_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${TFREWPRUNE_SANITIZE})
endif()
