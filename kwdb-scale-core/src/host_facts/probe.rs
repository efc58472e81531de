//! The one script that looks at a host, and its command line.
//!
//! Two constants make it: one that runs on the machine, and one that it runs in turn, behind the host's prefix where
//! there is one (`docker exec …`), so that one exec tells both what only the machine knows and what kwbase will meet.
//! Paths reach them as positional arguments only. They are for any POSIX sh, and change nothing but this: to learn
//! whether files can be made in a directory, an empty file `.kwdb-scale-PID` is made there and removed at once. In a
//! directory that holds a node's files nothing is made; there the permission bits answer. Whatever might hang (a dead
//! network file system, a service manager, an engine) is given 5 seconds where there is a `timeout`.
//!
//! Who needs more of the machine than this adds a script of its own ([`Also`]), so that a host is asked once all the same.
//!
//! The answer is a list of items that end with a NUL byte and begin with a letter, so that no file name, however
//! strange, can be taken for something else:
//!
//! | item | meaning |
//! |---|---|
//! | `K<key> <value>` | a fact by its key; the keys stand in `read` |
//! | `X<item>` | an item of the script that was added |
//! | `S<state>` | the next directory: `absent`, `dir`, `denied`, or `other` (neither absent nor a directory) |
//! | `N<name>` | an entry of it; names that KWDB uses come first, and again among the others |
//! | `M` | it holds more entries than are told |
//! | `P` | what is mounted in it can be told |
//! | `P<path>` | something is mounted there: the directory itself, or a place below |
//! | `W` | the directory above may not be written, so that this one cannot be renamed |
//! | `A<path>` | what lies beside the directory under a name to which old data is moved aside |
//! | `C+` or `C-<name>` | a file of the certificate directory can be read, or cannot |
//! | `T`, `L<hex>` | the kernel's table of sockets could be read; an address and port in it that listens |
//! | `E` | the end of the inner part; without it that part was cut off and counts for nothing |
//! | `Z<code>` | the end, with the exit code of the inner part; an answer without it counts for nothing |

use super::{CONTAINER, DirectoryUse, UNIT};
use crate::owner::{Described, Owner, RETURNS};
use crate::topology::Address;

/// What every part begins with.
pub(crate) const COMMON: &str = r#"
emit() { printf '%s\0' "$1"; }
LC_ALL=C; export LC_ALL
if timeout 5 true 2>/dev/null; then bound() { timeout 5 "$@"; }; else bound() { "$@"; }; fi
line() { head -n 1 | tr -d '\000'; }
limits() {
  [ -r "/proc/$2/limits" ] || return 0
  while read -r a b c soft hard rest; do
    case "$a $b $c" in
    'Max open files') emit "K$1-files $soft $hard" ;;
    'Max locked memory') emit "K$1-memory $soft $hard" ;;
    esac
  done < "/proc/$2/limits"
}
"#;

/// Whether a key is that of a certificate, and what a program says of its version.
pub(crate) const LOOKS: &str = r#"
pair() {
  [ -f "$2" ] || return 0
  if [ ! -r "$1" ] || [ ! -r "$2" ]; then emit 'Kpair it may not be read'
  elif ! grep -q -e '-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----' < "$2"; then emit 'Kpair none'
  elif ! command -v openssl >/dev/null 2>&1; then emit 'Kpair the host has no openssl'
  else
    of_certificate=$(bound openssl x509 -in "$1" -noout -pubkey 2>/dev/null </dev/null)
    of_key=$(bound openssl pkey -in "$2" -pubout -passin pass: 2>/dev/null </dev/null)
    if [ -z "$of_certificate" ]; then emit 'Kpair openssl does not read the certificate'
    elif [ -z "$of_key" ]; then emit 'Kpair none'
    elif [ "$of_certificate" = "$of_key" ]; then emit 'Kpair yes'
    else emit 'Kpair no'; fi
  fi
}
version() {
  path=$1
  case $path in */*) ;; *) path=$(command -v "$1" 2>/dev/null) || path= ;; esac
  if [ -z "$path" ] || [ ! -e "$path" ]; then emit 'Kversion-state absent'
  elif [ ! -f "$path" ] || [ ! -x "$path" ]; then emit 'Kversion-state denied'
  else
    said=$(bound "$path" version 2>&1 </dev/null)
    emit "Kversion-state $?"
    emit "Kversion $(printf '%s' "$said" | head -c 4096)"
  fi
}
"#;

/// What is mounted at a directory, which is named by its physical path, and below it: each place is given to a function.
/// Blanks are escaped in the kernel's table (`\040`). The clearing of old data asks it, too.
pub(crate) const MOUNTS: &str = r#"
unescape() {
  plain='' escaped=$1
  while :; do
    case $escaped in
    *\\*) plain=$plain${escaped%%\\*}; escaped=${escaped#*\\} ;;
    *) plain=$plain$escaped; return ;;
    esac
    case $escaped in
    040*) plain="$plain "; escaped=${escaped#040} ;;
    011*) plain="$plain	"; escaped=${escaped#011} ;;
    012*) plain="$plain
"; escaped=${escaped#012} ;;
    134*) plain=$plain\\; escaped=${escaped#134} ;;
    *) plain=$plain\\ ;;
    esac
  done
}
mounts() {
  while read -r mount parent device root point rest; do
    unescape "$point"
    case $plain/ in "${1%/}"/*) "$2" "$plain" ;; esac
  done < /proc/self/mountinfo
}
"#;

/// The first reading of the clock.
const CLOCK: &str = r#"emit "Kclock $(date +%s.%N)"
"#;

/// Whether the user is root, or sudo takes no password.
const MAY_ROOT: &str = r#"may_root=no
if [ "$(id -u)" = 0 ] || bound sudo -n true >/dev/null 2>&1; then may_root=yes; fi
"#;

/// What only the machine knows. Arguments: container engines in one word, the name of the container, that of the unit, and
/// the command line of the inner part.
const OUTSIDE: &str = r#"
engines=$1 container=$2 service=$3
shift 3
file() {
  if [ -f "$2" ] && [ -r "$2" ]; then
    emit "K$1-state there"
    head -c 4096 "$2" | tr -d '\000' | while IFS= read -r text || [ -n "$text" ]; do emit "K$1 $text"; done
  elif [ -e "$2" ] || [ -L "$2" ]; then emit "K$1-state denied"
  elif [ -d "${2%/*}" ] && [ ! -x "${2%/*}" ]; then emit "K$1-state denied"
  elif [ -d /etc/kaiwudb ] && [ ! -x /etc/kaiwudb ]; then emit "K$1-state denied"
  else emit "K$1-state absent"; fi
}
if [ -r /etc/os-release ]; then
  while IFS='=' read -r key value; do
    case $key in ID|VERSION_ID) value=${value#\"}; emit "Kos-$key ${value%\"}" ;; esac
  done < /etc/os-release
fi
emit "Kkernel $(uname -r)"
emit "Karch $(uname -m)"
emit "Kuser $(id -un)"
emit "Ksudo $may_root"
file mode /etc/kaiwudb/info/MODE
file node /etc/kaiwudb/info/NODE
for place in "${HOME:-/}" "${HOME:-/}"/* /home/*/* /opt/* /usr/local/*; do
  [ -f "$place/deploy.sh" ] && grep -qi kaiwudb "$place/deploy.sh" 2>/dev/null || continue
  emit "Kdeploy $place/deploy.sh"
done
emit 'Kdeploy-looked yes'
if ! command -v systemctl >/dev/null 2>&1; then emit 'Kunit-state absent'
elif unit=$(bound systemctl show -p LoadState -p ActiveState -p UnitFileState -p MainPID -p User -p ExecStart -- "$service" 2>/dev/null </dev/null) &&
  [ -n "$unit" ]; then
  emit 'Kunit-state there'
  printf '%s\n' "$unit" | while IFS= read -r text; do emit "Kunit $text"; done
elif [ ! -d /run/systemd/system ]; then emit 'Kunit-state absent'
else emit 'Kunit-state denied'; fi
# A rootless container is its user's, and whoever is in docker's group needs nobody else: root is asked for what the
# user's own engine does not have. Where that may not be, a daemon has told of every container, and podman has not.
inspect() {
  state=$(bound "$@" inspect --type container -f '{{.State.Status}} {{.Config.Image}} {{json .Path}} {{json .Args}}' "$container" 2>&1 </dev/null)
}
seen() {
  via=
  inspect "$1" && return 0
  [ "$(id -u)" != 0 ] || return 1
  if [ "$may_root" = yes ]; then via='sudo -n'; inspect $via "$1"; return; fi
  case ${1##*/} in podman*) state="${state##*
}; whether root has one cannot be seen without sudo" ;; esac
  return 1
}
engine=
for name in $engines; do
  command -v "$name" >/dev/null 2>&1 || continue
  engine=$name
  # A podman that is asked for the first time makes its directories: where there are none, it has no container.
  if [ "$name" = podman ] && [ "$engines" != podman ] && [ ! -e /var/lib/containers ] &&
    [ ! -e "${HOME:-/root}/.local/share/containers" ] && ! grep -qs '^ *graphroot' /etc/containers/storage.conf; then
    emit "Kcontainer-absent $name"
    continue
  fi
  if seen "$name"; then
    emit "Kcontainer $name $(printf '%s\n' "$state" | tail -n 1)"
    again=
    [ "$engines" != "$name" ] || returns "$container" bound $via "$name"
    [ -z "$again" ] || emit "Kcontainer-returns $again"
    break
  fi
  case $state in
  *'cannot be seen without sudo') emit "Kcontainer-unknown $name: $state" ;;
  *[Nn]'o such container'*|*[Nn]'o such object'*) emit "Kcontainer-absent $name" ;;
  *'annot connect to'*|*'onnection refused'*|*'s the docker daemon running'*)
    # A daemon that does not run runs no container; the one that a node is said to be in is another matter.
    if [ -S /var/run/docker.sock ] || [ "$engines" = "$name" ]; then emit "Kcontainer-unknown $name: $(printf '%s' "$state" | line)"
    else emit "Kcontainer-absent $name"; fi ;;
  *) emit "Kcontainer-unknown $name: $(printf '%s' "$state" | line)" ;;
  esac
done
[ -n "$engine" ] || emit 'Kcontainer-absent none'
[ -r /proc/sys/vm/max_map_count ] && emit "Kmaps $(line < /proc/sys/vm/max_map_count)"
if stat -c %a / >/dev/null 2>&1; then
  for path in /tmp/kaiwudb_certs /tmp/kaiwudb_certs.tar.gz "${HOME:-/root}"/kaiwudb_certs.tar.gz "${HOME:-/root}"/kaiwudb_certs \
    "${HOME:-/root}"/*/kaiwudb_certs.tar.gz "${HOME:-/root}"/kaiwudb_files/certs /home/*/kaiwudb_certs.tar.gz \
    /home/*/*/kaiwudb_certs.tar.gz /opt/*/kaiwudb_certs.tar.gz /usr/local/kaiwudb/kaiwudb_certs.tar.gz \
    /etc/kaiwudb/certs/kaiwudb_certs.tar.gz /etc/kaiwudb/before-join; do
    [ -e "$path" ] && emit "Kleft $(stat -c '%a %U' "$path") $path"
  done
  emit 'Kleft-looked yes'
fi
"$@" </dev/null
code=$?
emit "Kclock $(date +%s.%N)"
emit "Z$code"
"#;

/// What a node of the host will meet. Arguments: the program, the certificate directory or nothing, the file of the
/// authority's private key or nothing, how many of the directories that follow must be empty, and the directories.
/// Temporary directories of certificates are found by the names that `certs::install` and `certs::on_host` give them.
const INSIDE: &str = r#"
left() {
  for path do
    [ -e "$path" ] || [ -L "$path" ] || continue
    lefts=$((lefts + 1))
    [ "$lefts" -le 64 ] || return 0
    emit "Kleft $(stat -c '%a %U' "$path" 2>/dev/null) $path"
  done
}
temporary() {
  for work do
    [ -d "$work" ] && left "$work" "$work"/*.key "$work"/*.tar.gz "$work"/old/*.key
  done
}
mounted() { emit "P$dir${1#"${here%/}"}"; }
entries() (
  cd -P "$1" || exit 1
  [ "$PWD" = "$1" ] || emit "R$PWD"
  if [ -r /proc/self/mountinfo ]; then
    here=$PWD
    emit P
    mounts "$here" mounted
  fi
  count=0
  for name in kwbase.start_mode CURRENT STORAGE_VERSION auxiliary logs tsdb raft .[!.]* ..?* *; do
    [ -e "$name" ] || [ -L "$name" ] || continue
    [ "$name" = lost+found ] && continue
    emit "N$name"
    count=$((count + 1))
    [ "$count" -le 20000 ] || { emit M; break; }
  done
)
used() (
  cd "$1" || exit 1
  for name in .[!.]* ..?* *; do
    [ "$name" = lost+found ] && continue
    if [ -e "$name" ] || [ -L "$name" ]; then exit 0; fi
  done
  exit 1
)
nearest() {
  near=$1
  while [ ! -e "$near" ]; do
    near=${near%/*}
    [ -n "$near" ] || near=/
  done
}
may_write() {
  nearest "$1"
  [ -z "$2" ] || emit "Krights $(stat -L -c '%a %U %G' "$near" 2>/dev/null) $1"
  if [ ! -d "$near" ]; then emit "Kwrite no $1"; return 0; fi
  if [ -n "$2" ] && [ "$near" = "$1" ] && used "$near"; then
    if [ -w "$near" ] && [ -x "$near" ]; then emit "Kwrite yes $1"; else emit "Kwrite no $1"; fi
    return 0
  fi
  mine=${near%/}/.kwdb-scale-$$
  if (set -C; : > "$mine") 2>/dev/null; then rm -f "$mine"; emit "Kwrite yes $1"; else emit "Kwrite no $1"; fi
}
sum() {
  if command -v sha256sum >/dev/null 2>&1; then set -- "$(sha256sum < "$1" 2>/dev/null)"
  elif command -v openssl >/dev/null 2>&1; then set -- "$(bound openssl dgst -sha256 -r < "$1" 2>/dev/null)"
  else set -- ''; fi
  printf '%s' "${1%% *}"
}
mine=
trap '[ -z "$mine" ] || rm -f "$mine"; exit 1' HUP INT TERM
program=$1 certs=$2 cakey=$3 stores=$4
shift 4
number=0
for dir do
  number=$((number + 1))
  [ "$number" -le "$stores" ] || break
  if [ -d "$dir" ]; then
    if [ -r "$dir" ] && [ -x "$dir" ]; then emit Sdir; entries "$dir"; else emit Sdenied; fi
    above=${dir%/*}/
    if [ ! -w "$above" ] || [ ! -x "$above" ]; then emit W; fi
    for path in "$dir".node-*; do
      if [ -e "$path" ] || [ -L "$path" ]; then emit "A$path"; fi
    done
  elif [ -e "$dir" ] || [ -L "$dir" ]; then
    emit Sother
  else
    nearest "$dir"
    if [ -d "$near" ] && [ -x "$near" ]; then emit Sabsent; else emit Sdenied; fi
  fi
done
version "$program"
if [ -n "$certs" ]; then
  for file in ca.crt client.root.crt client.root.key; do
    if [ -f "$certs/$file" ] && [ -r "$certs/$file" ]; then emit "C+$file"; else emit "C-$file"; fi
  done
  # A link to nothing is in the way of a directory as a file is.
  if [ -L "$certs" ] && [ ! -e "$certs" ]; then emit 'Kcerts file'
  elif [ ! -e "$certs" ]; then
    nearest "$certs"
    if [ -d "$near" ] && [ -x "$near" ]; then emit 'Kcerts absent'; else emit 'Kcerts denied'; fi
  elif [ ! -d "$certs" ]; then emit 'Kcerts file'
  elif [ ! -r "$certs" ] || [ ! -x "$certs" ] || ! stat -c %a / >/dev/null 2>&1; then emit 'Kcerts denied'
  else
    emit 'Kcerts there'
    count=0
    for file in "$certs"/*; do
      [ -f "$file" ] || continue
      count=$((count + 1))
      [ "$count" -le 64 ] || break
      emit "Kcert $(stat -L -c '%a %U %s' "$file") ${file##*/}"
      case $file in
      *.crt) [ -r "$file" ] && emit "Kpem $(head -c 16384 "$file" | tr -d '\000')" ;;
      */ca.key) [ -r "$file" ] && emit "Ksum $(sum "$file")" ;;
      esac
      case ${file##*/} in
      ca.crt|node.crt|client.root.crt) pair "$file" "${file%.crt}.key" ;;
      esac
    done
  fi
fi
if stat -c %a / >/dev/null 2>&1; then
  lefts=0 beside=$certs
  if [ -L "$certs" ] && [ -d "$certs" ]; then beside=$(cd -P -- "$certs" && pwd -P); fi
  [ -z "$beside" ] || temporary "$beside".new-* "$beside".gone-*
  temporary "${TMPDIR:-/tmp}"/kwdb-scale-[0-9]*Z-*.??????
  emit 'Kleft-looked yes'
fi
if [ -n "$cakey" ]; then
  nearest "$cakey"
  if [ -s "$cakey" ] && mode=$(stat -L -c %a "$cakey" 2>/dev/null); then emit "Kcakey-mode $mode"; fi
  if [ -f "$cakey" ] && [ ! -s "$cakey" ]; then emit 'Kcakey absent'
  elif [ -f "$cakey" ] && [ -r "$cakey" ]; then emit "Kcakey there $(sum "$cakey")"
  elif [ "$near" != "$cakey" ] && [ -d "$near" ] && [ -x "$near" ]; then emit 'Kcakey absent'
  else emit 'Kcakey denied'; fi
fi
for table in /proc/net/tcp /proc/net/tcp6; do
  [ -r "$table" ] || continue
  emit T
  while read -r slot local remote state rest; do
    if [ "$state" = 0A ]; then emit "L$local"; fi
  done < "$table"
done
# Networks of which every address is the machine's own. Only those lines are read of what may be a long table.
if [ -r /proc/net/fib_trie ] && table=$(bound grep -B 4 ' LOCAL' /proc/net/fib_trie 2>/dev/null); then
  at=
  printf '%s\n' "$table" | while read -r first second rest; do
    case "$first $rest" in
    '|-- '*) at=$second ;;
    '/'*' LOCAL'*) [ -z "$at" ] || emit "Kaddress $at$first" ;;
    '-- '*) at= ;;
    esac
  done
  if [ -r /proc/net/if_inet6 ]; then
    while read -r digits rest; do emit "Kaddress6 $digits"; done < /proc/net/if_inet6
  fi
  for any in 4:0.0.0.0/0 6:::/0; do
    [ -r "/proc/sys/net/ipv${any%%:*}/ip_nonlocal_bind" ] || continue
    read -r on < "/proc/sys/net/ipv${any%%:*}/ip_nonlocal_bind"
    [ "$on" = 0 ] || emit "Kaddress ${any#*:}"
  done
fi
for dir do
  nearest "$dir"
  emit "Kspace $(bound df -Pk -- "$near" 2>/dev/null | tail -n 1)"
done
case $path in
*/bin/*) may_write "${path%/bin/*}" '' ;;
esac
number=0
for dir do
  number=$((number + 1))
  [ "$number" -le "$stores" ] && may_write "$dir" store
done
[ -z "$certs" ] || may_write "$certs" ''
limits session $$
if [ -r /proc/self/cmdline ]; then
  for file in $(grep -l -e '-store' -e kwbase /proc/[0-9]*/cmdline 2>/dev/null); do
    pid=${file#/proc/} pid=${pid%/cmdline}
    # Newlines inside words would look like more words; no flag of kwbase has one.
    { tr '\000' '\n' < "$file"; } 2>/dev/null | (
      read -r name && read -r command || exit 0
      case $command in start|start-single-replica|start-single-node) ;; *) exit 0 ;; esac
      emit "Kproc $pid $(stat -c %U "/proc/$pid" 2>/dev/null)"
      emit "Karg $name"
      emit "Karg $command"
      count=0
      while IFS= read -r word && [ "$count" -lt 80 ]; do
        emit "Karg $word"
        count=$((count + 1))
      done
      limits proc "$pid"
    )
  done
  emit 'Kproc-looked yes'
fi
emit E
"#;

/// A script that looks at the machine as well: within the probe, or [alone](Self::alone). It finds `emit`, which gives an item
/// of its answer, `bound`, before what might hang, and `may_root`, `yes` or `no`.
#[derive(Clone, Debug)]
pub(crate) struct Also {
    /// The script.
    pub(crate) script: String,
    /// Its positional arguments.
    pub(crate) arguments: Vec<String>,
}

impl Also {
    /// Its part of the probe, after which its arguments are gone.
    fn part(&self) -> String {
        let (script, count) = (&self.script, self.arguments.len());
        // In a shell of its own, so that it takes no name of the probe's.
        format!("(\nemit() {{ printf 'X%s\\0' \"$1\"; }}\n{script}\n) </dev/null\nshift {count}\n")
    }

    /// The command line that runs it without the probe.
    pub(crate) fn alone(self) -> Vec<String> {
        let mut argv: Vec<String> = sh(&[MAY_ROOT, &self.script]).into();
        argv.extend(self.arguments);
        argv
    }
}

fn sh(parts: &[&str]) -> [String; 4] {
    ["sh".to_owned(), "-c".to_owned(), format!("{COMMON}{}", parts.concat()), "sh".to_owned()]
}

/// Where the installer's container may be.
const ENGINES: &str = "docker podman";

/// What the probe is to look at.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The program.
    pub(crate) program: String,
    /// What leads to it from the machine.
    pub(crate) prefix: Vec<String>,
    /// What owns the processes of the host's nodes: its unit or container is looked at, else the installer's.
    pub(crate) owner: Owner,
    /// What that must start.
    pub(crate) described: Option<Described>,
    /// At which addresses the node will listen, those that are names or stand for all of them left out.
    pub(crate) binds: Vec<Address>,
    /// The certificate directory of a secure host.
    pub(crate) certs_dir: Option<String>,
    /// The file of the authority's private key, where it is this host's.
    pub(crate) authority_key: Option<String>,
    /// Directories, those that must be empty first.
    pub(crate) directories: Vec<(String, DirectoryUse)>,
    /// What else looks at the machine.
    pub(crate) also: Option<Also>,
}

impl Question {
    /// How many of the directories must be empty before a node starts here.
    pub(crate) fn stores(&self) -> usize {
        self.directories.iter().filter(|(_, purpose)| *purpose != DirectoryUse::External).count()
    }

    /// The command line, which begins on the machine itself.
    pub(crate) fn argv(&self) -> Vec<String> {
        // A slash at the end would let the search for an existing parent stop at the directory's own name.
        let bare = |dir: &String| match dir.trim_end_matches('/') {
            "" => "/".to_owned(),
            dir => dir.to_owned(),
        };
        let also = self.also.as_ref().map(Also::part).unwrap_or_default();
        let mut argv: Vec<String> = sh(&[CLOCK, MAY_ROOT, &also, RETURNS, OUTSIDE]).into();
        argv.extend(self.also.iter().flat_map(|also| also.arguments.iter().cloned()));
        let (mut engines, mut container, mut unit) = (ENGINES, CONTAINER, UNIT);
        match &self.owner {
            Owner::Container { engine, name } => (engines, container) = (engine, name),
            Owner::Systemd { unit: name } => unit = name,
            Owner::Quit => {}
        }
        argv.extend([engines, container, unit].map(str::to_owned));
        argv.extend(self.prefix.iter().cloned());
        argv.extend(sh(&[LOOKS, MOUNTS, INSIDE]));
        argv.push(self.program.clone());
        argv.push(self.certs_dir.as_ref().map(bare).unwrap_or_default());
        argv.push(self.authority_key.clone().unwrap_or_default());
        argv.push(self.stores().to_string());
        argv.extend(self.directories.iter().map(|(dir, _)| bare(dir)));
        argv
    }
}
