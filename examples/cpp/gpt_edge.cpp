// All of the library: compile this one file as C++17, with -ffp-contract=off, so that no
// multiplication and addition become one instruction and the floats are Python's.
//
// Its parts lie by subject in parts/, as 2,500 lines in one file could not be read.
#include "parts/c_api.hpp"
