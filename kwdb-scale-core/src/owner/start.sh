# Arguments: look or start, and for how many seconds the process is watched after a start.
act=$1 settle=$2

main=$(pid)
case $main in
-) say absent "$kind $name"; end ;;
'?'*) say failed "its process could not be told: ${main#??}"; end ;;
esac
if [ "$act" = look ]; then
  say pid "$main"
  if [ "$kind" = systemd ]; then
    say command "$(unit ExecStart)"
  else
    say command "$(inside '{{json .Path}} {{json .Args}}')"
  fi
  end
fi
if [ "$kind" = systemd ]; then
  said=$($root systemctl start "$name" 2>&1)
else
  said=$($as "$engine" start "$name" 2>&1 </dev/null)
fi
code=$?
[ "$code" = 0 ] || { say failed "the start ended with $code: $said"; end; }
# A unit of type simple counts as started whatever becomes of its process.
while :; do
  main=$(pid)
  [ "$main" != 0 ] || break
  [ "$settle" -gt 0 ] || break
  settle=$((settle - 1))
  sleep 1
done
case $main in
0 | -)
  if [ "$kind" = systemd ]; then
    said=$($root journalctl -u "$name" -n 12 -o cat 2>/dev/null)
  else
    said=$($as "$engine" logs --tail 12 "$name" 2>&1 </dev/null)
  fi
  say failed "its process ended at once: $said"
  end
  ;;
'?'*) say failed "it was started, and its process could not be told: ${main#??}"; end ;;
esac
say pid "$main"
end
