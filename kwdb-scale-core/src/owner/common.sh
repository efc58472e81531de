# Arguments 1 to 3: systemd or container, the name of the unit or container, the engine.
kind=$1 name=$2 engine=$3
shift 3
root=
[ "$(id -u)" = 0 ] || root='sudo -n'

# One line for the reader, whatever is in it.
say() { printf 'kwdb-scale %s\n' "$(printf '%s' "$*" | tr '\n\r\t' '   ' | cut -c 1-4000)"; }
end() { say end; exit 0; }

# A property of the unit.
unit() { systemctl show -p "$1" "$name" 2>/dev/null | sed -n "s/^$1=//p"; }

# A field of the container, or why the engine does not tell it. Engines warn before they answer.
inside() (
  said=$($as "$engine" inspect --type container -f "$1" "$name" 2>&1 </dev/null)
  code=$?
  printf '%s\n' "$said" | tail -n 1
  exit "$code"
)
# A rootless container is its user's, and whoever is in docker's group needs nobody else: root is asked for what the
# user's own engine does not have.
as=
[ "$kind" != container ] || [ -z "$root" ] || inside '{{.Id}}' >/dev/null || as=$root

# The process of the node's owner: a number, 0 for none, - when there is no such unit or container, ? and the reason
# when that is unclear.
pid() {
  if [ "$kind" = systemd ]; then
    loaded=$(unit LoadState)
    [ "$loaded" != not-found ] || { echo -; return; }
    p=$(unit MainPID)
    case $p in '' | *[!0-9]*) p='systemctl does not tell it' ;; esac
  else
    p=$(inside '{{.State.Pid}}')
    code=$?
    # Only this: a socket or a file of the engine's own may be missing, too.
    case $p in *[Nn]'o such container'* | *[Nn]'o such object'*) echo -; return ;; esac
    [ "$code" != 127 ] || p="there is no program $engine; check engine"
    [ -n "$p" ] || p="$engine ended with $code"
  fi
  case $p in *[!0-9]*) echo "? $p" ;; *) echo "$p" ;; esac
}

# Its state, where it has no process: 'down' when it is at rest.
state() {
  if [ "$kind" = systemd ]; then s=$(unit ActiveState); else s=$(inside '{{.State.Status}}'); fi
  case $s in
  inactive | failed) [ "$kind" != systemd ] || s=down ;;
  created | configured | initialized | exited | stopped | dead) [ "$kind" = systemd ] || s=down ;;
  esac
  echo "$s"
}
