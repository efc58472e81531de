//! Certificates on the host that needs them: looking, staging, putting in place, putting back.
//!
//! A new set is complete in a directory beside the certificate directory (`<dir>.new-<tag>`) before anything is
//! replaced. Copies of what it replaces are made in there too. Then a file `commit` is made: until then nothing has
//! changed, and from then on the change is finished by whoever comes next, or taken back where that is asked for, so that an
//! interruption leaves the old set or the new one, never a mixture that lasts. Whoever comes next waits for a run whose operator is gone and that goes on
//! all the same: both would write into one directory. The copies are kept as `<dir>.old-<tag>`, with mode 0700.

use std::sync::Arc;
use std::time::Duration;

use super::found::{self, Found};
use super::on_host::{answer, content};
use super::{Archive, CertificateSet, IssueOrder, archive, brief, check_tag};
use crate::certificate::Certificate;
use crate::host_facts::probe;
use crate::kwbase::KwbaseHost;
use crate::ports::{CertificateState, HostTransport, PortError, PortErrorKind};

/// Everything that is done there, by a verb. Answers as in [`super::on_host`]; besides `J<state>`, `P<mode> <name>` for a file
/// that is there, `D` for a directory that may not be looked into, and `M<path>` for the topmost one that is not there.
const SCRIPT: &str = r#"
set -f
umask 077
verb=$1 dir=$2 tag=$3
shift 3
case $dir in */*) ;; *) dir=./$dir ;; esac
if [ -L "$dir" ] && [ -d "$dir" ]; then dir=$(cd -P -- "$dir" && pwd -P) || exit 1; fi
new=$dir.new-$tag old=$dir.old-$tag gone=$dir.gone-$tag
set5="ca.crt node.crt node.key client.root.crt client.root.key"
emit() { printf '%s\0' "$1"; }
fail() { printf '%s\n' "$1" >&2; exit 1; }
file() { printf 'F%s:' "$1" && dd bs=65536 count=1 2>/dev/null < "$2" && printf '\0'; }
mode() { set -- $(ls -ldn -- "$1" 2>/dev/null); printf '%s' "$1"; }
owner() { set -- $(ls -ldn -- "$1" 2>/dev/null); printf '%s' "$3:$4"; }
finish() {
  if [ -d "$new/old" ]; then
    if [ -d "$old" ]; then rm -rf -- "$new/old"; else mv -- "$new/old" "$old"; fi || fail "$old cannot be made"
  fi
  if [ ! -d "$dir" ]; then
    mkdir -m 700 -- "$dir" || fail "$dir cannot be made"
    read -r want < "$new/commit"
    [ -z "$want" ] || chown "$want" "$dir" || fail "$dir cannot be given to $want"
  fi
  [ ! -e "$new/drop" ] || rm -f -- "$dir/ca.key" || fail "$dir/ca.key cannot be removed"
  for name in $set5 ca.key; do
    [ ! -e "$new/$name" ] || mv -f -- "$new/$name" "$dir/$name" || fail "$dir/$name cannot be replaced"
  done
  rm -rf -- "$new" || fail "$new cannot be removed"
}
space() { readlink /proc/self/ns/pid 2>/dev/null; }
alone() {
  tries=60
  while read -r pid where 2>/dev/null < "$new/pid"; do
    if [ "$where" = "$(space)" ]; then
      [ "$pid" != "$$" ] && tr '\0' ' ' 2>/dev/null < "/proc/$pid/cmdline" | grep -qF -- "$tag" || break
    else
      # In a container of its own, where it cannot be seen: it has its time.
      [ -n "$(find "$new/pid" -mmin -1 2>/dev/null)" ] || break
    fi
    [ "$tries" -gt 0 ] || fail "an earlier run (process $pid) still works in $new; try again when it has ended"
    tries=$((tries - 1))
    sleep 1
  done
}
recover() {
  alone
  if [ -e "$new/commit" ]; then finish; elif [ -e "$new" ]; then rm -rf -- "$new"; fi || fail "$new is in the way"
  rm -rf -- "$gone" || fail "$gone cannot be removed"
}
# Whether a path is a directory that was not there before: `$made` or below it.
ours() { case $1 in "$made"|"$made"/*) [ -n "$made" ] ;; *) false ;; esac; }
case $verb in
  look)
    made=$1 path=$dir missing=
    while ours "$path" && [ ! -d "$path" ]; do path=${path%/*}; done
    if ours "$path" && inside=$(ls -A -- "$path" 2>/dev/null) && [ -z "$inside" ]; then emit "L$path"; fi
    path=$dir
    while [ -n "$path" ] && [ ! -e "$path" ] && [ ! -L "$path" ]; do missing=$path path=${path%/*}; done
    [ -z "$missing" ] || emit "M$missing"
    if [ -e "$new/commit" ]; then emit Jhalf; elif [ -e "$old" ]; then emit Jinstalled; else emit Juntouched; fi
    for path in "$new" "$gone"; do [ ! -e "$path" ] || emit "L$path"; done
    if [ -d "$dir" ] && ! [ -x "$dir" ]; then emit D; fi
    for name in $set5 ca.key; do
      [ ! -f "$dir/$name" ] || emit "P$(mode "$dir/$name") $name"
    done
    for name in ca.crt node.crt client.root.crt; do
      [ ! -f "$dir/$name" ] || file "$name" "$dir/$name" || exit 1
    done ;;
  stage)
    how=$1 want=$2 keep=$3 program=$4 life=$5 archive=$6
    shift 6
    recover
    parent=${dir%/*}
    [ -d "$parent/" ] || (umask 022 && mkdir -p -- "$parent") || fail "$parent cannot be made"
    [ -n "$want" ] || [ ! -d "$dir" ] || want=$(owner "$dir")
    mkdir -m 700 -- "$new" || fail "$new cannot be made"
    trap 'rm -rf -- "$new"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    echo "$$ $(space)" > "$new/pid" || exit 1
    if [ "$how" = issue ]; then
      out=
      while IFS= read -r line; do
        case $line in
          "file ca.crt"|"file node.crt"|"file node.key"|"file client.root.crt"|"file client.root.key") out=$new/${line#file } ;;
          *) [ -n "$out" ] && printf '%s\n' "$line" >> "$out" || fail "a file cannot be written to $new" ;;
        esac
      done
    else
      cat > "$new/$archive" && (cd -- "$new" && tar -xzmf "$archive" && rm -f -- "$archive") ||
        fail "the archive cannot be extracted to $new"
      "$program" cert create-node "--certs-dir=$new" "--ca-key=$new/ca.key" "--lifetime=$life" -- "$@" >&2 || exit 1
      "$program" cert create-client "--certs-dir=$new" "--ca-key=$new/ca.key" "--lifetime=$life" -- root >&2 || exit 1
      [ "$keep" = yes ] || rm -f -- "$new/ca.key" || fail "$new/ca.key cannot be removed"
    fi
    for name in $set5 ca.key; do
      [ -e "$new/$name" ] || continue
      case $name in *.key) chmod 600 -- "$new/$name" ;; *) chmod 644 -- "$new/$name" ;; esac || exit 1
      [ -z "$want" ] || chown "$want" "$new/$name" ||
        fail "$new/$name cannot be given to $want: reach the host as root or as that user, or name another owner"
    done
    printf '%s\n' "$want" > "$new/owner" || exit 1
    for name in ca.crt node.crt client.root.crt; do file "$name" "$new/$name" || exit 1; done
    rm -f -- "$new/pid"
    trap - EXIT ;;
  commit)
    drop=$1 fresh=$2
    [ -e "$new/owner" ] || fail "nothing is staged in $new"
    echo "$$ $(space)" > "$new/pid" || exit 1
    for name in $set5 ca.key; do
      [ "$fresh" = no ] && [ -e "$dir/$name" ] || continue
      [ "$name" != ca.key ] || [ -e "$new/$name" ] || [ "$drop" = yes ] || continue
      [ -d "$new/old" ] || mkdir -m 700 -- "$new/old" || exit 1
      cp -p -- "$dir/$name" "$new/old/$name" || fail "a copy of $dir/$name cannot be made"
    done
    [ "$drop" != yes ] || : > "$new/drop" || exit 1
    sync
    mv -- "$new/owner" "$new/commit" || exit 1
    finish
    sync ;;
  restore)
    fresh=$1 keep=$2 made=$3
    alone
    # Not finished first: what is in the way of that would be in the way of this.
    if [ -e "$new/commit" ] && [ -d "$new/old" ] && [ ! -d "$old" ]; then mv -- "$new/old" "$old" || fail "$old cannot be made"; fi
    rm -f -- "$new/commit" && rm -rf -- "$new" "$gone" || fail "$new or $gone cannot be removed"
    if [ -d "$old" ]; then
      for name in $set5 ca.key; do
        if [ -e "$old/$name" ]; then
          cp -p -- "$old/$name" "$dir/.$name.$tag" && mv -f -- "$dir/.$name.$tag" "$dir/$name" ||
            fail "$dir/$name cannot be put back from $old"
        elif [ "$name" != ca.key ] || [ "$keep" = yes ]; then
          rm -f -- "$dir/$name" || fail "$dir/$name cannot be removed"
        fi
      done
      mv -- "$old" "$gone" && rm -rf -- "$gone" || fail "$old cannot be removed"
    elif [ "$fresh" = yes ] && [ -d "$dir" ]; then
      for name in $set5; do rm -f -- "$dir/$name" || fail "$dir/$name cannot be removed"; done
      [ "$keep" != yes ] || rm -f -- "$dir/ca.key" || fail "$dir/ca.key cannot be removed"
    fi
    # What somebody else laid there stays, and so does the directory then.
    path=$dir
    while ours "$path"; do
      [ ! -d "$path" ] || rmdir -- "$path" 2>/dev/null || break
      path=${path%/*}
    done ;;
  clean) recover ;;
  put)
    [ -d "$dir" ] || fail "$dir is no directory"
    cat > "$dir/.$1.$tag" && [ "$(wc -c < "$dir/.$1.$tag")" -eq "$2" ] && mv -f -- "$dir/.$1.$tag" "$dir/$1" || { rm -f -- "$dir/.$1.$tag"; fail "$dir/$1 cannot be written"; } ;;
  remove)
    rm -f -- "$dir/.$1.$tag" || fail "$dir/.$1.$tag cannot be removed"
    [ "$2" = half ] || rm -f -- "$dir/$1" || fail "$dir/$1 cannot be removed" ;;
esac || exit 1
emit E
"#;

/// The verb `seek`: an archive of that name, and half of one. Answers as [`SCRIPT`].
const SEEK: &str = r#"
dir=$2 tag=$3
[ ! -e "$dir/.$4.$tag" ] || emit "L$dir/.$4.$tag"
archive "$dir/$4"
emit E
"#;

/// What lies in a certificate directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Look {
    pub(crate) state: CertificateState,
    pub(crate) leftovers: Vec<String>,
    /// Files that are there, with their modes as `ls` prints them.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) ca: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) root: Option<String>,
    /// As [`CertificateFacts::missing`](crate::ports::CertificateFacts::missing).
    pub(crate) missing: Option<String>,
}

impl Look {
    fn of(host: &KwbaseHost, dir: &str, items: &[String]) -> Result<Self, PortError> {
        if items.iter().any(|i| i == "D") {
            let text =
                format!("{dir} on host {} may not be looked into by the user that runs kwbase", host.name);
            return Err(PortError::new(PortErrorKind::Denied, text));
        }
        let state = items.iter().find_map(|i| i.strip_prefix('J'));
        let split = |text: &str| text.split_once(' ').map(|(mode, name)| (name.to_owned(), mode.to_owned()));
        Ok(Self {
            state: match state {
                Some("untouched") => CertificateState::Untouched,
                Some("installed") => CertificateState::Installed,
                Some("half") => CertificateState::Half,
                other => {
                    let text = format!(
                        "host {} said '{}' of {dir}",
                        host.name,
                        other.unwrap_or("nothing").escape_debug()
                    );
                    return Err(PortError::new(PortErrorKind::Malformed, text));
                }
            },
            leftovers: items
                .iter()
                .filter_map(|i| i.strip_prefix('L'))
                .map(|path| format!("{} on host {}", path.escape_debug(), host.name))
                .collect(),
            files: items.iter().filter_map(|i| split(i.strip_prefix('P')?)).collect(),
            ca: content(items, "ca.crt").map(str::to_owned),
            node: content(items, "node.crt").map(str::to_owned),
            root: content(items, "client.root.crt").map(str::to_owned),
            missing: items.iter().find_map(|i| i.strip_prefix('M')).map(str::to_owned),
        })
    }

    /// Whether there is a file of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|(n, _)| n == name)
    }

    /// Private keys that are not there, or that others than their owner may use: kwbase does not load those.
    pub(crate) fn key_faults(&self) -> Vec<String> {
        let key = |name: &str| match self.files.iter().find(|(n, _)| n == name) {
            None => Some(format!("{name} is not there")),
            Some((_, mode)) => {
                let others = mode.chars().skip(4).take(6);
                let open = others.clone().any(|c| c != '-') || others.count() != 6;
                open.then(|| {
                    format!("{name} may be used by others than its owner ({mode}), and kwbase refuses it")
                })
            }
        };
        ["node.key", "client.root.key"].into_iter().filter_map(key).collect()
    }

    /// The authority of `ca.crt`, as far as it can be read.
    pub(crate) fn authority(&self) -> Option<Certificate> {
        Certificate::from_pem(self.ca.as_deref()?).ok()
    }
}

/// A certificate directory on a host.
#[derive(Debug)]
pub(crate) struct Installation<'a, H: HostTransport + ?Sized> {
    pub(crate) transport: &'a Arc<H>,
    pub(crate) host: &'a KwbaseHost,
    pub(crate) dir: &'a str,
    pub(crate) tag: &'a str,
    pub(crate) deadline: Duration,
}

impl<H: HostTransport + ?Sized> Installation<'_, H> {
    async fn run(
        &self,
        verb: &'static str,
        args: &[&str],
        stdin: Option<Vec<u8>>,
    ) -> Result<Vec<String>, PortError> {
        self.run_script(SCRIPT, verb, args, stdin).await
    }

    async fn run_script(
        &self,
        script: &str,
        verb: &'static str,
        args: &[&str],
        stdin: Option<Vec<u8>>,
    ) -> Result<Vec<String>, PortError> {
        check_tag(self.tag)?;
        let dir = self.dir.trim_end_matches('/');
        if dir.is_empty() {
            let text = format!(
                "the certificate directory of host {} is the root directory; name another",
                self.host.name
            );
            return Err(PortError::new(PortErrorKind::Config, text));
        }
        let fixed = ["sh", "-c", script, "sh", verb, dir, self.tag];
        let argv = fixed.into_iter().chain(args.iter().copied()).map(str::to_owned);
        let line = self.host.script(verb, argv);
        let mut command = line.command(self.deadline);
        command.stdin = stdin;
        let output = self.transport.run(&self.host.name, &command).await?;
        let name = match verb {
            "look" => "look at certificates",
            "stage" => "stage of certificates",
            "commit" => "installation of certificates",
            "restore" => "restoration of certificates",
            "put" => "put of the archive",
            "seek" => "look at the archive",
            "remove" => "removal of the archive",
            other => other,
        };
        answer(self.host, name, output)
    }

    /// `made`: as in [`CertifyHost`](crate::ports::CertifyHost::made).
    pub(crate) async fn look(&self, made: Option<&str>) -> Result<Look, PortError> {
        let items = self.run("look", &[made.unwrap_or_default()], None).await?;
        Look::of(self.host, self.dir, &items)
    }

    /// Stages a set that was made elsewhere. Gives back the certificates as they lie there.
    pub(crate) async fn stage(&self, set: &CertificateSet, owner: &str) -> Result<[String; 3], PortError> {
        let mut text = String::new();
        for (name, pem) in [
            ("ca.crt", set.ca.as_str()),
            ("node.crt", &set.node.certificate),
            ("node.key", set.node.key.expose()),
            ("client.root.crt", &set.root.certificate),
            ("client.root.key", set.root.key.expose()),
        ] {
            text.push_str(&format!("file {name}\n{}\n", pem.trim()));
        }
        let args = ["issue", owner, "no", "", "", ""];
        self.staged(&self.run("stage", &args, Some(text.into_bytes())).await?)
    }

    /// Stages what the documented archive holds and makes the certificates there, as the page would have it.
    pub(crate) async fn stage_archive(
        &self,
        archive: &Archive,
        order: &IssueOrder,
        owner: &str,
        keep_ca_key: bool,
    ) -> Result<[String; 3], PortError> {
        let packed = packed(archive, "")?;
        let life = super::lifetime(archive.authority(), order.now).unwrap_or_else(|| "43920h".to_owned());
        let keep = if keep_ca_key { "yes" } else { "no" };
        let fixed = ["archive", owner, keep, &self.host.program, &life, archive::NAME];
        let args: Vec<&str> = fixed.into_iter().chain(order.names.iter().map(String::as_str)).collect();
        self.staged(&self.run("stage", &args, Some(packed)).await?)
    }

    fn staged(&self, items: &[String]) -> Result<[String; 3], PortError> {
        let file = |name: &str| {
            content(items, name).map(str::to_owned).ok_or_else(|| {
                let text = format!("host {} did not show the {name} that was staged there", self.host.name);
                PortError::new(PortErrorKind::Malformed, text)
            })
        };
        Ok([file("ca.crt")?, file("node.crt")?, file("client.root.crt")?])
    }

    /// Puts the staged set in place. `drop_ca_key`: a `ca.key` that is there is another authority's; it goes with the
    /// old set. `fresh`: what is there is of an earlier try, and is not kept.
    pub(crate) async fn commit(&self, drop_ca_key: bool, fresh: bool) -> Result<(), PortError> {
        let yes = |b: bool| if b { "yes" } else { "no" };
        self.run("commit", &[yes(drop_ca_key), yes(fresh)], None).await.map(|_| ())
    }

    /// Puts the old set back, also over a change that was committed and could not be finished. `fresh`: there was none;
    /// `made`: nor the directory.
    pub(crate) async fn restore(
        &self,
        fresh: bool,
        keep_ca_key: bool,
        made: Option<&str>,
    ) -> Result<(), PortError> {
        let yes = |b: bool| if b { "yes" } else { "no" };
        let args = [yes(fresh), yes(keep_ca_key), made.unwrap_or_default()];
        self.run("restore", &args, None).await.map(|_| ())
    }

    /// Finishes what was committed, and removes what was only staged.
    pub(crate) async fn clean(&self) -> Result<(), PortError> {
        self.run("clean", &[], None).await.map(|_| ())
    }
}

fn packed(archive: &Archive, owner: &str) -> Result<Vec<u8>, PortError> {
    archive.pack_for(owner).map_err(|e| PortError::new(PortErrorKind::Other, e.to_string()))
}

/// Puts the archive into the directory `dir` of a host as `kaiwudb_certs.tar.gz`, with mode 0600, whole or not at all:
/// what `deploy.sh join --tls` asks for. `owner` is the user to whom its files belong when root extracts it. It holds the
/// authority's private key: see that [`remove_archive`] is called whatever happens. `tag` names the temporary file. May be
/// repeated.
///
/// # Errors
/// The directory is not there or cannot be written; those of the transport.
pub async fn put_archive<H: HostTransport + ?Sized>(
    transport: &Arc<H>,
    host: &KwbaseHost,
    dir: &str,
    (archive, owner): (&Archive, &str),
    tag: &str,
    deadline: Duration,
) -> Result<(), PortError> {
    let there = Installation { transport, host, dir, tag, deadline };
    let packed = packed(archive, owner)?;
    // What a lost connection cut off would be taken for the whole.
    let size = packed.len().to_string();
    there.run("put", &[archive::NAME, &size], Some(packed)).await.map(drop)
}

/// What lies where [`put_archive`] puts it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct FoundArchive {
    /// Whether something of that name is there.
    pub(crate) there: bool,
    /// Why `deploy.sh join` could not use it, or makes certificates of another authority of it.
    pub(crate) faults: Vec<String>,
    /// Half of one that an interruption left.
    pub(crate) leftovers: Vec<String>,
}

/// Looks at the archive in the directory `dir` of a host. Its key is neither shown nor moved.
pub(crate) async fn find_archive<H: HostTransport + ?Sized>(
    transport: &Arc<H>,
    host: &KwbaseHost,
    dir: &str,
    (tag, authority): (&str, &str),
    deadline: Duration,
) -> Result<FoundArchive, PortError> {
    let there = Installation { transport, host, dir, tag, deadline };
    let script = format!("{}{}{SEEK}", probe::COMMON, found::function());
    let items = there.run_script(&script, "seek", &[archive::NAME], None).await?;
    let place = format!("{}/{}", dir.trim_end_matches('/'), archive::NAME);
    let found = Found::read(items.iter().map(String::as_str));
    let fault = match &found {
        Found::Absent => Some(format!("{place} is not there")),
        Found::Unknown(why) => Some(format!("{place} could not be looked into: {why}")),
        Found::Unusable(why) => Some(format!("{place} {why}")),
        Found::Of(ca) if ca.fingerprint != authority => Some(format!(
            "{place} is of another authority ({}) than the cluster's ({})",
            brief(&ca.fingerprint),
            brief(authority)
        )),
        Found::Of(_) => None,
    };
    let leftovers = items.iter().filter_map(|i| i.strip_prefix('L'));
    let leftovers = leftovers.map(|path| format!("{} on host {}", path.escape_debug(), host.name)).collect();
    Ok(FoundArchive { there: found != Found::Absent, faults: fault.into_iter().collect(), leftovers })
}

/// Removes what [`put_archive`] put there, also half of it. May be repeated.
///
/// # Errors
/// It cannot be removed; those of the transport.
pub async fn remove_archive<H: HostTransport + ?Sized>(
    transport: &Arc<H>,
    host: &KwbaseHost,
    dir: &str,
    tag: &str,
    deadline: Duration,
) -> Result<(), PortError> {
    remove(&Installation { transport, host, dir, tag, deadline }, "all").await
}

/// Removes what an interrupted [`put_archive`] left, and no archive that is whole. May be repeated.
pub(crate) async fn remove_half<H: HostTransport + ?Sized>(
    transport: &Arc<H>,
    host: &KwbaseHost,
    dir: &str,
    tag: &str,
    deadline: Duration,
) -> Result<(), PortError> {
    remove(&Installation { transport, host, dir, tag, deadline }, "half").await
}

async fn remove<H: HostTransport + ?Sized>(there: &Installation<'_, H>, what: &str) -> Result<(), PortError> {
    there.run("remove", &[archive::NAME, what], None).await.map(drop)
}
