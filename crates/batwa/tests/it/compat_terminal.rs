//! COMPAT.md, the terminal: `/ws` on the master, here and through an agent, as the old page uses it.

use serde_json::json;

use crate::lab::{Caller, INSTANT, Lab, Terminal, until};

/// A lab with a VM `web` on this machine and one on `edge`; the id that old clients give for each.
const MACHINES: [&str; 2] = ["null", "edge"];

async fn two_machines() -> (Lab, crate::lab::LabAgent) {
    let lab = Lab::up().await;
    let edge = lab.agent("edge", INSTANT).await;
    lab.create_vm("local", "web").await;
    lab.create_vm("edge", "web").await;
    (lab, edge)
}

#[tokio::test]
async fn typing_reaches_the_shell_byte_for_byte_and_resizes_do_not() {
    let (lab, _edge) = two_machines().await;
    for machine in MACHINES {
        let mut terminal = Terminal::old(&lab.admin, machine, "web").await;
        terminal.types("stty -echo; cat\n").await;
        // The first answer shows that `cat` listens.
        terminal.types("ready?\n").await;
        terminal.shows("ready?").await;
        // JSON that is no resize is typing; so is a lone digit, and a binary frame.
        terminal.types("{\"a\":1}\n").await;
        terminal.shows("{\"a\":1}").await;
        terminal.types("5").await;
        terminal.types_bytes(b"6\n").await;
        terminal.shows("56").await;
        terminal
            .types("{\"type\":\"resize\",\"cols\":\"wide\"}\n")
            .await;
        terminal.shows("wide").await;
        terminal.types("grüße 🦀 \u{fffd}\n").await;
        terminal.shows("grüße 🦀 \u{fffd}").await;
        terminal
            .types("{\"type\":\"resize\",\"cols\":101,\"rows\":37}")
            .await;
        terminal.types_bytes(&[4]).await;
        terminal.types("stty size\n").await;
        terminal.shows("37 101").await;
        assert!(
            !terminal.screen().contains("\"resize\",\"cols\":101"),
            "{machine}: {}",
            terminal.screen()
        );
        terminal.close().await;
    }
}

#[tokio::test]
async fn a_program_hears_of_a_new_window_size() {
    let (lab, _edge) = two_machines().await;
    for machine in MACHINES {
        let mut terminal = Terminal::old(&lab.admin, machine, "web").await;
        terminal
            .types("trap 'echo size $(stty size)' WINCH; echo set$((1+1))\n")
            .await;
        terminal.shows("set2").await;
        terminal
            .types("{\"type\":\"resize\",\"cols\":99,\"rows\":33}")
            .await;
        terminal.types("\n").await;
        terminal.shows("size 33 99").await;
        terminal.close().await;
    }
}

#[tokio::test]
async fn utf_8_that_is_split_over_reads_arrives_whole() {
    let (lab, _edge) = two_machines().await;
    for machine in MACHINES {
        let mut terminal = Terminal::old(&lab.admin, machine, "web").await;
        terminal
            .types(
                "printf '\\342'; sleep 0.1; printf '\\202'; sleep 0.1; printf '\\254 %s\\n' done\n",
            )
            .await;
        terminal.shows("€ done").await;
        terminal.close().await;
    }
}

#[tokio::test]
async fn a_long_paste_arrives_whole() {
    let (lab, _edge) = two_machines().await;
    let line = "0123456789abcdef".repeat(16);
    for machine in MACHINES {
        let mut terminal = Terminal::old(&lab.admin, machine, "web").await;
        terminal
            .types("stty -echo; echo quiet$((1+1)); head -c 1048576 | cksum\n")
            .await;
        terminal.shows("quiet2").await;
        let mut paste = String::new();
        while paste.len() < 1 << 20 {
            paste.push_str(&line[..255]);
            paste.push('\n');
        }
        paste.truncate(1 << 20);
        for part in paste.as_bytes().chunks(50_000) {
            terminal.types_bytes(part).await;
        }
        // A line discipline passes on whole lines only.
        terminal.types("\n").await;
        terminal
            .shows(&format!("{} {}", cksum(paste.as_bytes()), paste.len()))
            .await;
        terminal.close().await;
    }
}

/// The checksum of POSIX `cksum`.
fn cksum(bytes: &[u8]) -> u32 {
    let mut crc: u32 = 0;
    let mut feed = |byte: u8| {
        crc ^= u32::from(byte) << 24;
        for _ in 0..8 {
            crc = if crc & 0x8000_0000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x04c1_1db7
            };
        }
    };
    bytes.iter().for_each(|byte| feed(*byte));
    let mut length = bytes.len();
    while length > 0 {
        feed(u8::try_from(length & 0xff).expect("one byte"));
        length >>= 8;
    }
    !crc
}

#[tokio::test]
async fn the_end_of_the_shell_is_heard_at_once() {
    let (lab, _edge) = two_machines().await;
    for machine in MACHINES {
        let mut terminal = Terminal::old(&lab.admin, machine, "web").await;
        terminal.types("exit\n").await;
        let closed = terminal.closed().await;
        assert_eq!(closed.code, Some(1000), "{machine}: {closed:?}");
        assert!(!closed.reason.is_empty(), "{machine}: {closed:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_shell_behind() {
    let (lab, _edge) = two_machines().await;
    for machine in MACHINES {
        let mut terminal = Terminal::old(&lab.admin, machine, "web").await;
        // The shell computes the word `done`, so that what was typed does not show it.
        terminal.types("echo pid $$ do$(echo ne)\n").await;
        terminal.shows(" done").await;
        let shell: u32 = terminal
            .screen()
            .split_whitespace()
            .zip(terminal.screen().split_whitespace().skip(1))
            .filter(|(word, _)| *word == "pid")
            .find_map(|(_, pid)| pid.parse().ok())
            .expect("a process id");
        assert!(is_alive(shell));
        // The cable is pulled, not a polite close.
        drop(terminal);
        until(&format!("shell {shell} on {machine} ends"), async || {
            (!is_alive(shell)).then_some(())
        })
        .await;
    }
    let sessions = lab.admin.get("/api/v1/terminals").await.expect(200);
    assert_eq!(sessions["items"], json!([]));
}

fn is_alive(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // A zombie has ended; only its parent has not looked yet.
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let (lab, mut edge) = two_machines().await;
    lab.admin
        .post("/api/vm/stop", json!({ "name": "web" }))
        .await
        .expect(200);

    let told = async |agent: &str, vm: &str| {
        let mut terminal = Terminal::old(&lab.admin, agent, vm).await;
        let closed = terminal.closed().await;
        (terminal.texts.concat(), closed)
    };
    let (text, closed) = told("null", "ghost").await;
    assert!(text.contains("ghost") && text.ends_with("\r\n"), "{text:?}");
    assert_eq!(closed.code, Some(4004), "{closed:?}");
    let (text, closed) = told("null", "web").await;
    assert!(text.contains("stopped"), "{text:?}");
    assert_eq!(closed.code, Some(4009), "{closed:?}");
    assert_eq!(
        lab.vm("local", "web").await.expect("the VM")["state"],
        "stopped",
        "a terminal starts no VM"
    );
    edge.kill();
    lab.agent_is("edge", "offline").await;
    let (text, closed) = told("edge", "web").await;
    assert_eq!(text, "Error: Agent 'edge' is offline\r\n");
    assert_eq!(closed.code, Some(4003), "{closed:?}");

    let refused = Terminal::open(&Caller::nobody(&lab.url), "/ws?vm_name=web")
        .await
        .err()
        .expect("refused");
    assert_eq!(refused.status, 401, "{refused:?}");
    assert_eq!(refused.body["detail"], "Not authenticated");
}

#[tokio::test]
async fn a_vm_that_stops_and_an_agent_that_vanishes_close_their_terminals_with_a_reason() {
    let (lab, mut edge) = two_machines().await;
    let mut here = Terminal::old(&lab.admin, "null", "web").await;
    here.types("echo $((6*7))\n").await;
    here.shows("42").await;
    lab.admin
        .post("/api/vm/stop", json!({ "name": "web" }))
        .await
        .expect(200);
    let closed = here.closed().await;
    assert!(
        closed.code.is_some() && !closed.reason.is_empty(),
        "{closed:?}"
    );

    let mut there = Terminal::old(&lab.admin, "edge", "web").await;
    there.types("echo $((6*7))\n").await;
    there.shows("42").await;
    edge.kill();
    let closed = there.closed().await;
    assert_eq!(closed.code, Some(4003), "{closed:?}");
}

#[tokio::test]
async fn another_sites_page_cannot_open_a_terminal_with_our_cookie() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let browser = Caller::with_cookie(&lab.url, crate::lab::ADMIN).await;
    let ours = browser.clone().header("origin", &lab.url);
    let mut terminal = Terminal::old(&ours, "null", "web").await;
    terminal.types("echo $((6*7))\n").await;
    terminal.shows("42").await;
    let theirs = browser.header("origin", "http://evil.example");
    let refused = Terminal::open(&theirs, "/ws?vm_name=web")
        .await
        .err()
        .expect("refused");
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.body["detail"].is_string());
}

#[tokio::test]
async fn signing_out_closes_the_terminals_of_that_sign_in() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let browser = Caller::with_cookie(&lab.url, crate::lab::ADMIN).await;
    let mut terminal = Terminal::old(&browser, "null", "web").await;
    terminal.types("echo $((6*7))\n").await;
    terminal.shows("42").await;
    browser
        .post("/api/auth/logout", json!({}))
        .await
        .expect(200);
    let closed = terminal.closed().await;
    assert_eq!(closed.code, Some(1008), "{closed:?}");
}
