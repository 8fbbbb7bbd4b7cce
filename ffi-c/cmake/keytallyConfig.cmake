# find_package(keytally) gives two targets:
#   keytally::keytally  the shared library
#   keytally::static    the archive, with the system libraries that it needs
# All paths are relative to this file in PREFIX/share/cmake/keytally, so the prefix may be moved.

get_filename_component(_keytally_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

find_path(keytally_INCLUDE_DIR keytally.h PATHS "${_keytally_prefix}/include" NO_DEFAULT_PATH)
foreach(_keytally_kind SHARED STATIC)
    set(_keytally_name "${CMAKE_${_keytally_kind}_LIBRARY_PREFIX}keytally${CMAKE_${_keytally_kind}_LIBRARY_SUFFIX}")
    find_library(keytally_${_keytally_kind}_LIBRARY NAMES "${_keytally_name}" NAMES_PER_DIR
        PATHS "${_keytally_prefix}" PATH_SUFFIXES "lib/${CMAKE_LIBRARY_ARCHITECTURE}" lib lib64 NO_DEFAULT_PATH)
endforeach()
mark_as_advanced(keytally_INCLUDE_DIR keytally_SHARED_LIBRARY keytally_STATIC_LIBRARY)

include(FindPackageHandleStandardArgs)
set(${CMAKE_FIND_PACKAGE_NAME}_CONFIG "${CMAKE_CURRENT_LIST_FILE}")
if(keytally_SHARED_LIBRARY)
    set(_keytally_any "${keytally_SHARED_LIBRARY}")
else()
    set(_keytally_any "${keytally_STATIC_LIBRARY}")
endif()
find_package_handle_standard_args(keytally REQUIRED_VARS _keytally_any keytally_INCLUDE_DIR)

if(keytally_FOUND AND keytally_SHARED_LIBRARY AND NOT TARGET keytally::keytally)
    add_library(keytally::keytally SHARED IMPORTED)
    set_target_properties(keytally::keytally PROPERTIES
        IMPORTED_LOCATION "${keytally_SHARED_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${keytally_INCLUDE_DIR}")
endif()

if(keytally_FOUND AND keytally_STATIC_LIBRARY AND NOT TARGET keytally::static)
    set(THREADS_PREFER_PTHREAD_FLAG ON)
    find_package(Threads REQUIRED)
    add_library(keytally::static STATIC IMPORTED)
    set_target_properties(keytally::static PROPERTIES
        IMPORTED_LOCATION "${keytally_STATIC_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${keytally_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES "Threads::Threads;util;rt;m;${CMAKE_DL_LIBS}")
endif()

unset(_keytally_prefix)
unset(_keytally_kind)
unset(_keytally_name)
unset(_keytally_any)
