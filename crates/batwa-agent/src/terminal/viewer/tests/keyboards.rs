//! What is typed on one keyboard reaches the program once and in order, over as many connections as that takes.

use batwa_api::id::KeyboardId;

use super::*;

fn at(keyboard: KeyboardId) -> Admission {
    Admission {
        keyboard: Some(keyboard),
        ..admission("ann", TerminalAccess::Write)
    }
}

impl Viewer {
    /// How much of its keyboard's input is taken, as it is told when it attaches.
    async fn taken(&mut self) -> Option<u64> {
        self.frame(|frame| match frame {
            ServerFrame::Offset { input, .. } => Some(*input),
            _ => None,
        })
        .await
    }

    /// The same, told later.
    async fn input(&mut self) -> u64 {
        self.frame(|frame| match frame {
            ServerFrame::Input { offset } => Some(*offset),
            _ => None,
        })
        .await
    }
}

#[tokio::test]
async fn what_is_typed_over_lines_that_break_arrives_once_and_in_order() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let all = pattern(400_000);
    let mut reading = JoinSet::new();
    let len = all.len();
    let (tell, arrived) = watch::channel(0);
    reading.spawn(async move {
        let mut read = Vec::with_capacity(len);
        while read.len() < len {
            let some = timeout(DEADLINE, program.terminal.read_buf(&mut read)).await;
            some.expect("all input in time").unwrap();
            tell.send_replace(read.len());
        }
        (program, read)
    });
    let keyboard = KeyboardId::new();
    // The lines that broke stay open at the agent, with all that they hold, as it has not noticed.
    let mut dead = Vec::new();
    for attempt in 1_usize.. {
        let mut viewer = lab.admit(None, Some(at(keyboard))).unwrap();
        let taken = usize::try_from(viewer.taken().await.unwrap()).unwrap();
        assert_eq!(
            lab.session.terminal().viewers,
            1,
            "the others were replaced"
        );
        for piece in all[taken..].chunks(977).take(attempt * 7 % 61) {
            let typed = Inbound::Input(Bytes::copy_from_slice(piece));
            viewer.send(typed).await;
        }
        // It breaks when some of it has arrived, and most has not.
        if attempt * 7 % 61 > 0 && taken < all.len() {
            until(|| *arrived.borrow() > taken).await;
        }
        dead.push(viewer);
        if taken == all.len() {
            break;
        }
    }
    let (mut program, read) = reading.join_next().await.unwrap().unwrap();
    assert!(read == all, "something else arrived");
    assert!(dead.len() > 3, "nothing broke");
    for viewer in dead.drain(..dead.len() - 1) {
        let reason = "the viewer has attached again".to_owned();
        assert_eq!(
            viewer.closed().await,
            Some((close_code::GOING_AWAY, reason))
        );
    }
    dead[0].types("end").await;
    assert_eq!(
        read_until(&mut program, "end").await,
        "end",
        "nothing came twice"
    );
}

#[tokio::test(start_paused = true)]
async fn a_viewer_is_told_what_was_taken_and_that_it_was_heard() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let mut viewer = lab.admit(None, Some(at(KeyboardId::new()))).unwrap();
    assert_eq!(viewer.taken().await, Some(0));
    viewer.types("ls\n").await;
    assert_eq!(viewer.input().await, 3);
    // More than the program's terminal holds: told once what is taken, and once more when it reads on.
    viewer.send(Inbound::Input(pattern(10_000).into())).await;
    let taken = viewer.input().await;
    assert!((3..10_003).contains(&taken), "{taken}");
    let mut read = vec![0; 10_003];
    program.terminal.read_exact(&mut read).await.unwrap();
    assert_eq!(viewer.input().await, 10_003);
}

#[tokio::test]
async fn what_is_dropped_is_not_asked_for_again() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let keyboard = KeyboardId::new();
    let watching = Admission {
        access: TerminalAccess::Watch,
        ..at(keyboard)
    };
    let mut watcher = lab.admit(None, Some(watching)).unwrap();
    assert_eq!(watcher.taken().await, Some(0));
    watcher.types("rm -rf /\n").await;
    assert_eq!(watcher.input().await, 9);
    drop(watcher);
    let mut writer = lab.admit(None, Some(at(keyboard))).unwrap();
    assert_eq!(writer.taken().await, Some(9));
    writer.types("ls\n").await;
    assert_eq!(read_until(&mut program, "\n").await, "ls\n");
}

#[tokio::test]
async fn who_has_no_keyboard_is_told_nothing_of_it() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let mut viewer = lab.watch(None);
    assert_eq!(viewer.taken().await, None);
    viewer.types("ls\n").await;
    assert_eq!(read_until(&mut program, "\n").await, "ls\n");
}
