//! The installer's files MODE and NODE (`kaiwudb_install/utils/kaiwudb_install.sh`, `create_info_files`).

use super::{InstallMethod, Installed, Peers};
use crate::topology::StartMode;

/// Reads the lines of MODE; why they make no sense otherwise.
pub(super) fn mode(lines: &[&str]) -> Result<Installed, String> {
    let lines: Vec<&str> = lines.iter().map(|l| l.trim()).filter(|l| !l.is_empty()).collect();
    // Line 9 is told from V2.2.0 on; the address is the last line of every release.
    let [method, mode, place, data_root, port, http_port, user, security, .., address] = lines.as_slice()
    else {
        return Err(format!("it has {} lines, fewer than any release writes", lines.len()));
    };
    let number =
        |what: &str, text: &str| text.parse().map_err(|_| format!("its {what} is '{}'", shown(text)));
    Ok(Installed {
        method: match *method {
            "bare" => InstallMethod::Bare,
            "container" => InstallMethod::Container,
            other => return Err(format!("its method is '{}', neither bare nor container", shown(other))),
        },
        start_mode: match *mode {
            "single" => StartMode::SingleNode,
            "single-replication" => StartMode::SingleReplica,
            "multi-replication" => StartMode::MultiReplica,
            other => return Err(format!("its start mode is '{}', which no release writes", shown(other))),
        },
        place: (*place).to_owned(),
        data_root: (*data_root).to_owned(),
        port: number("port", port)?,
        http_port: number("HTTP port", http_port)?,
        user: (*user).to_owned(),
        security: match *security {
            "tls" | "tlcp" | "insecure" => (*security).to_owned(),
            other => return Err(format!("its security is '{}', none of tls, tlcp, insecure", shown(other))),
        },
        address: (*address).to_owned(),
    })
}

/// Reads the lines of NODE.
pub(super) fn node(lines: &[&str]) -> Peers {
    let line = |at: usize| lines.get(at).map(|l| l.trim()).filter(|l| !l.is_empty());
    Peers {
        addresses: line(0).map(|l| l.split_whitespace().map(str::to_owned).collect()).unwrap_or_default(),
        ssh_port: line(1).and_then(|l| l.parse().ok()),
        ssh_user: line(2).map(str::to_owned),
    }
}

/// Of a text from outside, what is fit to be shown.
fn shown(text: &str) -> String {
    text.escape_debug().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_of_each_release() {
        let v3 = "bare\nmulti-replication\n/usr/local/kaiwudb\n/var/lib/kaiwudb\n26257\n8080\nkaiwudb\ntls\nfalse\n10.0.0.4";
        let found = mode(&v3.lines().collect::<Vec<_>>()).unwrap();
        assert_eq!(found.start_mode, StartMode::MultiReplica);
        assert_eq!((found.address.as_str(), found.port, found.secure()), ("10.0.0.4", 26257, true));
        // Before V2.2.0 there is no line about encryption.
        let v2: Vec<&str> = v3.lines().filter(|l| *l != "false").collect();
        assert_eq!(mode(&v2).unwrap(), found);
        let container = v3.replace("bare", "container").replace("multi", "single").replace("tls", "insecure");
        let found = mode(&container.lines().collect::<Vec<_>>()).unwrap();
        assert_eq!(
            (found.method, found.start_mode.clone()),
            (InstallMethod::Container, StartMode::SingleReplica)
        );
        assert!(!found.secure());
        for (from, to, word) in [
            ("bare", "bear", "method"),
            ("multi-replication", "start", "start mode"),
            ("26257", "x", "port"),
            ("tls", "", "security"),
            ("\nkaiwudb\ntls\nfalse", "", "lines"),
        ] {
            let text = v3.replacen(from, to, 1);
            let why = mode(&text.lines().collect::<Vec<_>>()).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn node_lists_the_others() {
        let found = node(&["10.0.0.2 10.0.0.3", "22", "root"]);
        assert_eq!(found.addresses, ["10.0.0.2", "10.0.0.3"]);
        assert_eq!((found.ssh_port, found.ssh_user.as_deref()), (Some(22), Some("root")));
        assert_eq!(node(&[]), Peers { addresses: Vec::new(), ssh_port: None, ssh_user: None });
    }
}
