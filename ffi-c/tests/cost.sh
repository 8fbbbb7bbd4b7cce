#!/bin/sh
# Checks how many instructions keytally.hpp adds to a check: at most 2, for a time before 1970 and
# for a missing key. `PROGRAM c TIMES` and `PROGRAM cpp TIMES` each make two checks TIMES times.
# Usage: cost.sh PROGRAM
set -eu
times=1000

# Prints the instructions of PROGRAM, as callgrind counts them.
count() {
    output=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1)
    echo "$output" | sed -n 's/.* Collected : //p'
}

# Prints the instructions of TIMES iterations. The difference of two runs leaves out the start.
iterations() {
    once=$(count "$1" "$2" $times)
    twice=$(count "$1" "$2" $((2 * times)))
    echo $((twice - once))
}

c=$(iterations "$1" c)
cpp=$(iterations "$1" cpp)
echo "$times iterations of two checks take $c instructions by C and $cpp by keytally.hpp"
test "$c" -gt 0 && test "$cpp" -le $((c + times * 2 * 2))
