#!/bin/sh
# nixpkgs' makeWrapper, in part: puts a script in a program's place that adds to the end of its PATH.

wrapProgram() {
    [ "$2 $3 $4" = "--suffix PATH :" ] || return 2
    wrapped="${1%/*}/.${1##*/}-wrapped"
    mv "$1" "$wrapped"
    # As with nixpkgs', the program has the wrapper's name.
    # shellcheck disable=SC2016 # It is the wrapper that expands them.
    printf '#!/bin/bash\nexport PATH="$PATH:%s"\nexec -a "$0" "%s" "$@"\n' "$5" "$wrapped" >"$1"
    chmod +x "$1"
}
