#!/bin/bash
# The C++ half of the matrix: every header in every standard of C++, with every switch, after klib's
# macros, by gcc and clang (make test-cxx; the unit tests are compiled and run as C++ beside it).
export KV_JOBS=cxx KV_MATRIX=full KV_MATRIX_ONLY='[cC][+][+]' MATRIX_JOBS=${MATRIX_JOBS:-1}
exec bash tests/compile/test_headers.sh
