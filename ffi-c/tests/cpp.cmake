# The suite `cpp`.

foreach(standard "" 20)
    foreach(program consumer macros)
        add_program("cpp/${program}.cpp" NAME "${standard}" STANDARD "${standard}")
    endforeach()
    add_program(cpp/calls.cpp NAME "${standard}" STANDARD "${standard}" IN_FOLDER)
    add_program(cpp/no_exceptions.cpp NAME "${standard}" STANDARD "${standard}"
        OPTIONS -fno-exceptions)
endforeach()

# The instructions that the wrapper adds to a check.
add_executable(cost cpp/cost.cpp)
target_compile_options(cost PRIVATE -O2)
target_link_libraries(cost PRIVATE keytally::keytally)
add_test(NAME cost COMMAND sh "${CMAKE_CURRENT_SOURCE_DIR}/cost.sh" "$<TARGET_FILE:cost>")
