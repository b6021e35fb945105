# Tries three things that an agent has no business doing, and says how each went.
#   sh probe.sh FILE_OF_THE_HOST PORT_OF_THE_HOST PATH_OUTSIDE
say() { printf 'probe %s: %s\n' "$1" "$2"; }
because() { grep . "$log" | tail -n 1 | sed 's/.*[:=] *//'; }
log=${TMPDIR:-/tmp}/probe.$$

if cat "$1" >"$log" 2>&1; then say read "done, it says $(cat "$log")"; else say read "refused, $(because)"; fi
if git ls-remote "git://127.0.0.1:$2/x" >"$log" 2>&1; then say network done; else say network "refused, $(because)"; fi
if (echo written >"$3") 2>"$log"; then say write done; else say write "refused, $(because)"; fi
rm -f "$log"
