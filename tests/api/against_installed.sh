#!/bin/bash
# Install BUILD below OUT, then build what a user of the installed library would build: every
# example, every @code block of the public headers and every public header alone, as C11 and C++17.
#   against_installed.sh BUILD OUT [compiler flags]
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
build=$1 out=$2
shift 2
cc=${CC:-cc}
rm -rf "$out"
mkdir -p "$out/code"
cmake --install "$build" --prefix "$out/prefix" >"$out/install.log"
pc=$(find "$out/prefix" -name quench.pc)
[ -n "$pc" ] || { echo "error: quench.pc was not installed" >&2; exit 1; }
export PKG_CONFIG_PATH=${pc%/*}
strict=(-Wall -Wextra -Werror "$@")
read -ra cflags <<<"$(pkg-config --cflags quench)"
libdir=$(pkg-config --variable=libdir quench)
include=$out/prefix/include

headers=("$include"/quench/*.h)
[ ${#headers[@]} -ge 4 ] || { echo "error: the headers were not installed" >&2; exit 1; }
for header in "${headers[@]}"; do
    name=${header#"$include/"}
    echo "#include <$name>" >"$out/code/alone.c"
    "$cc" -std=c11 -pedantic "${strict[@]}" "${cflags[@]}" -fsyntax-only "$out/code/alone.c"
    # a compiler without C++ says so about the plainest program
    if echo 'int x;' | "$cc" -x c++ -std=c++17 -fsyntax-only - 2>/dev/null; then
        "$cc" -x c++ -std=c++17 -pedantic "${strict[@]}" "${cflags[@]}" -fsyntax-only "$out/code/alone.c"
        echo "c++17 $name"
    fi
    echo "c11 $name"
done

# Each with the library its first lines name.
for source in "$here"/examples/*.c; do
    name=$(basename "$source" .c)
    package=$(sed -n 's/.*pkg-config --cflags --libs \(quench[a-z-]*\).*/\1/p' "$source" | head -n 1)
    read -ra libs <<<"$(pkg-config --libs "$package")"
    "$cc" -std=c11 -pedantic "${strict[@]}" "${cflags[@]}" "$source" -o "$out/$name" "${libs[@]}" \
        "-Wl,-rpath,$libdir"
    echo "example $name"
done
"$cc" -std=c11 -pedantic "${strict[@]}" "${cflags[@]}" "$here/examples/classify.c" \
    -o "$out/classify_static" "$libdir/libquench-rt.a" -lm
echo "example classify, static runtime"
read -ra libs <<<"$(pkg-config --libs quench)"
"$cc" -std=c11 -pedantic "${strict[@]}" "${cflags[@]}" -DWHOLE_LIBRARY "$here/examples/classify.c" \
    -o "$out/classify_whole" "${libs[@]}" "-Wl,-rpath,$libdir"
echo "example classify, whole library"

# A @code block is the inside of a function; what it needs from before is in preamble.h.
for header in "${headers[@]}"; do
    name=$(basename "$header" .h)
    awk -v base="$out/code/$name" '
        /@code/ { n++; file = base "_" n ".inc"; inside = 1; next }
        /@endcode/ { inside = 0 }
        inside { sub(/^ \* ?/, ""); print > file }' "$header"
done
blocks=0
for block in "$out"/code/*.inc; do
    [ -e "$block" ] || continue
    {
        echo '#include "preamble.h"'
        echo "int snippet(qn_context *, qn_model *, qn_dataset *);"
        if grep -q 'qn_error error;' "$block"; then
            echo "int snippet(qn_context *ignored, qn_model *model, qn_dataset *dataset)"
            echo "{ (void)ignored; (void)model; (void)dataset;"
        else
            echo "int snippet(qn_context *ctx, qn_model *model, qn_dataset *dataset)"
            echo "{ qn_error error; qn_status status; qn_model *quantized = NULL;"
            echo "  (void)ctx; (void)model; (void)dataset; (void)error; (void)quantized;"
        fi
        cat "$block"
        grep -q '^ *status = ' "$block" && echo "if (status != QN_OK) return 1;"
        echo "return 0; }"
    } >"${block%.inc}.c"
    "$cc" -std=c11 "${strict[@]}" "${cflags[@]}" "-I$here/tests/api" -c "${block%.inc}.c" -o "${block%.inc}.o"
    blocks=$((blocks + 1))
    echo "code $(basename "$block" .inc)"
done
expected=$(cat "${headers[@]}" | grep -c '@code')
[ "$blocks" = "$expected" ] || { echo "error: $blocks of $expected code blocks were built" >&2; exit 1; }
