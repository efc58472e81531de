# Arguments 1 to 3: systemd or container, the name of the unit or container, the engine.
kind=$1 name=$2 engine=$3
shift 3
root=
[ "$(id -u)" = 0 ] || root='sudo -n'

# One line for the reader, whatever is in it.
say() { printf 'kwdb-scale %s\n' "$(printf '%s' "$*" | tr '\n\r\t' '   ' | cut -c 1-600)"; }
end() { say end; exit 0; }

# A property of the unit.
unit() { systemctl show -p "$1" "$name" 2>/dev/null | sed -n "s/^$1=//p"; }

# The process of the node's owner: a number, 0 for none, - when there is no such unit or container, ? when unclear.
pid() {
  if [ "$kind" = systemd ]; then
    loaded=$(unit LoadState)
    [ "$loaded" != not-found ] || { echo -; return; }
    p=$(unit MainPID)
  else
    p=$($root "$engine" inspect -f '{{.State.Pid}}' "$name" 2>/dev/null) || {
      $root "$engine" version >/dev/null 2>&1 && echo - || echo '?'
      return
    }
  fi
  case $p in '' | *[!0-9]*) echo '?' ;; *) echo "$p" ;; esac
}
