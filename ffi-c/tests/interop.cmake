# The programs that the suite `interop` runs: the processes of the interoperation test, and the
# example servers in the folder SERVERS. They find the library by pkg-config.

pkg_check_modules(KEYTALLY REQUIRED IMPORTED_TARGET keytally)
pkg_check_modules(MICROHTTPD REQUIRED IMPORTED_TARGET libmicrohttpd)
pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)
link_libraries(PkgConfig::KEYTALLY)
add_compile_definitions("$<$<COMPILE_LANGUAGE:C>:_GNU_SOURCE>")

add_executable(in_c c/worker.c)
add_executable(in_cpp cpp/worker.cpp)
add_executable(server_in_c "${SERVERS}/c/server.c")
target_link_libraries(server_in_c PRIVATE PkgConfig::MICROHTTPD)
add_executable(server_in_cpp "${SERVERS}/cpp/server.cpp")
target_link_libraries(server_in_cpp PRIVATE PkgConfig::HTTPLIB)
