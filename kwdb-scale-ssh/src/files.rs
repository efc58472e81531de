//! Whole files: written atomically, read up to a limit, size and SHA-256 compared at both ends.

use std::sync::Arc;
use std::time::Duration;

use kwdb_scale_core::canonical::hex;
use kwdb_scale_core::ports::{PortError, PortErrorKind};
use sha2::{Digest, Sha256};

use crate::config::SshHost;
use crate::error::config;
use crate::pool::Pool;
use crate::run::{Finished, copy};
use crate::script::mark;

/// For one file; ours are small.
const DEADLINE: Duration = Duration::from_secs(300);
/// A file that is rewritten while it is read is read again.
const TRIES: usize = 3;
/// What `get` says before the content.
const HEADER: usize = 256;

/// `sum`: puts the SHA-256 of standard input into `h`, or `-` where the host has no program for it.
const SHA: &str = r#"sum() {
if command -v sha256sum >/dev/null; then h=$(sha256sum)
elif command -v shasum >/dev/null; then h=$(shasum -a 256)
elif command -v openssl >/dev/null; then h=$(openssl dgst -sha256 -r)
else h=-; cat >/dev/null; fi
h=${h%% *}
}
"#;

/// `$1` path, `$2` mode, `$3` owner or nothing, `$4` size, `$5` SHA-256, `$6` a name that nobody else has. The size
/// is compared where the sum cannot be. Every program that is started here costs as much as the rest: one reads,
/// writes and syncs the content, one sums it up, one sets the mode, one renames, one syncs the name.
const PUT: &str = r#"set -C
case $1 in */*) d=${1%/*}/ ;; *) d=./ ;; esac
[ -d "$d" ] || { echo no-directory; exit 0; }
[ -d "$1" ] && { echo directory; exit 0; }
# Also what a link leads to. A link that leads nowhere is replaced, as one to a file is.
[ ! -e "$1" ] || [ -f "$1" ] || { echo no-file; exit 0; }
umask 077
t=$d.$6.tmp
trap 'rm -f -- "$t"' EXIT
# Not `:`, which is a special builtin: where the file cannot be made, that would end the shell before it says so.
# PIPE: when the connection goes, the next word to it must not end this before it has tidied up.
trap 'exit 1' HUP INT TERM PIPE
true >"$t" && dd bs=64k conv=fsync,notrunc status=none of="$t" || { echo not-written; exit 0; }
sum <"$t"; w=$5
[ "$h" != - ] || { h=$(($(wc -c <"$t"))) w=$4; }
[ "$h" = "$w" ] || { echo differs; exit 0; }
if [ -n "$3" ]; then chown -- "$3" "$t" || { echo not-owned; exit 0; }; fi
chmod "$2" "$t" || { echo not-written; exit 0; }
mv -f -- "$t" "$1" || { echo not-written; exit 0; }
trap - EXIT
sync "$d" || sync || { echo not-synced; exit 0; }
echo written
"#;

/// `$1` path, `$2` limit.
const GET: &str = r#"if [ ! -e "$1" ]; then
case $1 in */*) d=${1%/*}/ ;; *) d=./ ;; esac
if [ -d "$d" ] && [ ! -x "$d" ]; then echo denied; else echo absent; fi
exit 0
fi
[ -f "$1" ] || { echo no-file; exit 0; }
[ -r "$1" ] || { echo denied; exit 0; }
z=$(($(wc -c <"$1")))
[ "$z" -le "$2" ] || { echo long; exit 0; }
h=$(head -c "$z" <"$1" | { sum; echo "$h"; })
echo "content $z $h"
head -c "$z" <"$1"
"#;

/// Writes a file; `owner` is `user`, `user:group` or `:group`.
pub(crate) async fn put(
    pool: &Arc<Pool>,
    host: &SshHost,
    path: &str,
    content: &[u8],
    mode: u32,
    owner: Option<&str>,
) -> Result<(), PortError> {
    check(path)?;
    if let Some(owner) = owner
        && (owner.is_empty() || owner.starts_with('-') || owner.contains('\0'))
    {
        return Err(config(format!("'{}' is not an owner", owner.escape_default())));
    }
    let text = format!("{SHA}{PUT}");
    let (mode, size, sum) = (format!("{:o}", mode & 0o7777), content.len().to_string(), sum(content));
    let args = [path, &mode, owner.unwrap_or_default(), &size, &sum, &mark()];
    let finished = copy(pool, host, &text, &args, Some(content.to_vec()), HEADER, DEADLINE).await?;
    let failed = |kind, why: &str| {
        Err(PortError::new(kind, format!("'{path}' was not written on '{}': {why}", host.shown())))
    };
    match said(&finished).trim() {
        "written" => Ok(()),
        "no-directory" => failed(PortErrorKind::NotFound, "its directory does not exist"),
        "directory" => failed(PortErrorKind::Malformed, "it is a directory"),
        "no-file" => failed(PortErrorKind::Malformed, "it is there and is not a regular file"),
        "not-owned" => {
            failed(PortErrorKind::Denied, &format!("its owner cannot be changed: {}", reason(&finished)))
        }
        "not-written" => {
            let reason = reason(&finished);
            let kind = match reason.contains("ermission denied") || reason.contains("ead-only") {
                true => PortErrorKind::Denied,
                false => PortErrorKind::Other,
            };
            failed(kind, &reason)
        }
        "differs" => failed(PortErrorKind::Other, "what arrived has another size or SHA-256; try again"),
        "not-synced" => Err(PortError::new(
            PortErrorKind::Other,
            format!("'{path}' on '{}' may not be durable: {}", host.shown(), reason(&finished)),
        )),
        _ => failed(PortErrorKind::Other, &format!("the script ended with {}", finished.end)),
    }
}

/// Reads a regular file of at most `max` bytes.
pub(crate) async fn get(
    pool: &Arc<Pool>,
    host: &SshHost,
    path: &str,
    max: usize,
) -> Result<Vec<u8>, PortError> {
    check(path)?;
    let text = format!("{SHA}{GET}");
    let failed = |kind, why: &str| PortError::new(kind, format!("'{path}' on '{}' {why}", host.shown()));
    // Shells count in 64 bits with a sign.
    let limit = max.min(i64::MAX as usize).to_string();
    for _ in 0..TRIES {
        let finished =
            copy(pool, host, &text, &[path, &limit], None, max.saturating_add(HEADER), DEADLINE).await?;
        let out = &finished.outputs.out;
        let (header, content) = match out.iter().position(|b| *b == b'\n') {
            Some(at) => (out.get(..at).unwrap_or_default(), out.get(at + 1..).unwrap_or_default()),
            None => (&out[..], &[][..]),
        };
        let header = String::from_utf8_lossy(header);
        match header.split(' ').collect::<Vec<_>>().as_slice() {
            ["content", size, hash] => {
                let same = size.parse() == Ok(content.len()) && (*hash == "-" || *hash == sum(content));
                if same {
                    return Ok(content.to_vec());
                }
                tracing::debug!(host = host.shown(), path, "a file changed while it was read");
            }
            ["absent"] => return Err(failed(PortErrorKind::NotFound, "does not exist")),
            ["no-file"] => return Err(failed(PortErrorKind::Malformed, "is not a regular file")),
            ["denied"] => return Err(failed(PortErrorKind::Denied, "may not be read")),
            ["long"] => return Err(failed(PortErrorKind::Malformed, &format!("is longer than {max} bytes"))),
            _ => {
                let why = format!("cannot be read: {} ({})", reason(&finished), finished.end);
                return Err(failed(PortErrorKind::Other, &why));
            }
        }
    }
    Err(failed(PortErrorKind::Malformed, "changes while it is read"))
}

fn check(path: &str) -> Result<(), PortError> {
    // A leading dash would be an option.
    match path.is_empty() || path.starts_with('-') || path.ends_with('/') {
        true => Err(config(format!("'{}' is not the path of a file", path.escape_default()))),
        false => Ok(()),
    }
}

fn sum(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn said(finished: &Finished) -> String {
    String::from_utf8_lossy(&finished.outputs.out).into_owned()
}

/// The first line that a tool of the host wrote on standard error.
fn reason(finished: &Finished) -> String {
    let text = String::from_utf8_lossy(&finished.outputs.err);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason given");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}
