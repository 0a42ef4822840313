# Fails where FILE, stripped, takes more than LIMIT bytes: sizes that the documentation promises.
#     cmake -DFILE=... -DLIMIT=... -DSTRIP=... -P check_size.cmake
set(stripped ${FILE}.stripped)
execute_process(COMMAND ${STRIP} -o ${stripped} ${FILE} COMMAND_ERROR_IS_FATAL ANY)
file(SIZE ${stripped} size)
file(REMOVE ${stripped})
message("${FILE}: ${size} of ${LIMIT} bytes")
if(size GREATER LIMIT)
  message(FATAL_ERROR "too large: docs/internals/run.md says where to look")
endif()
