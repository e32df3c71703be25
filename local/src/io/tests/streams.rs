//! TCP.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use socket2::SockRef;

use super::super::stream::MAX_STREAMS;
use super::codespace::{Codespace, GATEWAY, io, run};

/// A server on loopback that treats its one client as `serve` says.
fn server<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, thread::spawn(move || serve(listener.accept().unwrap().0)))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Sends all of `bytes`, as the window allows.
fn offer(socket: &mut tcp::Socket<'_>, bytes: &mut &[u8]) {
    while socket.can_send() && !bytes.is_empty() {
        let sent = socket.send_slice(bytes).unwrap();
        *bytes = &bytes[sent..];
    }
}

/// Reads the bytes that have arrived.
fn drain(socket: &mut tcp::Socket<'_>, into: &mut Vec<u8>) {
    while socket.can_recv() {
        socket
            .recv(|bytes| {
                into.extend_from_slice(bytes);
                (bytes.len(), ())
            })
            .unwrap();
    }
}

async fn connected(codespace: &mut Codespace, server: SocketAddr) -> SocketHandle {
    let handle = codespace.connect(server);
    codespace.until(|codespace| codespace.tcp(handle).may_send().then_some(())).await;
    handle
}

#[tokio::test]
async fn bytes_arrive_complete_in_both_directions_and_each_ends_independently() {
    let (address, served) = server(|mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        // The client has ended its direction; it still receives.
        stream.write_all(&pattern(5_000_000)).unwrap();
        request
    });
    let (mut codespace, laptop) = Codespace::new();
    let running = run(io(), laptop);
    codespace.greet().await;
    let handle = connected(&mut codespace, address).await;
    let request = pattern(3_000_000);
    let mut rest = &request[..];
    codespace
        .until(|codespace| {
            offer(codespace.tcp(handle), &mut rest);
            rest.is_empty().then(|| codespace.tcp(handle).close())
        })
        .await;
    let mut response = Vec::new();
    codespace
        .until(|codespace| {
            drain(codespace.tcp(handle), &mut response);
            (!codespace.tcp(handle).may_recv()).then_some(())
        })
        .await;
    assert!(served.join().unwrap() == request);
    assert!(response == pattern(5_000_000), "{} bytes", response.len());
    drop(running);
}

#[tokio::test]
async fn urgent_data_stays_in_the_stream_and_does_not_hold_it_up() {
    let (go, told) = mpsc::channel();
    let (done, written) = mpsc::channel();
    let (address, served) = server(move |mut stream| {
        told.recv().unwrap();
        stream.write_all(b"before").unwrap();
        SockRef::from(&stream).send_out_of_band(b"!").unwrap();
        stream.write_all(b"after").unwrap();
        done.send(()).unwrap();
        // Nothing more happens on the connection until everything has been received.
        told.recv().unwrap();
    });
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    let handle = connected(&mut codespace, address).await;
    go.send(()).unwrap();
    // All is there by the time the io, which shares this thread, looks.
    written.recv().unwrap();
    let mut heard = Vec::new();
    codespace
        .until(|codespace| {
            drain(codespace.tcp(handle), &mut heard);
            (heard == b"before!after").then_some(())
        })
        .await;
    go.send(()).unwrap();
    served.join().unwrap();
}

#[tokio::test]
async fn a_server_that_ends_first_still_receives() {
    let (address, served) = server(|mut stream| {
        stream.write_all(b"welcome").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    });
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    let handle = connected(&mut codespace, address).await;
    let mut heard = Vec::new();
    codespace
        .until(|codespace| {
            drain(codespace.tcp(handle), &mut heard);
            (!codespace.tcp(handle).may_recv()).then_some(())
        })
        .await;
    assert_eq!(heard, b"welcome");
    let said = pattern(700_000);
    let mut rest = &said[..];
    codespace
        .until(|codespace| {
            offer(codespace.tcp(handle), &mut rest);
            rest.is_empty().then(|| codespace.tcp(handle).close())
        })
        .await;
    codespace.until(|codespace| (!codespace.tcp(handle).is_active()).then_some(())).await;
    assert!(served.join().unwrap() == said);
}

#[tokio::test]
async fn a_closed_port_refuses_at_once() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    let begun = std::time::Instant::now();
    let handle = codespace.connect(closed);
    codespace.until(|codespace| (codespace.tcp(handle).state() == tcp::State::Closed).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_millis(900), "sooner than a SYN is repeated");
}

#[tokio::test]
async fn a_reset_of_the_server_is_a_reset_here() {
    let (address, served) = server(|mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    let handle = connected(&mut codespace, address).await;
    codespace.tcp(handle).send_slice(b"x").unwrap();
    codespace.until(|codespace| (codespace.tcp(handle).state() == tcp::State::Closed).then_some(())).await;
    served.join().unwrap();
}

#[tokio::test]
async fn data_before_a_servers_reset_arrives() {
    // A server that answers without having read the whole request resets when it closes. Its answer is in our
    // socket by then, if it fits the initial window.
    let (address, served) = server(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(&pattern(30_000)).unwrap();
    });
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    let handle = connected(&mut codespace, address).await;
    codespace.tcp(handle).send_slice(b"a long request").unwrap();
    let mut heard = Vec::new();
    codespace
        .until(|codespace| {
            let socket = codespace.tcp(handle);
            drain(socket, &mut heard);
            (socket.state() == tcp::State::Closed).then_some(())
        })
        .await;
    assert!(heard == pattern(30_000), "{} bytes", heard.len());
    served.join().unwrap();
}

#[tokio::test]
async fn an_idle_connection_costs_no_work() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let (address, served) = server(move |_stream| wait.recv().unwrap());
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    connected(&mut codespace, address).await;
    codespace.pass(Duration::from_millis(200)).await;
    // The test's one thread runs both ends.
    let used = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().user_time().num_milliseconds();
    let before = used();
    codespace.pass(Duration::from_secs(1)).await;
    assert!(used() - before < 200, "{} ms of a second", used() - before);
    done.send(()).unwrap();
    served.join().unwrap();
}

#[tokio::test]
async fn a_reset_of_the_program_is_a_reset_at_the_server() {
    let (address, served) = server(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map_err(|error| error.kind())
    });
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    let handle = connected(&mut codespace, address).await;
    codespace.tcp(handle).send_slice(b"half a requ").unwrap();
    codespace.until(|codespace| (codespace.tcp(handle).send_queue() == 0).then_some(())).await;
    codespace.tcp(handle).abort();
    codespace.pass(Duration::from_millis(50)).await;
    assert_eq!(served.join().unwrap(), Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_server_that_stops_reading_blocks_the_writer() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let (address, served) = server(move |mut stream| {
        wait.recv().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.len()
    });
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    let handle = connected(&mut codespace, address).await;
    let chunk = pattern(64 * 1024);
    let mut taken = 0;
    let mut quiet_since = std::time::Instant::now();
    codespace
        .until(|codespace| {
            let mut rest = &chunk[..];
            offer(codespace.tcp(handle), &mut rest);
            let sent = chunk.len() - rest.len();
            if sent > 0 {
                quiet_since = std::time::Instant::now();
            }
            taken += sent;
            (taken > 64_000_000 || quiet_since.elapsed() > Duration::from_millis(700)).then_some(())
        })
        .await;
    assert!(taken < 32_000_000, "{taken} bytes were taken");
    codespace.tcp(handle).close();
    done.send(()).unwrap();
    codespace.until(|_| served.is_finished().then_some(())).await;
    assert_eq!(served.join().unwrap(), taken, "once it reads again, it gets every byte");
}

#[tokio::test]
async fn many_connections_at_once_are_kept_apart() {
    const COUNT: usize = 200;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread::spawn(move || {
        let clients: Vec<_> = listener.incoming().take(COUNT).map(Result::unwrap).collect();
        for mut client in clients {
            let mut name = [0; 8];
            client.read_exact(&mut name).unwrap();
            client.write_all(&name.repeat(1000)).unwrap();
        }
    });
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    let handles: Vec<_> = (0..COUNT).map(|_| codespace.connect(address)).collect();
    let mut sent = [false; COUNT];
    let mut heard = vec![Vec::new(); COUNT];
    codespace
        .until(|codespace| {
            for (number, handle) in handles.iter().enumerate() {
                let socket = codespace.tcp(*handle);
                if socket.can_send() && !std::mem::replace(&mut sent[number], true) {
                    socket.send_slice(format!("{number:08}").as_bytes()).unwrap();
                }
                drain(socket, &mut heard[number]);
            }
            heard.iter().all(|heard| heard.len() == 8000).then_some(())
        })
        .await;
    for (number, heard) in heard.iter().enumerate() {
        assert!(*heard == format!("{number:08}").repeat(1000).into_bytes());
    }
    served.join().unwrap();
}

#[tokio::test]
async fn pipelined_queries_over_tcp_are_answered_and_the_stream_ends_with_its_client() {
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    let handle = connected(&mut codespace, SocketAddr::new(GATEWAY.into(), 53)).await;
    const QUESTIONS: u16 = 100;
    let mut asked = Vec::new();
    for id in 0..QUESTIONS {
        let question = question(id);
        asked.extend_from_slice(&(question.len() as u16).to_be_bytes());
        asked.extend_from_slice(&question);
    }
    let mut rest = &asked[..];
    let mut heard = Vec::new();
    codespace
        .until(|codespace| {
            let socket = codespace.tcp(handle);
            offer(socket, &mut rest);
            if rest.is_empty() {
                socket.close();
            }
            drain(socket, &mut heard);
            (!socket.may_recv()).then_some(())
        })
        .await;
    let mut ids = std::collections::BTreeSet::new();
    let mut rest = &heard[..];
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let (answer, more) = more.split_at(u16::from_be_bytes(*length).into());
        ids.insert(u16::from_be_bytes([answer[0], answer[1]]));
        rest = more;
    }
    assert_eq!(ids.len(), usize::from(QUESTIONS));
}

/// A TXT query, which a resolver without nameservers answers at once with a failure.
fn question(id: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(b"\x01\0\0\x01\0\0\0\0\0\0\x04corp\0\0\x10\0\x01");
    message
}

#[tokio::test]
async fn streams_to_the_resolver_that_nobody_reads_give_way_to_one_that_asks() {
    const TOO_MANY: usize = 100;
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    let resolver = SocketAddr::new(GATEWAY.into(), 53);
    let framed = |id| [&(question(id).len() as u16).to_be_bytes(), &question(id)[..]].concat();
    let mut flood = Vec::new();
    for _ in 0..MAX_STREAMS + TOO_MANY {
        let handle = codespace.connect_with(resolver, 512);
        codespace.until(|codespace| codespace.tcp(handle).may_send().then_some(())).await;
        codespace.tcp(handle).send_slice(&framed(1)).unwrap();
        flood.push(handle);
    }
    let client = connected(&mut codespace, resolver).await;
    codespace.tcp(client).send_slice(&framed(9)).unwrap();
    let mut answer = Vec::new();
    codespace
        .until(|codespace| {
            drain(codespace.tcp(client), &mut answer);
            (answer.len() > 4).then_some(())
        })
        .await;
    assert_eq!(answer[2..4], 9_u16.to_be_bytes());
    let reset = |codespace: &mut Codespace| {
        flood.iter().filter(|&&handle| !codespace.tcp(handle).is_active()).count()
    };
    codespace.until(|codespace| (reset(codespace) > TOO_MANY).then_some(())).await;
    assert_eq!(reset(&mut codespace), TOO_MANY + 1, "those that were too many, and no other");
}
