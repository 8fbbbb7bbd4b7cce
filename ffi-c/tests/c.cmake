# The suite `c`.

add_compile_definitions(_GNU_SOURCE)

# The header by itself, included twice, in the oldest standards.
foreach(extension c cpp)
    set(source "${CMAKE_CURRENT_BINARY_DIR}/header.${extension}")
    file(WRITE "${source}" "#include <keytally.h>\n#include <keytally.h>\n")
    add_library("header_${extension}" OBJECT "${source}")
    target_include_directories("header_${extension}" PRIVATE "${INCLUDE}")
endforeach()
set_target_properties(header_c PROPERTIES C_STANDARD 99)
set_target_properties(header_cpp PROPERTIES CXX_STANDARD 11)

pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
add_program(c/layout.c)
add_program(c/hostile.c)
add_program(c/calls.c IN_FOLDER)
add_program(c/fleet.c IN_FOLDER)
add_program(c/sections.c IN_FOLDER)
add_program(c/vectors.c ARGUMENTS "${ROOT}/vectors" LIBRARIES PkgConfig::CJSON)

# The library without its host part.
if(BARE)
    add_executable(bare c/bare.c)
    target_include_directories(bare PRIVATE "${INCLUDE}")
    target_link_libraries(bare PRIVATE "${BARE}")
    # The library has no sections, so its handles are smaller.
    target_compile_definitions(bare PRIVATE KT_WITHOUT_SECTIONS=1)
    add_test(NAME bare COMMAND bare)
    add_test(NAME bare_symbols COMMAND sh "${CMAKE_CURRENT_SOURCE_DIR}/bare_symbols.sh"
        "${CMAKE_C_COMPILER}" "${BARE}")
endif()

# A program with smaller handles cannot be linked with the library that has all features.
add_executable(small_handles EXCLUDE_FROM_ALL c/bare.c)
target_compile_definitions(small_handles PRIVATE KT_WITHOUT_SECTIONS=1)
target_link_libraries(small_handles PRIVATE keytally::keytally)
add_test(NAME small_handles
    COMMAND "${CMAKE_COMMAND}" --build "${CMAKE_BINARY_DIR}" --target small_handles)
set_tests_properties(small_handles PROPERTIES
    PASS_REGULAR_EXPRESSION "undefined reference to [`']kt_gate_init_without_sections'")

# Another static library in Rust, linked before and after ours. Both contain the standard library.
# With fat LTO, that is in the object that is always linked.
if("static" IN_LIST WAYS)
    set(other "${CMAKE_CURRENT_BINARY_DIR}/libother.a")
    add_custom_command(OUTPUT "${other}" DEPENDS c/other.rs VERBATIM
        COMMAND "${CMAKE_COMMAND}" -E env --unset=MAKEFLAGS rustc --edition=2024 --crate-type=staticlib -O -Clto=fat
            -o "${other}" "${CMAKE_CURRENT_SOURCE_DIR}/c/other.rs")
    add_custom_target(other DEPENDS "${other}")
    add_executable(archives_first c/archives.c)
    target_link_libraries(archives_first PRIVATE keytally::static "${other}")
    add_executable(archives_last c/archives.c)
    target_link_libraries(archives_last PRIVATE "${other}" keytally::static)
    foreach(program archives_first archives_last)
        add_dependencies("${program}" other)
        add_test(NAME "${program}" COMMAND "${program}")
    endforeach()
endif()

# The commands of the README, and the packages.
add_test(NAME readme COMMAND sh "${CMAKE_CURRENT_SOURCE_DIR}/readme.sh"
    "${CMAKE_C_COMPILER}" "${PREFIX}" lib "${ROOT}")
if(PACKAGES)
    add_test(NAME packages COMMAND sh "${CMAKE_CURRENT_SOURCE_DIR}/packages.sh"
        "${PACKAGES}" "${ROOT}")
endif()
