//! Terminals of people who mean harm: what they send ends at most their own connection.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;

use crate::{
    lab::{DEADLINE, INSTANT, Lab, Terminal},
    sharing::{attach, open},
};

/// Memory that one hostile viewer may cost, whatever it sends, in bytes: a message as long as one may be, twice.
const MOST_MEMORY: u64 = 160 << 20;

/// A frame's first bytes as a client sends them, with a mask that changes nothing.
fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 127];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

/// Bytes of memory that the master's process has in use.
fn memory(lab: &Lab) -> u64 {
    let process = lab.master.as_ref().expect("it runs").id();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .expect("its memory");
    kib << 10
}

/// Sends one frame after another until the other side takes no more.
async fn pours(terminal: &mut Terminal, mut frame: impl FnMut(u64) -> Vec<u8>) {
    let began = Instant::now();
    for n in 0.. {
        if !terminal.puts(&frame(n)).await {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "all of it is taken");
    }
}

#[tokio::test]
async fn a_gigabyte_in_one_frame_or_in_many_ends_its_viewer_alone() {
    let lab = Lab::up().await;
    let _member = lab.member("far").await;
    lab.create_vm("local", "web").await;
    lab.create_vm("far", "web").await;
    for agent in ["local", "far"] {
        let body = json!({"agent_id": agent, "vm": "web", "cols": 80, "rows": 24});
        let opened = lab.admin.post("/api/v1/terminals", body).await.expect(201);
        let id = opened["id"].as_str().expect("an id").to_owned();
        let mut good = attach(&lab.admin, &id).await;
        good.types_bytes(b"stty -echo; cat\n").await;
        good.types_bytes(b"ready\n").await;
        good.shows("ready").await;
        let before = memory(&lab);

        // It says a gigabyte, and means it.
        let mut whole = attach(&lab.admin, &id).await;
        assert!(whole.puts(&header(0x82, 1 << 30)).await);
        pours(&mut whole, |_| vec![b'x'; 64 << 10]).await;
        let closed = whole.closed().await;
        assert!(
            matches!(closed.code, Some(1002) | None),
            "{agent}: {closed:?}"
        );

        // Each frame is small; the message has no end.
        let mut parts = attach(&lab.admin, &id).await;
        pours(&mut parts, |n| {
            let mut frame = header(if n == 0 { 0x02 } else { 0x00 }, 1 << 20);
            frame.resize(frame.len() + (1 << 20), b'x');
            frame
        })
        .await;
        parts.closed().await;

        // And one that leaves in the middle of it.
        let mut half = attach(&lab.admin, &id).await;
        assert!(half.puts(&header(0x82, 1 << 20)).await);
        assert!(half.puts(&[b'x'; 1000]).await);
        drop(half);

        let grown = memory(&lab).saturating_sub(before);
        assert!(grown < MOST_MEMORY, "{agent}: {grown} bytes more");
        good.types_bytes(b"still here\n").await;
        good.shows("still here").await;
        assert!(
            !good.screen().contains("xxx"),
            "{agent}: some of it was typed"
        );
    }
}

#[tokio::test]
async fn what_is_no_frame_of_the_protocol_ends_its_viewer_with_the_reason() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let id = open(&lab.admin, "web").await;
    let mut good = attach(&lab.admin, &id).await;
    let deep = "[".repeat(100_000);
    let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(1 << 20));
    for wrong in [
        "",
        "null",
        "17",
        "\"resize\"",
        "[]",
        "{",
        "{}",
        r#"{"type":null}"#,
        r#"{"type":"no such thing"}"#,
        r#"{"type":["resize"]}"#,
        r#"{"type":"resize"}"#,
        r#"{"type":"resize","cols":"80","rows":"24"}"#,
        r#"{"type":"resize","cols":-1,"rows":24}"#,
        r#"{"type":"resize","cols":1.5,"rows":24}"#,
        r#"{"type":"resize","cols":1e99,"rows":24}"#,
        r#"{"type":"resize","cols":65536,"rows":24}"#,
        r#"{"type":"resize","cols":{"cols":80},"rows":[]}"#,
        r#"{"type":"offset","offset":0}"#,
        &deep,
        &long,
    ] {
        let shown: String = wrong.chars().take(60).collect();
        let mut viewer = attach(&lab.admin, &id).await;
        viewer.types(wrong).await;
        let closed = viewer.closed().await;
        assert_eq!(closed.code, Some(1002), "{shown}: {closed:?}");
        assert!(
            closed.reason.contains("no control frame"),
            "{shown}: {closed:?}"
        );
    }
    // A text frame that is no text; one that is no frame at all; a control frame that is too long.
    let mut ping = vec![0x89, 0xfe, 0x01, 0x00, 0, 0, 0, 0];
    ping.resize(ping.len() + 256, b'x');
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20);
    for wrong in [
        &[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe][..],
        &[0xf7, 0x80, 0, 0, 0, 0],
        &ping,
        &http,
    ] {
        let shown = &wrong[..6];
        let mut viewer = attach(&lab.admin, &id).await;
        assert!(viewer.puts(wrong).await);
        let closed = viewer.closed().await;
        assert_eq!(closed.code, Some(1002), "{shown:?}: {closed:?}");
    }
    // Sizes that a program would drown in are brought to what it can bear.
    good.types(r#"{"type":"resize","cols":65535,"rows":0}"#)
        .await;
    good.types_bytes(
        b"while [ \"$(stty size)\" != '1 1000' ]; do sleep 0.05; done; echo small-$((1+1))\n",
    )
    .await;
    good.shows("small-2").await;
}

#[tokio::test]
async fn bytes_that_are_no_text_pass_as_they_are() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let id = open(&lab.admin, "web").await;
    let mut terminal = attach(&lab.admin, &id).await;
    terminal
        .types_bytes(
            b"stty raw -echo; echo go; head -c 256 | od -An -v -tx1 | tr -d ' \\n'; echo .\n",
        )
        .await;
    terminal.shows("go\n").await;
    let all: Vec<u8> = (0..=255).collect();
    terminal.types_bytes(&all).await;
    let hex: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
    terminal.shows(&format!("{hex}.")).await;
    terminal
        .types_bytes(b"stty cooked; printf 'a\\377\\376\\300\\200\\355\\240\\200b'; echo; echo over-$((1+1))\n")
        .await;
    terminal.shows("over-2").await;
    let wanted = b"a\xff\xfe\xc0\x80\xed\xa0\x80b";
    let found = terminal
        .output
        .windows(wanted.len())
        .any(|bytes| bytes == wanted);
    assert!(found, "{}", terminal.screen());
}

/// Follows the master's events until they tell of so many columns; how many of them were of terminals.
async fn count_sizes(lab: &Lab, last: u16) -> u64 {
    let request = lab.admin.request(Method::GET, "/api/v1/events");
    let mut response = request.send().await.expect("events");
    let mut text = String::new();
    let mark = format!(r#""cols":{last},"#);
    while let Some(bytes) = response.chunk().await.expect("events go on") {
        text.push_str(&String::from_utf8_lossy(&bytes));
        if text.contains(&mark) {
            break;
        }
    }
    text.matches("event: terminal\n").count() as u64
}

#[tokio::test]
async fn tens_of_thousands_of_sizes_trouble_nobody_else() {
    const SIZES: u16 = 30_000;
    let lab = Lab::up_with(INSTANT).await;
    lab.create_vm("local", "web").await;
    let id = open(&lab.admin, "web").await;
    let beside = open(&lab.admin, "web").await;
    let mut beside = attach(&lab.admin, &beside).await;
    let mut terminal = attach(&lab.admin, &id).await;
    let began = Instant::now();
    let storm = async {
        for n in 0..SIZES {
            let (cols, rows) = (40 + n % 200, 10 + n % 90);
            terminal
                .types(&format!(
                    r#"{{"type":"resize","cols":{cols},"rows":{rows}}}"#
                ))
                .await;
            if n % 5000 == 0 {
                beside
                    .types_bytes(format!("echo beside-$(({n}+1))\n").as_bytes())
                    .await;
                beside.shows(&format!("beside-{}", n + 1)).await;
            }
        }
        terminal
            .types(r#"{"type":"resize","cols":333,"rows":44}"#)
            .await;
        // The last one arrives as well, beside what is typed after it.
        let waits =
            b"until [ \"$(stty size)\" = '44 333' ]; do sleep 0.1; done; echo last-$((1+1))\n";
        terminal.types_bytes(waits).await;
        terminal.shows("last-2").await;
        terminal
    };
    let (told, _terminal) = tokio::join!(count_sizes(&lab, 333), storm);
    // Ten a second, and some for who came and went.
    let most = began.elapsed().as_millis() / 100 + 20;
    assert!(
        u128::from(told) <= most,
        "{told} changes were told to every page, not {most}"
    );
}
