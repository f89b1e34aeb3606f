#!/bin/sh
# Verify, join and unpack the pieces beside this file, which `convkit pack` wrote:
#
#     sh unpack.sh FOLDER
#
# Needs sha256sum, cat and tar, no Python. FOLDER is new or empty, and gets everything or nothing.
# Exit codes: 0 unpacked, 2 a piece is missing or damaged, or FOLDER cannot be written.
set -u

SUMS=@SUMS@

fail() {
    echo "error: $*" >&2
    exit 2
}

digest() {
    sum=$(sha256sum < "$1") || fail "cannot read $1"
    echo "${sum%% *}"
}

# Every piece that is wrong is named, not the first alone: to carry one over takes a while.
verify() {
    wrong=0
    while read -r sum name; do
        if [ ! -f "$here/$name" ]; then
            echo "error: $name is missing" >&2
        elif [ "$(digest "$here/$name")" != "$sum" ]; then
            echo "error: $name is damaged" >&2
        else
            continue
        fi
        wrong=$((wrong + 1))
    done < "$here/SHA256SUMS"
    [ "$wrong" -eq 0 ] || fail "$wrong of the pieces must be copied again; nothing was unpacked"
}

join() {
    while read -r sum name; do
        cat "$here/$name" || exit 2
    done < "$here/SHA256SUMS"
}

unpack() {
    part=$1.$$.part
    trap 'rm -rf "$part"' EXIT
    trap 'exit 130' HUP INT TERM
    mkdir -p "$part" || fail "cannot write $1"
    # Without --no-same-owner root would get files of whoever has number 0 here; -o is its portable spelling.
    join | tar -x -o -f - -C "$part" || fail "cannot unpack into $1; is the disk full?"
    [ ! -d "$1" ] || rmdir "$1" || fail "$1 was filled meanwhile"
    mv "$part" "$1" || fail "cannot write $1"
}

# One function, called in the last line: of a script that was cut short nothing runs.
main() {
    [ $# -eq 1 ] && [ -n "$1" ] || fail "give the folder to unpack into: sh unpack.sh FOLDER"
    for tool in sha256sum cat tar; do
        command -v "$tool" > /dev/null || fail "$tool is not installed"
    done
    here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || fail "cannot find the pieces"
    case $1 in /*) to=${1%/} ;; *) to=$PWD/${1%/} ;; esac
    if [ -e "$to" ]; then
        [ -d "$to" ] || fail "$to is a file"
        [ -z "$(ls -A "$to")" ] || fail "$to holds files already; give a new folder"
    fi
    [ -f "$here/SHA256SUMS" ] || fail "SHA256SUMS is missing"
    [ "$(digest "$here/SHA256SUMS")" = "$SUMS" ] || fail "SHA256SUMS is damaged"
    verify
    unpack "$to"
    echo "unpacked into $to"
    if [ -d "$to/wheels" ]; then
        echo "install what it needs, without a network:"
        echo "  pip install --no-index --find-links '$to/wheels' '$to/wheels'/*.whl"
    fi
}

main "$@"
