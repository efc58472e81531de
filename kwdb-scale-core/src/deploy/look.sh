# Looks at an installation and changes nothing. Arguments: install directory, directory of the archive or empty, root of the
# tree. Items: S root or sudo without a password (0: no sudo at all, which the script calls as root too), D deploy.sh, I unit,
# L what its file starts, V what the variable in there stands for, N what systemd would start, M MODE, P main process, W the
# directory of certificates, A and C the archive, K key of an encrypted store, T script(1), H the user of line 7 is known there;
# E is the end.
dir=$1 ca=$2 top=$3
service=$top/etc/systemd/system/kaiwudb.service
has() { if [ "$2" "$3" ]; then emit "$1+"; else emit "$1-"; fi; }
if [ "$may_root" != yes ]; then emit S-
elif [ -z "$top" ] && ! command -v sudo >/dev/null 2>&1; then emit S0
else emit S+; fi
has D -x "$dir/deploy.sh"
has I -e "$service"
# A setting of a file, the last of several.
setting() { sed -n "s/^$1=//p" "$2" 2>/dev/null | tail -n 1 | head -c 4096 | tr -d '\000'; }
if [ -r "$service" ]; then
  emit "L$(setting ExecStart "$service")"
  environment=$(setting EnvironmentFile "$service")
  environment=${environment#-}
  if [ -r "$environment" ]; then emit "V$(setting KAIWUDB_START_ARG "$environment")"; fi
fi
if [ -r "$top/etc/kaiwudb/info/MODE" ]; then
  emit "M$(head -c 4096 "$top/etc/kaiwudb/info/MODE" | tr -d '\000')"
  # A tree in a directory is not of this machine's users.
  if [ -n "$top" ] || id -u -- "$(sed -n 7p "$top/etc/kaiwudb/info/MODE" | head -c 256)" >/dev/null 2>&1; then emit H+; else emit H-; fi
fi
shown=$(bound systemctl show -p MainPID -p ExecStart kaiwudb 2>/dev/null)
emit "P$(printf '%s\n' "$shown" | sed -n 's/^MainPID=//p')"
emit "N$(printf '%s\n' "$shown" | sed -n 's/^ExecStart=//p' | head -c 8192)"
has W -d "$top/etc/kaiwudb/certs"
[ -z "$ca" ] || archive "$ca/kaiwudb_certs.tar.gz"
has K -e "$top/etc/kaiwudb/certs/sm4.key"
if command -v script >/dev/null 2>&1; then emit T+; else emit T-; fi
emit E
