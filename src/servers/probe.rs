//! Asking a server whether it answers, in its own protocol, with nothing but a socket.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);

/// `GET path` from a plain HTTP server on 127.0.0.1, within five seconds: the status and the body.
pub async fn http_get(port: u16, path: &str) -> io::Result<(u16, String)> {
    timeout(PATIENCE, get(port, path)).await?
}

async fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    // HTTP/1.0: the answer is not chunked and ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Whether a connection is taken there: what can be known of a server that speaks TLS.
pub(super) async fn accepts(port: u16) -> bool {
    matches!(timeout(PATIENCE, TcpStream::connect(("127.0.0.1", port))).await, Ok(Ok(_)))
}

/// Whether a plain-text HTTP/2 server, which is what gRPC speaks, sends its SETTINGS frame (RFC 9113 §3.4, §6.5).
pub(super) async fn speaks_http2(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await?;
        // length (3), type (1), flags (1), stream (4)
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await?;
        io::Result::Ok(frame[3] == 4)
    };
    matches!(timeout(PATIENCE, ask).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        assert_eq!(parse("HTTP/1.0 200 OK\r\na: b\r\n\r\nOK"), Some((200, "OK".to_owned())));
        assert_eq!(parse("HTTP/1.1 503 No\r\n\r\n"), Some((503, String::new())));
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
        assert_eq!(parse(""), None);
    }
}
