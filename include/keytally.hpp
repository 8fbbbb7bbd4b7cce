// keytally.hpp: Keytally for C++17.
#ifndef KEYTALLY_HPP
#define KEYTALLY_HPP
#include "keytally.h"
#endif
