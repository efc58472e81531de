# Looks for what a deploy.sh join that was cut off left, and takes it back when asked to. Arguments: look or take-back,
# install directory, root of the tree, keep or empty (the CA's key). Items of the answer end with a NUL byte: L and a path
# that is left; E is the end.
verb=$1 dir=$2 top=$3 keep=$4
tree "$top"
if [ "$verb" = take-back ] && $root test -e "$kept"; then
  main=$(unit MainPID)
  case $main in
    '') echo 'systemctl does not tell whether kaiwudb runs' >&2; exit 1 ;;
    0) if $root test -e "$kept/complete"; then put_back; else $root rm -rf "$kept"; fi || exit 1 ;;
    # The node goes on with what the join made.
    *) others_back && { [ -n "$keep" ] || $root rm -f "$certs/ca.key"; } && $root rm -rf "$kept" "${service}q" || exit 1 ;;
  esac
  rm -f "$dir/kwdb-scale.join.out"
fi
if $root test -e "$kept"; then
  printf 'L%s\0' "$kept"
  if $root test -e "$certs/ca.key"; then printf 'L%s\0' "$certs/ca.key"; fi
fi
printf 'E\0'
