//! The TLS configuration made of a caller's certificates, as in kwdb-scale-sql; here a client certificate is a must.

use std::sync::Arc;

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Pem, Secure};

/// TLS 1.2 and 1.3 with the *ring* provider, never the process default: an embedder may have set another one, or
/// two of them, in which case rustls would panic.
pub(crate) fn client_config(secure: &Secure) -> Result<ClientConfig, PortError> {
    let Some((cert, key)) = &secure.identity else {
        let message = "a secure cluster needs the client certificate of root or node with its key, and none is given \
                       (put client.root.crt and client.root.key beside ca.crt)";
        return Err(config_error(message));
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| config_error(format!("TLS cannot be set up: {e}")))?
        .with_root_certificates(roots(&secure.ca)?);
    let chain = certificates(cert, "client certificate")?;
    let der = PrivateKeyDer::from_pem_slice(&key.read("client key")?).map_err(|e| {
        let why = "is no unencrypted PKCS#1, SEC1 or PKCS#8 private key in PEM";
        config_error(format!("client key {} {why}: {e}", key.name())).with_source(e)
    })?;
    let mut config = builder.with_client_auth_cert(chain, der).map_err(|e| {
        let pair = format!("client certificate {} and key {}", cert.name(), key.name());
        config_error(format!("{pair} cannot be used together: {e}")).with_source(e)
    })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn roots(ca: &Pem) -> Result<RootCertStore, PortError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, "CA certificate")? {
        roots.add(certificate).map_err(|e| {
            config_error(format!("CA certificate {} cannot be used: {e}", ca.name())).with_source(e)
        })?;
    }
    Ok(roots)
}

fn certificates(pem: &Pem, what: &str) -> Result<Vec<CertificateDer<'static>>, PortError> {
    let bytes = pem.read(what)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(config_error(format!("{what} {} holds no certificate in PEM", pem.name())))
        }
        Ok(found) => Ok(found),
        Err(e) => Err(config_error(format!("{what} {} is damaged: {e}", pem.name())).with_source(e)),
    }
}

fn config_error(message: impl Into<String>) -> PortError {
    PortError::new(PortErrorKind::Config, message)
}
