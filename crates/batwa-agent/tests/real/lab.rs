//! A state folder with VMs that end with the test.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use batwa_agent::driver::{
    Driver, DriverError, ObservedVm, Progress, ProgressUpdate, Pty,
    qemu::{QemuDriver, QemuOptions, TinyKernel},
};
use batwa_api::{
    name::VmName,
    operation::Stage,
    size::ByteSize,
    terminal::{TermSize, TerminalKind},
    vm::VmSpec,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

/// The longest that anything here may take, on a busy machine without an accelerator.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// A driver on a state folder of its own.
pub(crate) struct Lab {
    driver: Option<Arc<QemuDriver>>,
    dir: tempfile::TempDir,
    cache: PathBuf,
    store: &'static str,
}

/// Why the tests of this file cannot run here; `BATWA_TEST_QEMU=require` makes that an error.
pub(crate) fn obstacle() -> Option<String> {
    let obstacle = ["qemu-system-x86_64", "qemu-img", "apt-get", "dpkg-deb"]
        .into_iter()
        .find(|program| !on_path(program))
        .map(|program| format!("`{program}` is not installed"));
    let required = std::env::var("BATWA_TEST_QEMU").is_ok_and(|text| text == "require");
    match obstacle {
        Some(why) if required => panic!("{why}, and BATWA_TEST_QEMU=require"),
        obstacle => obstacle,
    }
}

fn on_path(program: &str) -> bool {
    program_file(program).is_some()
}

/// Where a program is.
pub(crate) fn program_file(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.exists())
}

/// Ends a test with a word where it cannot run.
#[macro_export]
macro_rules! lab_or_skip {
    () => {
        match $crate::lab::obstacle() {
            Some(why) => {
                println!("SKIPPED: {why}");
                return;
            }
            None => $crate::lab::Lab::new(),
        }
    };
}

/// Where images lie that all tests share.
const STORE: &str = "store";
/// The same with a `tiny` that has the standard kernel.
const STANDARD_STORE: &str = "store-standard";

fn cache() -> PathBuf {
    let cache = std::env::var_os("BATWA_TEST_CACHE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-cache"),
        PathBuf::from,
    );
    for store in [STORE, STANDARD_STORE] {
        std::fs::create_dir_all(cache.join(store)).unwrap();
    }
    cache.canonicalize().unwrap()
}

/// A state folder that has the shared images.
pub(crate) fn state_folder(parent: &Path) -> tempfile::TempDir {
    state_folder_with(parent, STORE)
}

fn state_folder_with(parent: &Path, store: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(parent).unwrap();
    let images = dir.path().join("qemu/images");
    std::fs::create_dir_all(&images).unwrap();
    std::os::unix::fs::symlink(cache().join(store), images.join("store")).unwrap();
    dir
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::under(&std::env::temp_dir())
    }

    /// The same with its state folder in this one.
    pub(crate) fn under(parent: &Path) -> Self {
        let mut lab = Self {
            driver: None,
            dir: state_folder(parent),
            cache: cache(),
            store: STORE,
        };
        lab.open();
        lab
    }

    /// The same for VMs whose kernel is the standard one.
    pub(crate) fn of_standard_kernels(change: impl FnOnce(&mut QemuOptions)) -> Self {
        let mut lab = Self {
            driver: None,
            dir: state_folder_with(&std::env::temp_dir(), STANDARD_STORE),
            cache: cache(),
            store: STANDARD_STORE,
        };
        lab.reopen(change);
        lab
    }

    fn open(&mut self) {
        self.reopen(|_| ());
    }

    /// Another driver on the same folder, with other settings.
    pub(crate) fn reopen(&mut self, change: impl FnOnce(&mut QemuOptions)) {
        self.driver = None;
        let mut options = QemuOptions::default();
        if self.store == STANDARD_STORE {
            options.tiny_kernel = TinyKernel::Standard;
        }
        change(&mut options);
        let driver = QemuDriver::open_with(self.dir.path(), options).unwrap();
        self.driver = Some(Arc::new(driver));
    }

    /// The driver ends as if its agent had been killed, and another one comes.
    pub(crate) fn agent_dies_and_comes_back(&mut self) {
        self.driver = None;
        self.open();
    }

    pub(crate) fn driver(&self) -> &QemuDriver {
        self.driver.as_ref().unwrap()
    }

    /// The driver, for those who keep it.
    pub(crate) fn shared(&self) -> Arc<QemuDriver> {
        Arc::clone(self.driver.as_ref().unwrap())
    }

    /// The state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("qemu")
    }

    /// Makes a VM; the first test of all builds the image while the others wait.
    pub(crate) async fn create(&self, name: &str, spec: VmSpec) -> Result<Vec<Stage>, DriverError> {
        self.create_within(PATIENCE, name, spec).await
    }

    /// The same for what takes longer.
    pub(crate) async fn create_within(
        &self,
        patience: Duration,
        name: &str,
        spec: VmSpec,
    ) -> Result<Vec<Stage>, DriverError> {
        let path = self.cache.join("lock");
        let turn = tokio::task::spawn_blocking(move || {
            let lock = File::create(path).unwrap();
            lock.lock().unwrap();
            lock
        })
        .await
        .unwrap();
        let built = std::fs::read_dir(self.cache.join(self.store))
            .unwrap()
            .any(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.starts_with(&spec.image.replace(':', "-"))
            });
        let turn = (!built).then_some(turn);
        let stages = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&stages);
        let progress = Progress::new(move |update| {
            println!("{update:?}");
            if let ProgressUpdate::Stage(stage) = update {
                heard.lock().unwrap().push(stage);
            }
        });
        let name = vm(name);
        let create = self.driver().create(&name, &spec, &progress);
        let result = timeout(patience, create).await.expect("it took too long");
        drop(turn);
        let stages = stages.lock().unwrap().clone();
        result.map(|()| stages)
    }

    pub(crate) async fn inspect(&self, name: &str) -> ObservedVm {
        within(self.driver().inspect(&vm(name))).await.unwrap()
    }

    /// Waits until a look at the VM satisfies `wanted`.
    pub(crate) async fn see(&self, name: &str, wanted: impl Fn(&ObservedVm) -> bool) -> ObservedVm {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.inspect(name).await;
            if wanted(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "not seen in time: {seen:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn shell(&self, name: &str) -> Screen {
        let mut screen = self.attach(name, TerminalKind::Shell).await;
        // What is typed before the shell reads is shown twice.
        screen.until("# ").await;
        screen
    }

    pub(crate) async fn attach(&self, name: &str, kind: TerminalKind) -> Screen {
        let size = TermSize {
            cols: 100,
            rows: 30,
        };
        let pty = within(self.driver().attach(&vm(name), kind, size))
            .await
            .unwrap();
        Screen {
            pty,
            shown: String::new(),
        }
    }

    /// The id of the VM's QEMU.
    pub(crate) fn pid(&self, name: &str) -> i32 {
        std::fs::read_to_string(self.state().join("vms").join(name).join("pid"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // VMs outlive their driver: that is the point of it, but not of a test.
        self.driver = None;
        end_vms(&self.state());
    }
}

/// Kills what runs in a state folder.
pub(crate) fn end_vms(state: &Path) {
    for entry in std::fs::read_dir(state.join("vms")).into_iter().flatten() {
        let Ok(pid) = std::fs::read_to_string(entry.unwrap().path().join("pid")) else {
            continue;
        };
        kill(pid.trim().parse().unwrap());
    }
}

/// Kills a QEMU of this test.
pub(crate) fn kill(pid: i32) {
    if is_qemu(pid)
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Whether that process is a living QEMU.
pub(crate) fn is_qemu(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"qemu-system"))
}

pub(crate) fn vm(name: &str) -> VmName {
    VmName::parse_new(name).unwrap()
}

/// A VM of the least size.
pub(crate) fn tiny() -> VmSpec {
    VmSpec {
        image: "tiny".to_owned(),
        memory: ByteSize::mib(192),
        disk: ByteSize::gib(1),
        ..VmSpec::default()
    }
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it took too long")
}

/// A terminal, and what it has shown.
pub(crate) struct Screen {
    pub(crate) pty: Pty,
    shown: String,
}

impl Screen {
    pub(crate) async fn type_in(&mut self, text: &str) {
        self.pty.input.write_all(text.as_bytes()).await.unwrap();
        self.pty.input.flush().await.unwrap();
    }

    /// Waits until the screen shows `text`, and forgets everything up to it. Returns what came before it.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                let before = self.shown[..at].to_owned();
                self.shown.drain(..at + text.len());
                return before;
            }
            let mut chunk = [0; 4096];
            let read = tokio::time::timeout_at(deadline, self.pty.output.read(&mut chunk));
            let n = match read.await {
                Ok(n) => n.unwrap(),
                Err(_) => panic!("`{text}` never came; shown: {}", self.shown),
            };
            assert!(n > 0, "the terminal ended before `{text}`: {}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    }

    /// Runs one command line and returns the last line that it printed.
    pub(crate) async fn run(&mut self, line: &str) -> String {
        // As it is echoed, perhaps twice and with the prompt drawn anew in between, the line does not hold the mark.
        self.type_in(&format!("{line}; echo do''ne:$?.\n")).await;
        let before = self.until("done:").await;
        self.until(".").await;
        let last = before.trim_end().lines().next_back().unwrap_or_default();
        if last.contains("$?.") {
            String::new()
        } else {
            // bash goes to the line's begin after it has ended its own editing.
            last.trim()
                .rsplit('\r')
                .next()
                .unwrap_or_default()
                .to_owned()
        }
    }

    /// Reads to the end.
    pub(crate) async fn drain(&mut self) {
        let mut rest = Vec::new();
        within(self.pty.output.read_to_end(&mut rest))
            .await
            .unwrap();
    }
}
