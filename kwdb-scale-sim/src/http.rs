//! The HTTP port: `/health` and `/health?ready=1`, the paths that need no session on a secure cluster. KWDB V3.2.1.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_rustls::TlsAcceptor;

use crate::pgwire::{Stream, with_prefix};

/// What `/health?ready=1` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Readiness {
    Ready,
    /// Why not.
    Not(&'static str),
}

const MAX_HEAD: u64 = 16 << 10;

/// Serves one connection of the HTTP port to its end.
pub(crate) async fn serve<S: Stream>(
    mut stream: S,
    tls: Option<TlsAcceptor>,
    readiness: impl Fn() -> Readiness,
) -> io::Result<()> {
    let first = stream.read_u8().await?;
    let stream = with_prefix(vec![first], stream);
    match tls {
        Some(acceptor) if first == 0x16 => requests(acceptor.accept(stream).await?, false, readiness).await,
        tls => requests(stream, tls.is_some(), readiness).await,
    }
}

async fn requests<S: Stream>(stream: S, redirect: bool, readiness: impl Fn() -> Readiness) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = (&mut stream).take(MAX_HEAD);
        let mut request = String::new();
        if head.read_line(&mut request).await? == 0 {
            return Ok(());
        }
        let (mut line, mut host, mut close) =
            (String::new(), String::new(), request.ends_with("HTTP/1.0\r\n"));
        while head.read_line(&mut line).await? > 2 {
            let (name, value) = line.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "host" => value.trim().clone_into(&mut host),
                "connection" => close |= value.trim().eq_ignore_ascii_case("close"),
                _ => {}
            }
            line.clear();
        }
        let target = request.split_whitespace().nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let answer = match path {
            "/health" if query.split('&').any(|p| matches!(p, "ready=1" | "ready=true")) => match readiness()
            {
                Readiness::Ready => response("200 OK", HEALTHY),
                Readiness::Not(why) => unavailable(why),
            },
            "/health" => response("200 OK", HEALTHY),
            _ if redirect => format!(
                "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://{host}{target}\r\nContent-Length: 0\r\n\r\n"
            ),
            _ => response("404 Not Found", "Not Found\n"),
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        if close {
            return stream.shutdown().await;
        }
    }
}

const HEALTHY: &str = "{\n\n}";

fn unavailable(message: &str) -> String {
    let body = format!(
        "{{\n  \"error\": \"{message}\",\n  \"message\": \"{message}\",\n  \"code\": 14,\n  \"details\": [\n  ]\n}}"
    );
    response("503 Service Unavailable", &body)
}

fn response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nCache-Control: no-cache\r\nContent-Type: application/json\r\n\
         X-Frame-Options: DENY\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(target: &str, readiness: Readiness) -> String {
        let (mut client, server) = tokio::io::duplex(4096);
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        serve(server, None, || readiness).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_is_about_the_process_and_readiness_about_the_node() {
        assert!(get("/health", Readiness::Not("node is waiting")).await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(get("/health?ready=1", Readiness::Ready).await.ends_with("\r\n\r\n{\n\n}"));
        let answer = get("/health?ready=1", Readiness::Not("node is shutting down")).await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(answer.contains("\"message\": \"node is shutting down\""));
        assert!(get("/nowhere", Readiness::Ready).await.starts_with("HTTP/1.1 404"));
    }
}
