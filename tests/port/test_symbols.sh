#!/bin/bash
# Goal: what firmware links holds no malloc, no stdio, no file, no atomics helper, no recursion; the
# sizes in README.md are the measured ones. Method: library.sh. (Its firmware programs were built before.)
exec bash "$(dirname "$0")/library.sh" check
