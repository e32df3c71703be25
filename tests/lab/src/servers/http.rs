//! A web server with one request per connection: enough of HTTP/1.1 for curl.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the host's name |
//! | `GET /whoami` | the client's address |
//! | `GET /bytes/N` | the first N bytes of the [`Pattern`] |
//! | `POST /sink`, `PUT /sink` | the number of received bytes, and their SHA-256 |

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use sha2::{Digest, Sha256};

use super::{BUFFER, Pattern, hex};

struct Request {
    method: String,
    path: String,
    length: u64,
    expects_continue: bool,
}

pub(super) fn serve(name: &'static str, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    let request = read_request(&mut stream)?;
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => answer(&mut stream, "200 OK", &format!("hello from {name}\n"))?,
        ("GET", "/whoami") => answer(&mut stream, "200 OK", &format!("{}\n", peer.ip()))?,
        ("POST" | "PUT", "/sink") => {
            if request.expects_continue {
                stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let hash = hash(&mut stream, request.length)?;
            answer(&mut stream, "200 OK", &format!("{} {hash}\n", request.length))?;
        }
        ("GET", path) => match path.strip_prefix("/bytes/").and_then(|count| count.parse().ok()) {
            Some(count) => bytes(&mut stream, count)?,
            None => answer(&mut stream, "404 Not Found", "no such page\n")?,
        },
        _ => answer(&mut stream, "405 Method Not Allowed", "no such method\n")?,
    }
    stream.get_ref().shutdown(Shutdown::Write)
}

fn read_request(stream: &mut impl BufRead) -> io::Result<Request> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, path, length: 0, expects_continue: false };
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
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

/// Reads a request without a body; returns its path.
pub(in super::super) fn read_path(stream: &mut TcpStream) -> io::Result<String> {
    Ok(read_request(&mut BufReader::new(stream))?.path)
}

fn answer(stream: &mut BufReader<TcpStream>, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.get_mut().write_all(format!("{head}{body}").as_bytes())
}

fn bytes(stream: &mut BufReader<TcpStream>, count: u64) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\nConnection: close\r\n\r\n");
    stream.get_mut().write_all(head.as_bytes())?;
    let mut pattern = Pattern::new(count);
    while let Some(block) = pattern.next_block() {
        stream.get_mut().write_all(block)?;
    }
    Ok(())
}

fn hash(stream: &mut BufReader<TcpStream>, length: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut left = length;
    let mut buffer = vec![0; BUFFER];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = stream.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&buffer[..read]);
        left -= read as u64;
    }
    Ok(hex(hash))
}
