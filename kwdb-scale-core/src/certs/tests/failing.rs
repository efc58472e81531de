//! Installations that fail after they were committed, on the whole way through [`Kwbase`].

use super::*;
use crate::kwbase::{Authority, Kwbase};
use crate::ports::{CertificateControl as _, CertifyHost};
use crate::request::Certificates;

/// An installation that can be committed and not be finished: what was staged, keys among it, goes with the failure.
#[tokio::test]
async fn what_cannot_be_put_in_place_is_not_left_beside_it() {
    // A file, or a link to nowhere, where the directory is to be.
    let in_the_way = |machine: &Machine, link: bool| {
        fs::create_dir(machine.root.join("etc")).unwrap();
        match link {
            true => std::os::unix::fs::symlink("nowhere", machine.dir()).unwrap(),
            false => fs::write(machine.dir(), "somebody's").unwrap(),
        }
    };
    let install = async |machine: &Machine, fails: Here| {
        let host = machine.host.clone();
        let kwbase = Kwbase::new(Arc::new(fails), [host]).unwrap();
        let kwbase = kwbase.with_authority(Authority::new(Arc::new(machine.issuer())));
        let order = order(&["10.0.0.5"]);
        let job = CertifyHost {
            host: "n5".into(),
            method: Certificates::Issue,
            authority: order.authority,
            names: order.names,
            tag: TAG.to_owned(),
            fresh: true,
            made: None,
            now: order.now,
            deadline: Duration::from_secs(240),
        };
        let error = kwbase.install(&job).await.unwrap_err();
        (error, kwbase.look(&job).await.unwrap())
    };
    for link in [false, true] {
        let machine = Machine::new(&format!("in the way {link}"));
        in_the_way(&machine, link);
        let (error, look) = install(&machine, Here::default()).await;
        assert!(error.to_string().starts_with("kwbase installation of certificates on n5"), "{error}");
        assert!(!error.kind().may_have_been_done(), "{error:?}");
        assert_eq!((look.leftovers, look.state), (vec![], CertificateState::Untouched));
        let beside = fs::read_dir(machine.root.join("etc")).unwrap().count();
        assert_eq!(beside, 1, "what was in the way, alone");
        assert!(machine.dir().is_symlink() == link && (link || machine.dir().is_file()));
    }
    // Where that fails too, nobody may think that the old set is in place, and what is left is told.
    for (kind, told) in
        [(None, PortErrorKind::Other), (Some(PortErrorKind::Unreachable), PortErrorKind::ConnectionLost)]
    {
        let machine = Machine::new(&format!("in the way {told:?}"));
        in_the_way(&machine, false);
        let (error, look) = install(&machine, Here { fails: Some(("restore", kind)) }).await;
        assert_eq!(error.kind(), told);
        let text = error.to_string();
        let words = ["kwbase installation of certificates", "could not be taken back"];
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert_eq!(look.state, CertificateState::Half);
        assert!(look.leftovers[0].contains(".new-"), "{look:?}");
    }
}
