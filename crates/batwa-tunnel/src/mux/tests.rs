use batwa_api::tunnel::CloseCode;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use super::*;

const QUICK: Timing = Timing {
    ping: Duration::from_millis(50),
    misses: 3,
};
/// Far above what anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// Two ends of a WebSocket over a pipe as small as a socket's buffers.
async fn sockets() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (agent, master) = tokio::io::duplex(64 << 10);
    let config = Some(crate::config());
    (
        WebSocketStream::from_raw_socket(agent, Role::Client, config).await,
        WebSocketStream::from_raw_socket(master, Role::Server, config).await,
    )
}

/// A tunnel whose agent serves each stream by `serve`.
struct Lab {
    opener: Opener,
    closer: Closer,
    tasks: JoinSet<Ended>,
}

async fn lab<F>(timing: Timing, serve: impl Fn(Stream) -> F + Send + 'static) -> Lab
where
    F: Future<Output = ()> + Send + 'static,
{
    let (agent, master) = sockets().await;
    let (master, opener, requests) = Mux::master(master, timing);
    let agent = Mux::agent(agent, timing);
    let closer = agent.closer();
    let (sender, mut streams) = arrivals();
    let mut tasks = JoinSet::new();
    tasks.spawn(master.run_master(requests));
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        let mut running = std::pin::pin!(agent.run_agent(sender));
        loop {
            tokio::select! {
                ended = &mut running => return ended,
                Some(stream) = streams.recv() => {
                    serving.spawn(serve(stream));
                }
            }
        }
    });
    Lab {
        opener,
        closer,
        tasks,
    }
}

async fn echo(mut stream: Stream) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..n]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

async fn within<T>(what: &str, step: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, step).await {
        Ok(done) => done,
        Err(_) => panic!("in vain: {what}"),
    }
}

async fn echoes(stream: &mut Stream, byte: u8) {
    within("the echo", async {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), byte);
    })
    .await;
}

#[tokio::test]
async fn many_streams_carry_their_own_bytes() {
    let lab = lab(Timing::default(), echo).await;
    let mut tasks = JoinSet::new();
    for n in 0..100_u8 {
        let opener = lab.opener.clone();
        tasks.spawn(async move {
            let stream = opener.open(Hold::Brief).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            let sent = vec![n; 300_000];
            let sending = async {
                write.write_all(&sent).await.unwrap();
                write.flush().await.unwrap();
            };
            let mut got = vec![0; sent.len()];
            let (_, read) = tokio::join!(sending, read.read_exact(&mut got));
            read.unwrap();
            assert_eq!(got, sent);
        });
    }
    within("all echoes", tasks.join_all()).await;
}

/// Writes for ever, whether anybody reads or not.
async fn flood(mut stream: Stream) {
    let chunk = vec![0; 16 << 10];
    while stream.write_all(&chunk).await.is_ok() {}
}

/// The first byte says which.
async fn flood_or_echo(mut stream: Stream) {
    match stream.read_u8().await {
        Ok(b'f') => flood(stream).await,
        Ok(_) => echo(stream).await,
        Err(_) => {}
    }
}

async fn asked_for(lab: &Lab, kind: u8) -> Stream {
    let mut stream = within("a stream", lab.opener.open(Hold::Brief))
        .await
        .unwrap();
    stream.write_all(&[kind]).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test]
async fn floods_that_nobody_reads_do_not_starve_the_others() {
    let lab = lab(Timing::default(), flood_or_echo).await;
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(asked_for(&lab, b'f').await);
    }
    let mut read = asked_for(&lab, b'f').await;
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while read.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    });
    let mut echo = asked_for(&lab, b'e').await;
    for byte in 0..100 {
        echoes(&mut echo, byte).await;
    }
}

#[tokio::test]
async fn an_abandoned_flood_ends_at_the_other_side_too() {
    let (ended, mut endings) = mpsc::channel(32);
    let lab = lab(Timing::default(), move |stream| {
        let ended = ended.clone();
        async move {
            flood(stream).await;
            ended.send(()).await.unwrap();
        }
    })
    .await;
    for _ in 0..20 {
        let mut stream = asked_for(&lab, b'!').await;
        let mut first = [0; 1024];
        stream.read_exact(&mut first).await.unwrap();
        // As a copy in both directions does: the one ends, then all is dropped.
        stream.shutdown().await.unwrap();
        drop(stream);
    }
    for _ in 0..20 {
        within("the writer ends", endings.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_written_before_the_end_arrives() {
    let lab = lab(Timing::default(), |mut stream| async move {
        // More than a window: the reader has to keep up for all of it to come.
        stream.write_all(&vec![7; 1 << 20]).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let mut stream = lab.opener.open(Hold::Brief).await.unwrap();
    // yamux tells of a stream with its first frame.
    stream.write_all(b"!").await.unwrap();
    stream.flush().await.unwrap();
    let mut all = Vec::new();
    within("the end", stream.read_to_end(&mut all))
        .await
        .unwrap();
    assert_eq!(all.len(), 1 << 20);
}

#[tokio::test]
async fn more_streams_than_there_may_be_wait_and_break_nothing() {
    let lab = lab(Timing::default(), flood_or_echo).await;
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS {
        let mut stream = asked_for(&lab, b'e').await;
        echoes(&mut stream, 0).await;
        open.push(stream);
    }
    let one_more = timeout(Duration::from_millis(200), lab.opener.open(Hold::Brief)).await;
    assert!(one_more.is_err(), "it waits");
    echoes(&mut open[0], 1).await;
    // As fast as they come and go, the tunnel stays.
    for _ in 0..2 * MAX_STREAMS {
        open.pop();
        open.push(asked_for(&lab, b'e').await);
    }
    echoes(open.last_mut().unwrap(), 2).await;
}

/// What yamux opens before the other side has said a word in any of them.
const UNDER_WAY: usize = 256;

#[tokio::test]
async fn as_many_as_can_be_under_way_come_before_the_first_is_taken() {
    let (agent, master) = sockets().await;
    let (master, opener, requests) = Mux::master(master, Timing::default());
    let agent = Mux::agent(agent, Timing::default());
    let (sender, mut streams) = arrivals();
    let mut tasks = JoinSet::new();
    tasks.spawn(master.run_master(requests));
    tasks.spawn(agent.run_agent(sender));

    let mut open = Vec::new();
    for _ in 0..UNDER_WAY {
        let mut stream = within("a stream", opener.open(Hold::Brief)).await.unwrap();
        stream.write_all(b"q").await.unwrap();
        stream.flush().await.unwrap();
        open.push(stream);
    }
    let mut serving = JoinSet::new();
    for _ in 0..UNDER_WAY {
        let stream = within("its other end", streams.recv()).await.unwrap();
        serving.spawn(echo(stream));
    }
    for stream in &mut open {
        let answer = within("an answer", stream.read_u8()).await;
        assert_eq!(answer.unwrap(), b'q');
    }
}

#[tokio::test]
async fn however_many_are_open_for_long_there_is_room_for_what_ends_soon() {
    let lab = lab(Timing::default(), echo).await;
    let mut long = Vec::new();
    for _ in 0..MAX_STREAMS - BRIEF_STREAMS {
        let mut stream = lab.opener.open(Hold::Long).await.unwrap();
        echoes(&mut stream, 0).await;
        long.push(stream);
    }
    let error = lab.opener.open(Hold::Long).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    let mut brief = within("a brief one", lab.opener.open(Hold::Brief))
        .await
        .unwrap();
    echoes(&mut brief, 1).await;
    long.pop();
    let mut again = within("its place", lab.opener.open(Hold::Long))
        .await
        .unwrap();
    echoes(&mut again, 2).await;
}

#[tokio::test]
async fn an_end_hears_the_others_reason() {
    let mut ended = lab(Timing::default(), echo).await;
    let reason = Closed::new(CloseCode::ShutOut, "an admin said so");
    ended.opener.close(reason.clone());
    let mut ends = Vec::new();
    while let Some(end) = within("the ends", ended.tasks.join_next()).await {
        ends.push(format!("{:?}", end.unwrap()));
    }
    ends.sort();
    assert_eq!(
        ends,
        [format!("ByPeer(Some({reason:?}))"), "ByUs".to_owned()]
    );
    let error = ended.opener.open(Hold::Brief).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);

    let mut stopped = lab(Timing::default(), echo).await;
    let going = Closed::new(CloseCode::GoingAway, "the agent stops");
    stopped.closer.close(going.clone());
    let ends = within("the ends", async {
        [
            stopped.tasks.join_next().await,
            stopped.tasks.join_next().await,
        ]
        .map(|end| format!("{:?}", end.unwrap().unwrap()))
    })
    .await;
    assert!(
        ends.contains(&format!("ByPeer(Some({going:?}))")),
        "{ends:?}"
    );
}

#[tokio::test]
async fn an_agent_that_opens_a_stream_is_cut_off() {
    let (agent, master) = sockets().await;
    let lying = Mux::agent(agent, Timing::default());
    let (master, _opener, requests) = Mux::master(master, Timing::default());
    let mut connection = lying.connection;
    let lie = async {
        let mut stream = poll_fn(|cx| connection.poll_new_outbound(cx))
            .await
            .unwrap();
        futures_util::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        while poll_fn(|cx| connection.poll_next_inbound(cx))
            .await
            .is_some()
        {}
    };
    let (ended, ()) = tokio::join!(within("the end", master.run_master(requests)), lie);
    assert!(
        matches!(&ended, Ended::Violation(what) if what.contains("opened a stream")),
        "{ended:?}"
    );
}

#[tokio::test]
async fn whoever_sends_text_or_nonsense_breaks_the_rules() {
    for message in [
        Message::text("{}"),
        Message::binary(vec![0xff; 64]),
        Message::binary(vec![0; 3 * crate::socket::MAX_MESSAGE]),
    ] {
        let (mut agent, master) = sockets().await;
        let (master, _opener, requests) = Mux::master(master, Timing::default());
        let sending = async {
            let _ = agent.send(message.clone()).await;
            while let Some(Ok(_)) = agent.next().await {}
        };
        let (ended, ()) = tokio::join!(within("the end", master.run_master(requests)), sending);
        assert!(matches!(ended, Ended::Violation(_)), "{ended:?}");
    }
}

#[tokio::test]
async fn silence_is_noticed_and_signs_of_life_are_enough() {
    let mut alive = lab(QUICK, echo).await;
    let quiet = timeout(QUICK.ping * 10, alive.tasks.join_next()).await;
    assert!(quiet.is_err(), "pings keep it open: {quiet:?}");

    // Somebody who takes everything and says nothing.
    let (agent, master) = tokio::io::duplex(64 << 10);
    let config = Some(crate::config());
    let master = WebSocketStream::from_raw_socket(master, Role::Server, config).await;
    let (master, _opener, requests) = Mux::master(master, QUICK);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut read, _write) = tokio::io::split(agent);
        tokio::io::copy(&mut read, &mut tokio::io::sink()).await
    });
    let ended = within("the end", master.run_master(requests)).await;
    assert!(
        matches!(&ended, Ended::Broken(why) if why.contains("said nothing")),
        "{ended:?}"
    );
}

#[tokio::test]
async fn whoever_never_reads_is_gone_in_time_and_takes_little_memory() {
    let (agent, master) = tokio::io::duplex(64 << 10);
    let config = Some(crate::config());
    let master = WebSocketStream::from_raw_socket(master, Role::Server, config).await;
    let (master, opener, requests) = Mux::master(master, QUICK);
    let mut tasks: JoinSet<()> = JoinSet::new();
    // It says things all the time, so that it counts as alive, and never reads.
    tasks.spawn(async move {
        let (_read, mut write) = tokio::io::split(agent);
        // An unmasked-looking ping is no use: a masked one without payload.
        let ping = [0x89, 0x80, 1, 2, 3, 4];
        while write.write_all(&ping).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    for _ in 0..4 {
        let opener = opener.clone();
        tasks.spawn(async move {
            if let Ok(stream) = opener.open(Hold::Brief).await {
                flood(stream).await;
            }
        });
    }
    let ended = within("the end", master.run_master(requests)).await;
    assert!(
        matches!(&ended, Ended::Broken(why) if why.contains("taken nothing")),
        "{ended:?}"
    );
}
