//! Shells and the console of a real VM.

use batwa_agent::driver::{Driver, DriverError, Progress, StopMode};
use batwa_api::terminal::{TermSize, TerminalKind};

use crate::{
    lab::{tiny, vm, within},
    lab_or_skip,
};

#[tokio::test]
async fn a_shell_has_the_windows_size_and_ends_with_its_status() {
    let lab = lab_or_skip!();
    lab.create("term", tiny()).await.unwrap();
    let mut shell = lab.shell("term").await;
    assert_eq!(shell.run("stty size").await, "30 100");
    shell.pty.size.send_replace(TermSize {
        cols: 132,
        rows: 43,
    });
    // The size travels beside the input: it has come when the next look shows it.
    let mut size = String::new();
    for _ in 0..50 {
        size = shell.run("stty size").await;
        if size == "43 132" {
            break;
        }
    }
    assert_eq!(size, "43 132");
    assert_eq!(shell.run("printf 'h\\303\\251'").await, "hé");
    shell.type_in("exit 7\n").await;
    shell.drain().await;
    let exit = within(&mut shell.pty.exit).await.unwrap();
    assert_eq!(exit.code, Some(7));

    // A shell that is dropped ends inside too.
    let mut gone = lab.shell("term").await;
    gone.run("echo $$ > /tmp/shell").await;
    drop(gone);
    let mut shell = lab.shell("term").await;
    let mut left = String::new();
    for _ in 0..200 {
        left = shell
            .run("kill -0 $(cat /tmp/shell) 2>/dev/null && echo alive")
            .await;
        if left.is_empty() {
            break;
        }
    }
    assert_eq!(left, "");

    let mut console = lab.attach("term", TerminalKind::Console).await;
    console.type_in("\n").await;
    assert_eq!(console.run("echo $HOME").await, "/root");
    let second = lab
        .driver()
        .attach(&vm("term"), TerminalKind::Console, TermSize::default())
        .await;
    assert!(matches!(second, Err(DriverError::IllegalState(_))));
    within(
        lab.driver()
            .stop(&vm("term"), StopMode::Forced, &Progress::ignored()),
    )
    .await
    .unwrap();
    console.drain().await;
    let exit = within(&mut console.pty.exit).await.unwrap();
    assert_eq!(exit.reason, "the VM was stopped");
    shell.drain().await;
    let closed = lab
        .driver()
        .attach(&vm("term"), TerminalKind::Shell, TermSize::default())
        .await;
    assert!(matches!(closed, Err(DriverError::IllegalState(_))));
}
