# Runs deploy.sh decommission. It is started detached, so that the loop which the script leaves behind neither keeps the
# caller waiting nor dies with it. Arguments: install directory, terminal or empty.
dir=$1 terminal=$2
# The script does not remove what an earlier run wrote.
$root rm -f "$dir/decommission_progress"
if [ -n "$terminal" ]; then
  export dir
  exec script -qec 'exec "$dir/deploy.sh" decommission' /dev/null
fi
exec "$dir/deploy.sh" decommission
