# Shows what the script and its helpers say, each between marks. Arguments: install directory, terminal or empty.
dir=$1 terminal=$2
export dir
mark() { printf '\nkwdb-scale %s\n' "$1"; }
mark status
"$dir/deploy.sh" status </dev/null 2>&1
mark exit $?
mark cluster
if [ -n "$terminal" ]; then
  script -qec 'exec "$dir/deploy.sh" cluster --status' /dev/null </dev/null 2>&1
else
  "$dir/deploy.sh" cluster --status </dev/null 2>&1
fi
mark kw-status
# Its first line is empty, so that only a shell can run it.
if command -v kw-status >/dev/null 2>&1; then sh -c kw-status </dev/null 2>&1; fi
mark progress
head -c 64 "$dir/decommission_progress" 2>/dev/null
mark end
