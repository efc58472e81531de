
# Sets `again` where something would start the container again that a stop does not take away: what, and the cure;
# `policy` to its restart policy, and `kept` where the engine cannot change that. Podman learnt it in 5.1; until then
# only podman-restart.service goes by it, at a boot. Arguments: its name, and the engine's command line.
returns() {
  again= kept= box=$1
  shift
  label=$("$@" inspect --type container -f '{{index .Config.Labels "PODMAN_SYSTEMD_UNIT"}}' "$box" 2>/dev/null </dev/null)
  policy=$("$@" inspect --type container -f '{{.HostConfig.RestartPolicy.Name}}' "$box" 2>/dev/null </dev/null) ||
    policy=unknown
  case $label in
  '' | '<no value>') ;;
  *) again="unit $label owns it; name that unit as the owner of the node (owner = systemd)"; return ;;
  esac
  others="container-$box.service"
  # KWDB's installer runs its container by a unit.
  [ "$box" != kaiwudb-container ] || others="$others kaiwudb.service"
  case $policy in
  '' | no) ;;
  *) "$@" update --help 2>/dev/null </dev/null | grep -q -e --restart || kept=podman-restart.service ;;
  esac
  user=
  case "$(id -u) $*" in 0\ * | *' sudo '*) ;; *) user=--user ;; esac
  for other in $others $kept; do
    case $(systemctl $user is-enabled "$other" 2>/dev/null </dev/null) in
    enabled | enabled-runtime)
      again="unit $other is enabled, and starts it at a boot; name that unit as the owner of the node"
      again="$again (owner = systemd), or disable it"
      [ "$other" = "$kept" ] || return
      again="its restart policy is $policy, which this engine cannot change (podman can from 5.1 on), and $kept"
      again="$again is enabled; disable that, or make the container anew without --restart"
      return
      ;;
    esac
  done
}
