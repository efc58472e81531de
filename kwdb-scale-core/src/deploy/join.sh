# Runs deploy.sh join with the certificates, the unit and MODE kept aside, and puts them back when no node came of it.
# It is started detached and goes on by itself: it ends when the truth is known.
# Arguments: install directory, IP:PORT to join, tls or empty, directory of the archive, root of the tree, keep or empty
# (the CA's key and the archive), terminal or empty, output file, seconds after which nobody reads that, shell line that asks the new node
# for its status; then more members to write into the unit.
dir=$1 addr=$2 secure=$3 ca=$4 top=$5 keep=$6 terminal=$7 output=$8 read_for=$9
shift 9
status=$1
shift
tree "$top"
began=$(date +%s)

keep_aside() {
  $root sh -c 'umask 077 && mkdir "$1" && cp -a "$2" "$1/service" && cp -a "$3" "$1/MODE" &&
    if [ -d "$4" ]; then cp -a "$4" "$1/certs"; fi && : >"$1/complete"' sh "$kept" "$service" "$mode" "$certs"
}
# What a join that was cut off left.
if [ -e "$kept/complete" ]; then
  put_back || { echo "kwdb-scale failed what an earlier join kept in $kept could not be put back"; exit 96; }
fi
$root rm -rf "$kept"
keep_aside || {
  $root rm -rf "$kept"
  echo "kwdb-scale failed the certificates and the unit could not be kept aside in $kept"
  exit 96
}

# The script's prompt for the directory is answered through its standard input. It reads nothing else.
export dir addr
run='exec "$dir/deploy.sh" join --addr "$addr"'
[ -z "$secure" ] || run="$run --tls"
before=$(unit ExecMainStartTimestampMonotonic)
# Whether the unit's process was started since. While systemd reloads it may not answer, and of a unit that it has
# forgotten it tells 0: neither is a start.
started() {
  at=$(unit ExecMainStartTimestampMonotonic)
  [ "${at:-0}" != 0 ] && [ "$at" != "$before" ]
}
if [ -n "$terminal" ]; then
  # docker wants a terminal.
  printf '%s\n' "$ca" | script -qec "$run" /dev/null &
else
  printf '%s\n' "$ca" | sh -c "$run" &
fi
script=$!
# The script asks a node that died for its status for ten minutes more. That is cut short.
dead=
while kill -0 "$script" 2>/dev/null; do
  if started && [ "$(unit MainPID)" = 0 ]; then
    dead=yes
    end_runs "$dir" join
    kill "$script" 2>/dev/null
    break
  fi
  sleep 1
done
wait "$script"
echo "kwdb-scale exit $?"

# The script's word is not taken: the node itself tells whether it is in a cluster, and the unit whether it runs.
joined= tries=0
while [ -z "$dead" ]; do
  main=$(unit MainPID)
  [ "${main:-0}" != 0 ] || { dead=yes; break; }
  if eval "$status" >/dev/null 2>&1; then joined=yes; break; fi
  tries=$((tries + 1))
  [ "$tries" -le 300 ] || break
  sleep 2
done
# Its certificates are made: nobody needs the archive with the CA's private key any more.
if [ -z "$dead" ] && [ -n "$secure" ] && [ -z "$keep" ]; then
  $root rm -f "$certs/ca.key" "$ca/kaiwudb_certs.tar.gz"
fi
if [ "$joined" = yes ]; then
  others_back
  $root rm -rf "$kept" "${service}q"
  for more do
    $root sed -i "s|^ExecStart=.*|& --join $more|" "$service"
  done
  [ $# = 0 ] || $root systemctl daemon-reload
elif [ -n "$dead" ]; then
  if started; then echo 'kwdb-scale died'; fi
  $root journalctl -u kaiwudb -n 12 -o cat 2>/dev/null | sed 's/^/kwdb-scale log /'
  put_back || echo "kwdb-scale failed certificates, unit and MODE could not be put back from $kept"
fi
if [ "$joined" = yes ] || [ $(($(date +%s) - began)) -gt "$read_for" ]; then rm -f "$output"; fi
[ "$joined" = yes ]
