#! /bin/bash
# A stand-in for KWDB's deploy.sh, for tests: it behaves as the documented one does, its faults included. What it has of
# the real one is its words, its files, its order and its exit codes. It installs nothing.
# Made for @RELEASE@. The tree of the host lies under '@ROOT@'.

# Fault: a directory with a blank in its name breaks here.
here=$(cd $(dirname $0);pwd)
top='@ROOT@'
info=$top/etc/kaiwudb/info
certs=$top/etc/kaiwudb/certs
service=$top/etc/systemd/system/kaiwudb.service
if [ -n "$top" ]; then
  as() { "$@"; }
  as_user() { "$@"; }
  ctl() { "$top/usr/bin/systemctl" "$@"; }
else
  as() { sudo "$@"; }
  as_user() { sudo -u "$(line 7)" "$@"; }
  ctl() { sudo systemctl "$@"; }
fi

line() { sed -n "$1p" "$info/MODE"; }
security() { if [ "$(line 8)" = tls ]; then echo "--certs-dir=$certs"; else echo --insecure; fi; }
kwbase() { cd "$top/usr/local/kaiwudb/bin" && as_user ./kwbase "$@"; }

# Errors go to standard output, in red, behind a line of blanks that a carriage return takes back. Fault: one that cannot be
# written into the log is not printed either.
error() {
  local text="[ERROR] $(date '+%Y-%m-%d %H:%M:%S') $*"
  printf '%100s\r' ''
  echo $text >>$log && echo -e "\033[31m" ${text} "\033[0m"
}
done_with() { echo -e "\e[1;32m[$1 COMPLETED]:\e[0m$2"; }

usage() {
  echo "Usage:
  deploy.sh Commands [Options]

Commands:
  install                  Install KaiwuDB
  uninstall                Uninstall KaiwuDB in local node
  cluster                  Cluster operate
  start                    Start KaiwuDB in local node
  stop                     Stop KaiwuDB in local node
  restart                  Restart KaiwuDB in local node
  status                   Get local node KaiwuDB status
Options:
  -h, --help
"
  # Fault: what is not understood is a success.
  exit 0
}

# The prompt is shown only on a terminal; the answer is read from standard input in any case.
may_sudo() {
  local password
  if [ -n "$top" ]; then
    [ -n '@PASSWORD@' ] || return 0
    read -s -t60 -p "Please input $(whoami)'s password: " password
    echo
    [ "$password" = '@PASSWORD@' ] && return 0
  else
    if [ "$(whoami)" = root ] || timeout --foreground -k 1 1s sudo -s -p "" exit >/dev/null 2>&1; then
      # root too goes through sudo.
      sudo bash -c "exit" >/dev/null 2>&1 && return 0
      echo -e "\033[31m[ERROR]\033[0m Can not use command: 'sudo bash'." >&2
      exit 1
    fi
    read -s -t60 -p "Please input $(whoami)'s password: " password
    echo
    echo "$password" | sudo -S -p "" -k -s >/dev/null 2>&1 && return 0
  fi
  echo -e "\033[31m[ERROR]\033[0m Incorrect password." >&2
  exit 1
}

installed() {
  [ -e "$service" ] || { error "KaiwuDB does not exist. Please install KaiwuDB first."; exit 1; }
}
running() {
  if [ "$(line 1)" = container ]; then
    case $(docker ps -a --filter name=kaiwudb-container --format '{{.Status}}') in Up*) return 0 ;; esac
    return 1
  fi
  [ "$(ctl show --property MainPID --value kaiwudb)" -ne 0 ]
}
node_status() {
  if [ "$(line 1)" = container ]; then
    docker exec -it kaiwudb-container bash -c "./kwbase node status $(inside)"
  else
    kwbase node status "$@" --host=127.0.0.1:$(line 5) $(security)
  fi
}
# What is asked for its numbers is asked without a terminal.
numbers() {
  if [ "$(line 1)" = container ]; then
    docker exec kaiwudb-container bash -c "./kwbase node status $* $(inside)"
  else
    node_status "$@"
  fi
}
inside() { if [ "$(line 8)" = tls ]; then echo "--certs-dir=/kaiwudb/certs"; else echo --insecure; fi; }

ipv4() {
  local n parts
  IFS=. read -r -a parts <<<"${1%%:*}"
  [ ${#parts[@]} = 4 ] || return 1
  for n in "${parts[@]}"; do [[ $n =~ ^[0-9]{1,3}$ ]] && [ "$n" -le 255 ] || return 1; done
}

make_certs() {
  local dir
  read -t60 -p "Please input directory where the CA is stored :" -e dir
  [ -e $dir/kaiwudb_certs.tar.gz ] || { echo "$dir/kaiwudb_certs.tar.gz: No such file."; return 1; }
  # Fault: whatever lies there is gone, the key of an encrypted store too.
  as rm -rf "$certs"/*
  as tar -xzf $dir/kaiwudb_certs.tar.gz -C "$certs" 2>&1 || return 1
  kwbase cert create-node $(line '$') ${1%:*} 127.0.0.1 0.0.0.0 localhost --certs-dir="$certs" --ca-key="$certs/ca.key" 2>&1 || return 1
  kwbase cert create-client root --certs-dir="$certs" --ca-key="$certs/ca.key" 2>&1 || return 1
  as chmod 700 "$certs"/*.key
  as chmod 644 "$certs"/*.crt
}

start() {
  ctl daemon-reload
  ctl start kaiwudb >/dev/null 2>&1 || return 1
  sleep @GRACE@
  local count=0
  until [ $count -gt 300 ]; do
    # Fault, before V3.1.0: the first try counts as a success, whatever it says.
    if node_status >/dev/null 2>&1 || [ '@WAITS@' = no ]; then return 0; fi
    ((count++))
    sleep @PAUSE@
  done
  return 1
}

join() {
  local addr= mode=insecure why
  while [ $# -gt 0 ]; do
    case $1 in
      --addr) ipv4 "$2" || { echo "Invalid parameter"; exit 1; }; addr=$2; shift 2 ;;
      --tls) [ '@TLS@' = yes ] || usage; mode=tls; shift ;;
      *) usage ;;
    esac
  done
  [ -n "$addr" ] || { echo "Miss option --addr"; exit 1; }
  prepare
  installed
  case $(line 2) in
    single-replication | multi-replication) ;;
    *) error "The current mode is not supported join a cluster."; exit 1 ;;
  esac
  running && { error "KaiwuDB already running."; exit 1; }
  if [ $mode = tls ]; then
    why=$(make_certs "$addr") || { error "Join failed: $why"; exit 1; }
  fi
  # Fault: -q is taken for a suffix, and the list grows at every run. What was chosen at the installation (secure or
  # not) stays.
  as sed -iq "s/--join $(line '$'):$(line 5)//" "$service"
  as sed -iq "s/^ExecStart=.*/& --join $addr /" "$service"
  if ! $(start >/dev/null 2>&1); then
    error "Start KaiwuDB failed. For more information, check kwbase's log."
    exit 1
  fi
  if ! $(node_status >/dev/null 2>&1); then
    error "Join to cluster failed. For more information, check kwbase's log."
    exit 1
  fi
  as sed -i "8c $mode" "$info/MODE"
  done_with JOIN "Node has been joined to the cluster successfully."
  exit 0
}

# Fault: any failure, and any text that is no number, writes 0 and ends. Fault: it holds the caller's descriptors.
watch_decommission() {
  local left
  while true; do
    left=$(numbers $1 --decommission | awk -F" " 'NR!=1{print $13}')
    if [ $left -ne 0 ]; then
      as bash -c "echo $left >$here/decommission_progress"
    else
      as bash -c "echo 0 >$here/decommission_progress"
      break
    fi
    sleep 2
  done
}

# Every node at this address, whatever its port (a fault). Fault: where the cluster does not tell, its error is taken for
# the numbers.
node_ids() {
  local text
  text=$(numbers 2>&1) || { echo "$text"; return; }
  echo $(numbers | awk -F" " -v ip=$(line '$') 'NR!=1{split($3,arr,":");if(arr[1]==ip){print $1}}')
}

decommission() {
  prepare
  installed
  running || { error "KaiwuDB is not running, please start KaiwuDB first."; exit 1; }
  local ids why
  ids=$(node_ids)
  if [ "$(line 1)" = container ]; then
    why=$(docker exec -it kaiwudb-container bash -c "./kwbase node decommission $ids $(inside) --wait=none" 2>&1)
  else
    # Fault: whatever stands in the numbers is part of a shell text.
    why=$(cd "$top/usr/local/kaiwudb/bin" &&
      as_user bash -c "./kwbase node decommission $ids $(security) --wait=none --host=127.0.0.1:$(line 5)" 2>&1)
  fi
  if [ $? -ne 0 ]; then
    error "Decommission from cluster failed: "$why
    exit 1
  fi
  watch_decommission $ids &
  done_with DECOMMISSION "Decommission complete. Please wait a few minutes to check whether decommission from cluster succeeded."
  exit 0
}

# sudo, and the log of the day, which is the user's who runs the script as the day's first. Fault, before V3.1.0: it is
# made without sudo.
prepare() {
  local me=$(whoami) by=as
  may_sudo
  [ '@LOG_BY_SUDO@' = yes ] || by=
  log=$here/log/$(date '+%Y-%m-%d')
  if [ ! -e "$here/log" ]; then
    $by mkdir -p "$here/log"
    as chown -R "$me:$me" "$here/log"
    as chmod 755 "$here/log"
  fi
  if [ ! -e "$log" ]; then
    $by touch "$log"
    as chown "$me:$me" "$log"
    as chmod 755 "$log"
  fi
}

command=$1
shift
case $command in
  join) join "$@" ;;
  decommission) decommission "$@" ;;
  cluster)
    case $1 in -s | --status) ;; *) usage ;; esac
    prepare
    installed
    running || { error "KaiwuDB is not running."; exit 1; }
    node_status
    # Fault: whatever that came to.
    exit 0
    ;;
  status)
    prepare
    installed
    if running; then
      done_with STATUS "KaiwuDB is runnning now."
    else
      done_with STATUS "KaiwuDB is not runnning."
    fi
    exit 0
    ;;
  start)
    prepare
    installed
    running && { error "KaiwuDB is runnning now."; exit 1; }
    $(start >/dev/null 2>&1) || { error "Start KaiwuDB failed. For more information, check kwbase log."; exit 1; }
    done_with START "KaiwuDB start successfully."
    ;;
  stop)
    prepare
    installed
    running || { error "KaiwuDB is not runnning now."; exit 1; }
    ctl stop kaiwudb || { error "Stop KaiwuDB failed. For more information, use 'journalctl -u kaiwudb' to view the system logs."; exit 1; }
    done_with STOP "KaiwuDB stop successfully."
    ;;
  *) usage ;;
esac
