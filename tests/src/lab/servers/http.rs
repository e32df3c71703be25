//! A web server of one connection a request: enough of HTTP/1.1 for curl.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the host's name |
//! | `GET /whoami` | the client's address |
//! | `GET /bytes/N` | the first N bytes of the [`Pattern`] |
//! | `POST /sink`, `PUT /sink` | how many bytes came, and their SHA-256 |

use std::io;
use std::net::SocketAddr;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Pattern, hex};

struct Request {
    method: String,
    path: String,
    length: u64,
    expects_continue: bool,
}

pub(super) async fn serve(name: &'static str, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(256 * 1024, stream);
    let request = read_request(&mut stream).await?;
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => answer(&mut stream, "200 OK", &format!("hello from {name}\n")).await?,
        ("GET", "/whoami") => answer(&mut stream, "200 OK", &format!("{}\n", peer.ip())).await?,
        ("POST" | "PUT", "/sink") => {
            if request.expects_continue {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            let hash = hash(&mut stream, request.length).await?;
            answer(&mut stream, "200 OK", &format!("{} {hash}\n", request.length)).await?;
        }
        ("GET", path) => match path.strip_prefix("/bytes/").and_then(|count| count.parse().ok()) {
            Some(count) => bytes(&mut stream, count).await?,
            None => answer(&mut stream, "404 Not Found", "no such page\n").await?,
        },
        _ => answer(&mut stream, "405 Method Not Allowed", "no such method\n").await?,
    }
    stream.shutdown().await
}

async fn read_request(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, path, length: 0, expects_continue: false };
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await?;
        let header = header.trim_end().to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("content-length", length)) => {
                request.length = length.parse().map_err(|_| io::ErrorKind::InvalidData)?;
            }
            Some(("expect", _)) => request.expects_continue = true,
            Some(_) => {}
            None => return Ok(request),
        }
    }
}

/// Reads a request without a body; gives its path.
pub(in super::super) async fn read_path(stream: &mut TcpStream) -> io::Result<String> {
    Ok(read_request(&mut BufReader::new(stream)).await?.path)
}

async fn answer(stream: &mut BufReader<TcpStream>, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

async fn bytes(stream: &mut BufReader<TcpStream>, count: u64) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut pattern = Pattern::new(count);
    while let Some(block) = pattern.next_block() {
        stream.write_all(block).await?;
    }
    Ok(())
}

async fn hash(stream: &mut BufReader<TcpStream>, length: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut left = length;
    let mut buffer = vec![0; 256 * 1024];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = stream.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&buffer[..read]);
        left -= read as u64;
    }
    Ok(hex(hash))
}
