//! DNS over TCP.

use tokio::net::TcpSocket;

use super::super::connections::MAX_CONNECTIONS;
use super::*;

fn large(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
    let mut reply = reply(query, ResponseCode::NoError);
    for _ in 0..150 {
        let text = TXT::new(vec!["x".repeat(250)]);
        reply.add_answer(Record::from_rdata(query.queries[0].name().clone(), 60, RData::TXT(text)));
    }
    reply.to_vec().ok()
}

async fn write_framed(stream: &mut TcpStream, query: &Message) {
    let query = query.to_vec().unwrap();
    stream.write_u16(query.len() as u16).await.unwrap();
    stream.write_all(&query).await.unwrap();
}

async fn read_framed(stream: &mut TcpStream) -> Message {
    let mut message = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut message).await.unwrap();
    Message::from_vec(&message).unwrap()
}

#[tokio::test]
async fn tcp_carries_large_answers_and_several_queries_at_a_time() {
    let world = World::new(silent, large).await;
    let mut stream = TcpStream::connect((OURS, world.port)).await.unwrap();
    let mut ids = HashSet::new();
    for n in 0..40 {
        let mut query = question(&format!("big{n}.example."), RecordType::TXT);
        query.metadata.id = n;
        ids.insert(n);
        let query = query.to_vec().unwrap();
        stream.write_u16(query.len() as u16).await.unwrap();
        stream.write_all(&query).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    while !ids.is_empty() {
        let answer = read_framed(&mut stream).await;
        assert_eq!(answer.answers.len(), 150);
        assert!(ids.remove(&answer.metadata.id));
    }
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "half-closed by us, closed by the responder");
}

#[tokio::test]
async fn names_that_wait_for_the_link_hold_up_none_behind_them_on_tcp() {
    let world = World::new(corporate, public).await;
    world.monitor.set(Liveness::Down);
    let mut stream = TcpStream::connect((OURS, world.port)).await.unwrap();
    for number in 0..100 {
        write_framed(&mut stream, &question(&format!("host{number}.corp.example."), RecordType::A)).await;
    }
    write_framed(&mut stream, &question("github.com.", RecordType::A)).await;
    let answer = timeout(Duration::from_secs(1), read_framed(&mut stream)).await.expect("it waits");
    assert_eq!(address(&answer), "203.0.113.1");
}

#[tokio::test]
async fn clients_that_read_nothing_hold_up_no_others() {
    fn large_by_tcp(query: &Message, bytes: &[u8]) -> Option<Vec<u8>> {
        let is_large = query.queries[0].query_type() == RecordType::TXT;
        if is_large { large(query, bytes) } else { with_address(query, [203, 0, 113, 1]) }
    }
    let world = World::new(corporate, large_by_tcp).await;
    let mut flood = Vec::new();
    for number in 0..2 * MAX_CONNECTIONS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect((OURS, world.port).into()).await.unwrap();
        let query = question(&format!("host{number}.flood.example."), RecordType::TXT).to_vec().unwrap();
        // What does not fit at once is not sent.
        let _sent = stream.try_write(&upstream::framed(&query).repeat(256));
        flood.push(stream);
        if number % 64 == 0 {
            assert_eq!(address(&world.ask("github.com.").await), "203.0.113.1");
        }
    }
    assert_eq!(address(&world.ask("other.example.").await), "203.0.113.1");
    let mut stream = TcpStream::connect((OURS, world.port)).await.unwrap();
    write_framed(&mut stream, &question("tcp.example.", RecordType::A)).await;
    assert_eq!(address(&read_framed(&mut stream).await), "203.0.113.1");
}

#[tokio::test]
async fn a_client_that_reads_nothing_displaces_no_answers_to_others() {
    let world = World::new(silent, large).await;
    let ask = |stream: &TcpStream, name: &str, times| {
        let query = question(name, RecordType::TXT).to_vec().unwrap();
        // What does not fit at once is not sent.
        let _sent = stream.try_write(&upstream::framed(&query).repeat(times));
    };
    let mut flood = Vec::new();
    for number in 0..MAX_CONNECTIONS - 1 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind("127.0.0.21:0".parse().unwrap()).unwrap();
        let stream = socket.connect((OURS, world.port).into()).await.unwrap();
        ask(&stream, &format!("host{number}.flood.example."), 256);
        flood.push(stream);
    }
    let mut other = TcpStream::connect((OURS, world.port)).await.unwrap();
    for _ in 0..4 {
        ask(&other, "big.example.", 16);
        for _ in 0..16 {
            read_framed(&mut other).await;
        }
    }
}
