//! The TCP stream of a connection: small packets go out at once, and what comes in is acknowledged at once.
//!
//! A server that leaves Nagle's algorithm on, as sshd does for a command without a terminal, holds its next small packet
//! until the last is acknowledged, and the kernel acknowledges up to 40 ms late in a conversation. The kernel leaves
//! that mode when it is told so, and falls back by itself: it is told after every read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

/// Bytes taken from the socket at once. The protocol library asks for the four of a packet's length first.
const BUFFER: usize = 32 << 10;

/// See above.
pub(crate) struct QuickStream(TcpStream);

impl QuickStream {
    pub(crate) async fn connect(host: &str, port: u16) -> io::Result<BufReader<Self>> {
        let stream = TcpStream::connect((host, port)).await?;
        // Both only cost time where they fail.
        let _ = stream.set_nodelay(true);
        Ok(BufReader::with_capacity(BUFFER, Self(stream)))
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn acknowledge(&self) {
        let _ = self.0.set_quickack(true);
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn acknowledge(&self) {}
}

impl AsyncRead for QuickStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.0).poll_read(cx, buf);
        if matches!(result, Poll::Ready(Ok(()))) && buf.filled().len() > before {
            self.acknowledge();
        }
        result
    }
}

impl AsyncWrite for QuickStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
