#!/bin/sh
# Builds the kernel harness for AArch64 as one static program and runs it under qemu.
# Usage: run_neon.sh BUILD_FOLDER [harness arguments]. Exits with 77 when a tool is missing.
set -eu
cc=${QN_AARCH64_CC:-aarch64-linux-gnu-gcc}
qemu=${QN_QEMU_AARCH64:-qemu-aarch64}
for tool in "$cc" "$qemu"; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "skipped: $tool is not installed"
        exit 77
    fi
done
build=$1
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
compile() {
    "$cc" -std=gnu17 -O2 -D_GNU_SOURCE -DQN_HAVE_NEON=1 -ffp-contract=off -fno-math-errno \
        -Wall -Wextra -Wno-missing-field-initializers -I"$root/include" -I"$root/src" "$@"
}
objects=
for set in dotprod i8mm; do
    for source in "$root"/src/kernel/arm/*_$set.c; do
        object=$build/$(basename "$source" .c)_neon.o
        compile -march=armv8.2-a+$set -c "$source" -o "$object"
        objects="$objects $object"
    done
done
# shellcheck disable=SC2086 # one word for each object
compile -static "$root"/tests/kernel/test_kernels.c "$root"/src/kernel/*.c \
    "$root"/src/kernel/scalar/*.c "$root"/src/kernel/arm/*_neon.c "$root"/src/core/cpu.c $objects \
    -lm -o "$build/test_kernels_neon"
exec "$qemu" "$build/test_kernels_neon" "$@"
