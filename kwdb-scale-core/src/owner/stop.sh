# Arguments: node id, its address, the shell lines that ask a survivor for its status and its count, seconds of grace.
id=$1 address=$2 status=$3 count=$4 grace=$5

# Whether the process is the node's: its command line names the address, or the address is one of this machine's.
ours() {
  line=" $(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null) "
  case $line in *[=\ ]"$address"[\ ]*) return 0 ;; esac
  h=${address%:*}
  [ "$h" = "$(uname -n)" ] && return 0
  [ "$h" = "$(hostname -f 2>/dev/null)" ] && return 0
  # Every machine has the loopback addresses: they tell nothing.
  case $h in 127.* | localhost | '[::1]') return 1 ;; esac
  for a in $(hostname -I 2>/dev/null) $(awk '/\|-- /{ip=$2} /host LOCAL/{print ip}' /proc/net/fib_trie 2>/dev/null); do
    [ "$a" = "$h" ] || [ "[$a]" = "$h" ] && return 0
  done
  return 1
}

# Of a table in csv: field $1 of the row of our node, counted from the right end, because a locality before it may
# hold commas. Nothing when there is not exactly one such row.
field() {
  awk -F, -v id="$id" -v name="$1" '
    from == "" && $1 == "id" { for (i = 1; i <= NF; i++) if ($i == name) from = NF - i; next }
    $1 == id && from != "" { rows++; value = $(NF - from) }
    END { if (rows == 1) print value }'
}

# Takes the restart policy away. Fails with the engine's words.
unpolicy() {
  case $policy in '' | no) return 0 ;; esac
  [ -z "$kept" ] || { say kept "$policy"; return 0; }
  said=$($as "$engine" update --restart=no "$name" 2>&1 </dev/null)
}

disable() {
  case $(systemctl is-enabled "$name" 2>/dev/null) in
  enabled | enabled-runtime)
    $root systemctl disable "$name" >/dev/null 2>&1 || {
      say failed "it is stopped, and could not be disabled: a reboot would bring it back; run systemctl disable $name"
      end
    }
    ;;
  esac
}

main=$(pid)
case $main in
-) say absent "$kind $name"; end ;;
'?'*) say unclear "its process could not be told: ${main#??}"; end ;;
esac
if [ "$kind" = container ]; then
  returns "$name" $as "$engine"
  [ -z "$again" ] || { say refused "something would start it again: $again"; end; }
fi
if [ "$main" = 0 ]; then
  state=$(state)
  [ "$state" = down ] || { say passing "$state just now"; end; }
  say down
  if [ "$kind" = systemd ]; then disable
  else unpolicy || say failed "it does not run, and its restart policy could not be set to no: $said"; fi
  end
fi
ours "$main" || {
  say refused "process $main does not look like the node at $address: check which host the node runs on"
  end
}

table=$(eval "$status" 2>&1) || { say unasked "a survivor did not tell the status of node $id: $table"; end; }
where=$(printf '%s\n' "$table" | awk -F, -v id="$id" '$1 == id { print $2 }')
[ "$where" = "$address" ] || { say refused "a survivor knows node $id at '$where', not at $address"; end; }
bit=$(printf '%s\n' "$table" | field is_decommissioning)
[ "$bit" = true ] || { say refused "by a survivor node $id is not marked as decommissioning ('$bit')"; end; }
table=$(eval "$count" 2>&1) || { say unasked "a survivor did not count the replicas of node $id: $table"; end; }
left=$(printf '%s\n' "$table" | field replicas)
[ "$left" = 0 ] || { say refused "a survivor counts '$left' replicas on node $id"; end; }
bit=$(printf '%s\n' "$table" | field is_decommissioning)
[ "$bit" = true ] || { say refused "by the count node $id is not marked as decommissioning ('$bit')"; end; }
[ "$(pid)" = "$main" ] || { say unclear "its process changed from $main while a survivor was asked"; end; }

if [ "$kind" = systemd ]; then
  said=$($root systemctl stop "$name" 2>&1)
else
  # Before the stop: where this fails nothing has been done.
  unpolicy || { say unclear "its restart policy could not be set to no: $said"; end; }
  said=$($as "$engine" stop -t "$grace" "$name" 2>&1 </dev/null)
fi
code=$?
# A container made with --rm goes with its process.
gone() {
  now=$(pid)
  [ "$now" = 0 ] || [ "$kind $now" = 'container -' ] || return 1
  [ -d "/proc/$main" ] || return 0
  # Dead and not yet reaped is gone.
  case $(sed -n 's/^State:[^A-Z]*\([A-Z]\).*/\1/p' "/proc/$main/status" 2>/dev/null) in Z | X) return 0 ;; esac
  return 1
}
tries=0
until gone; do
  tries=$((tries + 1))
  [ "$tries" -le 10 ] || {
    say failed "the stop ended with $code ($said), and process $main, or another of it, is still there"
    end
  }
  sleep 0.5
done
say stopped
[ "$kind" != systemd ] || disable
end
