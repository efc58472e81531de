root=
[ "$(id -u)" = 0 ] || root='sudo -n'
# A property of the unit.
unit() { systemctl show -p "$1" kaiwudb 2>/dev/null | sed -n "s/^$1=//p"; }
# Ends every process of a run of the script, which is told by its command line: $1 install directory, $2 sub-command.
end_runs() {
  for process in /proc/[0-9]*; do
    line=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) || continue
    case $line in "/bin/bash $1/deploy.sh $2 "*) $root kill "${process#/proc/}" 2>/dev/null ;; esac
  done
}
# The places of an installation, by the root of its tree.
tree() {
  certs=$1/etc/kaiwudb/certs
  service=$1/etc/systemd/system/kaiwudb.service
  mode=$1/etc/kaiwudb/info/MODE
  kept=$1/etc/kaiwudb/before-join
}
# Puts back what a join kept aside.
put_back() {
  $root sh -c 'cp -a "$1/service" "$2" && cp -a "$1/MODE" "$3" &&
    if [ -d "$1/certs" ]; then rm -rf "$4.gone" && { [ ! -e "$4" ] || mv "$4" "$4.gone"; } && cp -a "$1/certs" "$4" &&
      rm -rf "$4.gone"
    else rm -f "$4/ca.key" "$4/ca.crt" "$4/node.key" "$4/node.crt" "$4/client.root.key" "$4/client.root.crt"; fi &&
    rm -rf "$1" "$2q"' sh "$kept" "$service" "$mode" "$certs" &&
    $root systemctl daemon-reload
}
# The script deletes everything in the directory; what is none of what it makes belongs to somebody.
others_back() {
  $root sh -c 'cd "$1" 2>/dev/null || exit 0
    for file in .[!.]* *; do
      case $file in ca.crt | ca.key | node.crt | node.key | client.root.* | *.tar.gz) continue ;; esac
      [ ! -e "$file" ] || [ -e "$2/$file" ] || cp -a "$file" "$2/" || exit 1
    done' sh "$kept/certs" "$certs"
}
