//! Displays through the master: who gets to them, that this ends at once, and any VNC viewer by the command line.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    inside::client,
    lab::{ADMIN, Caller, Lab, Terminal, until},
    sharing::somebody,
};

const DISPLAY: &str = "/api/v1/agents/local/vms/web/display";
/// A viewer's whole part of the handshake: version 3.8, no password, not alone.
const HELLO: &[u8] = b"RFB 003.008\n\x01\x01";

async fn a_vm_here() -> Lab {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    lab
}

/// Opens a display and goes through its handshake, whose last word is the VM's name.
async fn watch(caller: &Caller, path: &str) -> Terminal {
    let mut viewer = Terminal::open(caller, path).await.expect("let in");
    viewer.types_bytes(HELLO).await;
    viewer.shows("RFB 003.008\n").await;
    viewer.shows("web").await;
    viewer
}

#[tokio::test]
async fn a_display_is_for_the_terminal_right_and_ends_with_it() {
    let lab = a_vm_here().await;
    let ann = somebody(&lab, "ann", "operator", true).await;
    let vic = somebody(&lab, "vic", "viewer", false).await;
    let mut viewer = watch(&ann, DISPLAY).await;
    for refused in [&vic, &Caller::nobody(&lab.url)] {
        let refused = Terminal::open(refused, DISPLAY).await.err();
        assert!(matches!(refused.map(|it| it.status), Some(401 | 403)));
    }

    // Withdrawn, it is cut at once, and so is nobody else's.
    let mut own = watch(&lab.admin, DISPLAY).await;
    let users = lab.admin.get("/api/v1/users").await.expect(200);
    let all = users["items"].as_array().expect("a list");
    let id = &all.iter().find(|user| user["name"] == "ann").expect("ann")["id"];
    let path = format!("/api/v1/users/{}", id.as_str().expect("an id"));
    lab.admin
        .patch(&path, json!({"terminal": false}))
        .await
        .expect(200);
    let closed = viewer.closed().await;
    assert_eq!(closed.code, Some(1008), "{closed:?}");
    own.types("a text frame").await;
    let closed = own.closed().await;
    assert_eq!(closed.code, Some(1002), "{closed:?}");

    let audit = lab.admin.get("/api/v1/audit?limit=50").await.expect(200);
    let lines = audit["items"].as_array().expect("a list").iter();
    let seen: Vec<_> = lines
        .filter(|line| line["action"] == "vm.display")
        .map(|line| (line["actor"].as_str(), line["target"].as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (Some("admin"), Some("local/web")),
            (Some("ann"), Some("local/web"))
        ]
    );
}

#[tokio::test]
async fn a_display_that_cannot_be_shown_says_why_after_its_handshake() {
    let lab = a_vm_here().await;
    let mut viewer = watch(&lab.admin, DISPLAY).await;
    let stopping = lab
        .admin
        .post("/api/v1/agents/local/vms/web/stop", json!({}))
        .await
        .expect(202);
    lab.finished(&stopping["id"]).await;
    assert_eq!(viewer.closed().await.code, Some(4009));
    let mut off = Terminal::open(&lab.admin, DISPLAY).await.expect("opened");
    let closed = off.closed().await;
    assert_eq!(closed.code, Some(4009));
    assert!(closed.reason.ends_with("VM is stopped"), "{closed:?}");
    let nothing = DISPLAY.replace("web", "nothing");
    let mut nothing = Terminal::open(&lab.admin, &nothing).await.expect("opened");
    assert_eq!(nothing.closed().await.code, Some(4004));

    let browser = Caller::with_cookie(&lab.url, ADMIN).await;
    let theirs = browser.header("origin", "http://evil.example");
    let refused = Terminal::open(&theirs, DISPLAY).await.err();
    assert_eq!(refused.map(|refused| refused.status), Some(403));
}

#[tokio::test]
async fn a_display_is_shown_through_a_tunnel_and_to_any_viewer_of_this_machine() {
    let lab = Lab::master(&[]).await;
    let _member = lab.member("lab-1").await;
    lab.create_vm("lab-1", "web").await;
    let shown = client(&lab, &["display", "lab-1/web"]).start();
    let address = until("where it listens", async || {
        let log = shown.log();
        let line = log
            .lines()
            .find(|line| line.contains("shows the display"))?;
        Some(line.split(' ').next()?.to_owned())
    })
    .await;
    for _ in 0..2 {
        let mut viewer = TcpStream::connect(&address).await.unwrap();
        viewer.write_all(HELLO).await.unwrap();
        // Version, the one way in, the welcome, the picture's size and format, and the name's length.
        let mut said = [0; 12 + 2 + 4 + 24];
        viewer.read_exact(&mut said).await.unwrap();
        assert_eq!(&said[..12], b"RFB 003.008\n");
        assert_eq!(&said[18..22], [1, 64, 0, 200], "320 by 200");
        let mut name = [0; 3];
        viewer.read_exact(&mut name).await.unwrap();
        assert_eq!(&name, b"web");
        // All of it is asked for, and comes.
        viewer
            .write_all(&[3, 0, 0, 0, 0, 0, 1, 64, 0, 200])
            .await
            .unwrap();
        let mut picture = vec![0; 16 + 320 * 200 * 4];
        viewer.read_exact(&mut picture).await.unwrap();
    }
    client(&lab, &["stop", "web"]).run().await;
    let off = client(&lab, &["display", "web"]).run().await;
    assert_eq!(off.code, Some(1), "{}", off.stderr);
    assert!(off.stderr.contains("VM is stopped"), "{}", off.stderr);
    let open = client(&lab, &["display", "web", "--listen", "0.0.0.0:5901"])
        .run()
        .await;
    assert_eq!(open.code, Some(2), "{}", open.stderr);
}
