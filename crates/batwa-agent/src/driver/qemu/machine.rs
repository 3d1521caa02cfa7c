//! The command line of a VM's QEMU: a pure function of its record.

use std::path::{Path, PathBuf};

use batwa_api::vm::MacAddress;

use super::{
    images::Manifest,
    record::{Record, file},
};

/// What QEMU's command line follows from, beside the record.
#[derive(Debug, Clone)]
pub(super) struct Machine<'a> {
    /// The VM.
    pub(super) record: &'a Record,
    /// The folder of its image, for a kernel of its own.
    pub(super) image_dir: &'a Path,
    /// How its CPUs run.
    pub(super) accelerator: Accelerator,
    /// The free loopback port that shall lead to its SSH.
    pub(super) ssh_port: u16,
    /// Whether it goes on from where it was suspended.
    pub(super) from: From,
    /// Whether it has a display.
    pub(super) display: Display,
    /// Its network cards beside the first.
    pub(super) nics: &'a [Nic],
    /// The folders of this machine that it sees.
    pub(super) shares: &'a [Share],
}

/// A network card beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nic {
    /// Its address.
    pub(super) mac: MacAddress,
    /// Whether QEMU inherits a tap for it; it is connected to nothing otherwise.
    pub(super) tap: bool,
}

/// The number by which QEMU finds the first tap that it inherits; the others follow.
pub(super) const FIRST_TAP: i32 = 3;

/// A folder of this machine that a VM sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// The name by which the VM's kernel asks for it.
    pub(super) tag: String,
    /// Where QEMU opens it, once.
    pub(super) path: PathBuf,
    /// Whether the VM can only read it.
    pub(super) read_only: bool,
}

/// How a VM's CPUs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// By the processor itself.
    Kvm,
    /// Emulated.
    Tcg,
}

impl Accelerator {
    /// The accelerator's name, as shown to people.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// Its part of the command line.
    pub(super) fn args(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

/// Where a VM begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// At its boot.
    Boot,
    /// At the memory that was kept when it was suspended.
    Memory,
}

/// Whether a VM has a display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Display {
    /// One that every system knows, and a VNC server for it.
    Vga,
    /// As VMs were before they had one: memory that was kept then goes on in no other machine.
    Absent,
}

/// Name of the snapshot that holds a suspended VM's memory.
pub(super) const SUSPENDED: &str = "batwa-suspended";
/// Node name of a VM's own disk.
pub(super) const DISK_NODE: &str = "disk";

impl Machine<'_> {
    /// The arguments after the program. Paths are relative to the VM's folder, in which QEMU runs.
    pub(super) fn args(&self) -> Vec<String> {
        let record = self.record;
        let mut args: Vec<String> = Vec::with_capacity(64);
        let mut add = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));

        add(&["-name", &format!("guest={}", escaped(record.name.as_str()))]);
        add(&["-uuid", &record.instance.to_string()]);
        // q35 without what a server never uses; `-nodefaults` leaves nothing that is not named below.
        add(&["-machine", "q35,usb=off,vmport=off"]);
        add(&["-no-user-config", "-nodefaults", "-display", "none"]);
        add(&self.accelerator.args());
        add(&["-smp", &record.cpus.to_string()]);
        add(&["-m", &format!("{}k", record.memory.as_u64().div_ceil(1024))]);
        add(&[
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]);
        add(&["-pidfile", file::PID]);
        add(&["-qmp", &format!("unix:{},server=on,wait=off", file::QMP)]);
        add(&[
            "-chardev",
            &format!(
                "socket,id=console,path={},server=on,wait=off,logfile={},logappend=on",
                file::CONSOLE,
                file::CONSOLE_LOG
            ),
        ]);
        add(&["-serial", "chardev:console"]);
        add(&[
            "-blockdev",
            &format!(
                "driver=qcow2,node-name={DISK_NODE},discard=unmap,file.driver=file,file.filename={}",
                file::DISK
            ),
        ]);
        add(&[
            "-device",
            &format!("virtio-blk-pci,drive={DISK_NODE},serial=disk,bootindex=1"),
        ]);
        add(&[
            "-blockdev",
            &format!(
                "driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename={}",
                file::SEED
            ),
        ]);
        add(&["-device", "virtio-blk-pci,drive=seed,serial=seed"]);
        add(&[
            "-netdev",
            &format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:22", self.ssh_port),
        ]);
        add(&[
            "-device",
            &format!("virtio-net-pci,netdev=net,mac={},romfile=", self.mac()),
        ]);
        add(&["-device", "virtio-rng-pci"]);
        // They stay for the VM's life, so that what follows keeps its place.
        let mut taps = FIRST_TAP..;
        for (number, nic) in self.nics.iter().enumerate() {
            let mac = nic.mac;
            if nic.tap
                && let Some(tap) = taps.next()
            {
                add(&["-netdev", &format!("tap,id=net{number},fd={tap}")]);
                add(&[
                    "-device",
                    &format!("virtio-net-pci,netdev=net{number},mac={mac},romfile="),
                ]);
            } else {
                add(&["-device", &format!("virtio-net-pci,mac={mac},romfile=")]);
            }
        }
        // Last: what a VM that goes on from memory had before keeps its place.
        for share in self.shares {
            let Share {
                tag,
                path,
                read_only,
            } = share;
            let path = escaped(&path.display().to_string());
            let read_only = if *read_only { ",readonly=on" } else { "" };
            // Owners, links and devices that the VM makes are data to this machine.
            add(&[
                "-fsdev",
                &format!(
                    "local,id={tag},path={path},security_model=mapped-xattr,multidevs=remap{read_only}"
                ),
            ]);
            add(&[
                "-device",
                &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
            ]);
        }
        if let Some(boot) = &record.manifest.boot {
            add(&["-kernel", &self.image_file(Manifest::KERNEL)]);
            add(&["-initrd", &self.image_file(Manifest::INITRD)]);
            add(&["-append", &boot.command_line]);
        }
        // Behind all others, which so keep the places on the bus that they always had.
        if self.display == Display::Vga {
            // The plain one: the BIOS, boot loaders and the smallest kernels write to it without a driver. Its memory is
            // touched as it is drawn on, and nothing is encoded while nobody looks.
            add(&["-device", "VGA,vgamem_mb=16"]);
            // Absolute, so that pointers here and inside do not drift apart. Keys come by the keyboard that every PC has.
            add(&["-device", "virtio-tablet-pci"]);
            // `ignore`: whoever asks to be alone must not turn the others out.
            add(&["-vnc", &format!("unix:{},share=ignore", file::DISPLAY)]);
        }
        if self.from == From::Memory {
            add(&["-loadvm", SUSPENDED]);
        }
        args
    }

    /// The first card's.
    fn mac(&self) -> MacAddress {
        self.record.first_mac()
    }

    fn image_file(&self, name: &str) -> String {
        self.image_dir.join(name).display().to_string()
    }
}

/// A value inside QEMU's comma-separated options.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use batwa_api::{name::VmName, size::ByteSize};

    use super::*;
    use crate::driver::qemu::images::Boot;

    fn record(boot: Option<Boot>) -> Record {
        let mut record = Record::new(
            VmName::parse("web").unwrap(),
            "tiny".to_owned(),
            Manifest {
                boot,
                ..Manifest::example()
            },
            2,
            ByteSize::mib(256),
            ByteSize::gib(2),
        );
        record.instance = uuid::Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_00a1_b2c3);
        record
    }

    #[test]
    fn the_whole_command_line_of_a_vm_with_a_kernel_of_its_own() {
        let record = record(Some(Boot {
            command_line: "console=ttyS0".to_owned(),
        }));
        let machine = Machine {
            record: &record,
            image_dir: Path::new("/images/tiny-1"),
            accelerator: Accelerator::Tcg,
            ssh_port: 40022,
            from: From::Boot,
            display: Display::Vga,
            nics: &[],
            shares: &[],
        };
        insta::assert_snapshot!(machine.args().join("\n"), @r#"
        -name
        guest=web
        -uuid
        01990000-0000-7000-8000-000000a1b2c3
        -machine
        q35,usb=off,vmport=off
        -no-user-config
        -nodefaults
        -display
        none
        -accel
        tcg,thread=multi
        -cpu
        max
        -smp
        2
        -m
        262144k
        -sandbox
        on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
        -pidfile
        pid
        -qmp
        unix:qmp.sock,server=on,wait=off
        -chardev
        socket,id=console,path=console.sock,server=on,wait=off,logfile=console.log,logappend=on
        -serial
        chardev:console
        -blockdev
        driver=qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename=disk.qcow2
        -device
        virtio-blk-pci,drive=disk,serial=disk,bootindex=1
        -blockdev
        driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename=seed.img
        -device
        virtio-blk-pci,drive=seed,serial=seed
        -netdev
        user,id=net,hostfwd=tcp:127.0.0.1:40022-:22
        -device
        virtio-net-pci,netdev=net,mac=52:54:00:a1:b2:c3,romfile=
        -device
        virtio-rng-pci
        -kernel
        /images/tiny-1/kernel
        -initrd
        /images/tiny-1/initrd
        -append
        console=ttyS0
        -device
        VGA,vgamem_mb=16
        -device
        virtio-tablet-pci
        -vnc
        unix:display.sock,share=ignore
        "#);
    }

    #[test]
    fn a_suspended_vm_goes_on_from_its_memory_and_a_disk_image_boots_itself() {
        let record = record(None);
        let machine = Machine {
            record: &record,
            image_dir: Path::new("/images/ubuntu-24.04"),
            accelerator: Accelerator::Kvm,
            ssh_port: 1,
            from: From::Memory,
            display: Display::Absent,
            nics: &[
                Nic {
                    mac: MacAddress::local([0, 0, 1]),
                    tap: false,
                },
                Nic {
                    mac: MacAddress::local([0, 0, 2]),
                    tap: true,
                },
                Nic {
                    mac: MacAddress::local([0, 0, 3]),
                    tap: true,
                },
            ],
            shares: &[Share {
                tag: "batwa-1".to_owned(),
                path: "/proc/7/fd/9".into(),
                read_only: true,
            }],
        };
        let args = machine.args();
        assert!(!args.contains(&"-vnc".to_owned()));
        assert!(args.ends_with(&["-loadvm".to_owned(), SUSPENDED.to_owned()]));
        assert!(!args.contains(&"-kernel".to_owned()));
        assert!(args.contains(&"kvm".to_owned()));
        let nics = args.iter().position(|arg| arg == "virtio-rng-pci").unwrap();
        assert_eq!(
            args[nics + 1..nics + 11],
            [
                "-device",
                "virtio-net-pci,mac=52:54:00:00:00:01,romfile=",
                "-netdev",
                "tap,id=net1,fd=3",
                "-device",
                "virtio-net-pci,netdev=net1,mac=52:54:00:00:00:02,romfile=",
                "-netdev",
                "tap,id=net2,fd=4",
                "-device",
                "virtio-net-pci,netdev=net2,mac=52:54:00:00:00:03,romfile=",
            ]
        );
        let share = args.iter().position(|arg| arg == "-fsdev").unwrap();
        assert_eq!(
            args[share..share + 4],
            [
                "-fsdev",
                "local,id=batwa-1,path=/proc/7/fd/9,security_model=mapped-xattr,multidevs=remap,readonly=on",
                "-device",
                "virtio-9p-pci,fsdev=batwa-1,mount_tag=batwa-1",
            ]
        );
    }
}
