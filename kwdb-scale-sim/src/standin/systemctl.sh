#!/bin/sh
# A stand-in for systemctl on a host without systemd, for tests: one service, started as a process group of its own.
# The tree of the host lies under '@ROOT@'.
top='@ROOT@'
run=$top/run/kwdb-scale-standin
wants=$top/etc/systemd/system/multi-user.target.wants
mkdir -p "$run"

die() { echo "$2" >&2; exit "$1"; }

verb= props= value= name=
while [ $# -gt 0 ]; do
  case $1 in
  -p | --property) props="$props $2"; shift ;;
  --property=*) props="$props ${1#*=}" ;;
  --value) value=yes ;;
  --now | --quiet | -q | --no-pager | --) ;;
  -*) die 1 "systemctl: unrecognized option '$1'" ;;
  *) if [ -z "$verb" ]; then verb=$1; else name=${1%.service}; fi ;;
  esac
  shift
done
unit=$top/etc/systemd/system/$name.service
state=$run/$name

setting() { sed -n "s/^$1=//p" "$unit" 2>/dev/null | tail -n 1; }
exists() { [ -f "$unit" ]; }
must_exist() { exists || die 5 "Failed to $verb $name.service: Unit $name.service not found."; }

# A process that is dead and was not reaped by anybody is gone.
lives() {
  [ -n "$1" ] && [ "$1" != 0 ] && [ -d "/proc/$1" ] || return 1
  case $(sed -n 's/^State:[^A-Z]*\([A-Z]\).*/\1/p' "/proc/$1/status" 2>/dev/null) in '' | Z | X) return 1 ;; esac
}
main_pid() {
  pid=$(cat "$state.pid" 2>/dev/null)
  if lives "$pid"; then echo "$pid"; else echo 0; fi
}
active() {
  if [ "$(main_pid)" != 0 ]; then echo active
  elif [ -e "$state.keeper" ] && lives "$(cat "$state.keeper")"; then echo activating
  elif [ -e "$state.failed" ]; then echo failed
  else echo inactive; fi
}

# Runs what the unit says, once. Its own user where there are users.
launch() {
  environment=$(setting EnvironmentFile)
  [ -z "$environment" ] || { [ -r "$environment" ] && . "$environment"; }
  directory=$(setting WorkingDirectory)
  cd "${directory:-/}" || return 1
  for pre in $(seq "$(grep -c '^ExecStartPre=' "$unit")"); do
    line=$(sed -n 's/^ExecStartPre=//p' "$unit" | sed -n "${pre}p")
    eval "$line" >>"$state.log" 2>&1 || return 1
  done
  user=$(setting User)
  as=
  if [ -z "$top" ] && [ "$(id -u)" = 0 ] && [ -n "$user" ] && [ "$user" != root ]; then
    as="setpriv --reuid=$user --regid=$(id -g "$user") --init-groups"
  fi
  rm -f "$state.pid"
  # The group's number is the main process's, which is written down by root before the unit's user takes over.
  eval "exec setsid sh -c 'echo \$\$ >\"\$0\"; exec \"\$@\"' '$state.pid' $as $(setting ExecStart)" </dev/null >>"$state.log" 2>&1 &
  child=$!
  while [ ! -s "$state.pid" ] && lives "$child"; do sleep 0.02; done
  # After the process: nobody must see that it was started and take it for one that ended.
  date +%s%N | cut -c 1-16 >"$state.started"
}

start() {
  [ "$(main_pid)" = 0 ] || return 0
  rm -f "$state.failed" "$state.stopping"
  case $(setting Restart) in
  '' | no) launch ;;
  *)
    # Started again as often as it ends, until it is stopped.
    (
      while [ ! -e "$state.stopping" ]; do
        launch
        while lives "$(cat "$state.pid" 2>/dev/null)"; do sleep 0.05; done
        [ -e "$state.stopping" ] || sleep 0.1
      done
    ) </dev/null >/dev/null 2>&1 &
    echo $! >"$state.keeper"
    sleep 0.3
    ;;
  esac
}

stop() {
  : >"$state.stopping"
  MAINPID=$(main_pid)
  if [ "$MAINPID" != 0 ]; then
    pre=$(setting ExecStop)
    if [ -n "$pre" ]; then eval "$pre"; else kill "$MAINPID"; fi
    limit=$(setting TimeoutStopSec)
    limit=$((${limit:-90} * 20))
    while lives "$MAINPID" && [ $limit -gt 0 ]; do limit=$((limit - 1)); sleep 0.05; done
    if lives "$MAINPID"; then
      kill -KILL -- "-$MAINPID" 2>/dev/null
      : >"$state.failed"
      while lives "$MAINPID"; do sleep 0.05; done
    fi
    # KillMode=control-group.
    kill -KILL -- "-$MAINPID" 2>/dev/null
  fi
  rm -f "$state.pid" "$state.keeper"
}

property() {
  case $1 in
  LoadState) if exists; then echo loaded; else echo not-found; fi ;;
  MainPID) main_pid ;;
  ActiveState) active ;;
  SubState) if [ "$(main_pid)" != 0 ]; then echo running; else echo dead; fi ;;
  UnitFileState) if [ -e "$wants/$name.service" ]; then echo enabled; elif exists; then echo disabled; fi ;;
  # As whom `launch` starts it.
  User) if [ -z "$top" ]; then setting User; fi ;;
  ExecMainStartTimestampMonotonic) cat "$state.started" 2>/dev/null || echo 0 ;;
  ExecStart)
    words=$(setting ExecStart)
    echo "{ path=${words%% *} ; argv[]=$words ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=$(main_pid) ; code=(null) ; status=0/0 }"
    ;;
  esac
}

case $verb in
daemon-reload) ;;
start) must_exist; start ;;
stop) must_exist; stop ;;
restart) must_exist; stop; start ;;
enable) must_exist; mkdir -p "$wants"; ln -sf "$unit" "$wants/$name.service" ;;
disable) must_exist; rm -f "$wants/$name.service" ;;
is-active) active; [ "$(active)" = active ] || exit 3 ;;
is-enabled)
  must_exist
  property UnitFileState
  [ "$(property UnitFileState)" = enabled ] || exit 1
  ;;
status)
  exists || die 4 "Unit $name.service could not be found."
  echo "● $name.service - $(setting Description)"
  echo "     Loaded: loaded ($unit; $(property UnitFileState); preset: enabled)"
  echo "     Active: $(active) ($(property SubState))"
  [ "$(main_pid)" = 0 ] || echo "   Main PID: $(main_pid)"
  [ "$(active)" = active ] || exit 3
  ;;
show)
  # Also of a unit that does not exist, with exit code 0.
  for p in $props; do
    if [ -n "$value" ]; then property "$p"; else echo "$p=$(property "$p")"; fi
  done
  ;;
*) die 1 "Unknown command verb '$verb'." ;;
esac
