//! How much of a terminal's output is held for those who come back, as it is set.

use batwa_api::terminal::ServerFrame;

use crate::{
    lab::{INSTANT, Lab, Terminal},
    sharing::open,
};

#[tokio::test]
async fn who_comes_back_late_is_told_how_much_of_the_output_is_gone() {
    const RING: u64 = 64 << 10;
    let lab = Lab::up_with_flags(INSTANT, &["--terminal-ring", "64K"]).await;
    lab.create_vm("local", "web").await;
    let id = open(&lab.admin, "web").await;
    let attach = |from: &str| format!("/api/v1/terminals/{id}/attach{from}");
    let mut first = Terminal::open(&lab.admin, &attach("")).await.expect("in");
    first
        .types_bytes(b"head -c 300000 /dev/zero | tr '\\0' x; echo end-$((1+1))\n")
        .await;
    first.shows("end-2").await;
    let all = first.output.len() as u64;
    first.close().await;

    let mut back = Terminal::open(&lab.admin, &attach("?from=10"))
        .await
        .expect("in");
    let frame = back.says(r#""type":"offset""#).await;
    let Ok(ServerFrame::Offset { offset, .. }) = serde_json::from_str(&frame) else {
        panic!("{frame}");
    };
    // A prompt may have been printed since.
    assert!(
        (all - RING..all - RING + 1000).contains(&offset),
        "{offset} of {all}"
    );
    back.shows("end-2").await;
    assert!(back.output.len() as u64 <= RING);
}
