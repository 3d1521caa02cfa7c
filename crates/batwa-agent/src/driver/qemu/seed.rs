//! The NoCloud seed: a small FAT volume from which cloud-init, or tiny's own start, learns who it is.
//!
//! Files: `meta-data` with the name and our client key, `user-data` with what the user gave, untouched, and
//! `vendor-data` with what we need besides. cloud-init lets user-data win over vendor-data, so our part stands where
//! it cannot be overridden by accident: the client key is the data source's, and a script at the end of the boot
//! makes sure of the account.

use std::{
    io::{Cursor, Write},
    path::Path,
};

use batwa_api::{
    ssh_key,
    vm::{MacAddress, NetworkMode},
};
use russh::keys::{PrivateKey, PublicKey};

use super::{files, networks::KeptCard, user_data::UserData};
use crate::driver::DriverError;

/// Size of the volume: far above the largest user-data.
const SIZE: usize = 1 << 20;

/// What a seed says.
#[derive(Debug)]
pub(super) struct Seed<'a> {
    /// Unique in time: cloud-init does its work once for each.
    pub(super) instance: uuid::Uuid,
    /// The VM's name for itself.
    pub(super) hostname: &'a str,
    /// The account that we sign in to.
    pub(super) user: &'a str,
    /// The key that may sign in to it.
    pub(super) client_key: &'a PublicKey,
    /// Keys of people that may sign in to it too, a line each.
    pub(super) authorized: &'a [String],
    /// The key that the VM shall show.
    pub(super) host_key: &'a PrivateKey,
    /// What the user gave.
    pub(super) user_data: &'a UserData,
    /// What is on the disk at the first boot.
    pub(super) disk: Disk,
    /// The address of its first network card.
    pub(super) first_mac: MacAddress,
    /// The others.
    pub(super) networks: &'a [KeptCard],
}

/// What is on a VM's disk at its first boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// An image that knows of no VM yet.
    New,
    /// What another VM left on it, by which it would be taken for that one.
    Copied,
}

/// Makes a copied system forget what it was known by, once, before anything in it speaks to others. Host keys and name
/// are cloud-init's own to change.
const FORGET: &str = "\
bootcmd:
  - [cloud-init-per, instance, batwa-identity, sh, -c, 'rm -f /etc/machine-id /var/lib/dbus/machine-id /var/lib/systemd/random-seed && systemd-machine-id-setup']
";

impl Seed<'_> {
    /// Writes the volume to `path`.
    pub(super) fn write(&self, path: &Path) -> Result<(), DriverError> {
        let volume = self
            .volume()
            .map_err(|error| files::io_error("make the seed", path, &error))?;
        files::write(path, &volume)
    }

    fn volume(&self) -> std::io::Result<Vec<u8>> {
        let mut volume = Cursor::new(vec![0; SIZE]);
        let options = fatfs::FormatVolumeOptions::new().volume_label(*b"CIDATA     ");
        fatfs::format_volume(&mut volume, options)?;
        {
            let fs = fatfs::FileSystem::new(&mut volume, fatfs::FsOptions::new())?;
            let root = fs.root_dir();
            let files = [
                ("meta-data", Some(self.meta_data())),
                ("user-data", Some(self.user_data.text().to_owned())),
                ("vendor-data", Some(self.vendor_data())),
                ("network-config", self.network_config()),
            ];
            for (name, text) in files
                .into_iter()
                .filter_map(|(name, text)| Some((name, text?)))
            {
                root.create_file(name)?.write_all(text.as_bytes())?;
            }
        }
        Ok(volume.into_inner())
    }

    fn meta_data(&self) -> String {
        let keys: String = std::iter::once(public_line(self.client_key))
            .chain(self.authorized.iter().filter_map(|line| plain_line(line)))
            .map(|key| format!("  - {key}\n"))
            .collect();
        format!(
            "instance-id: {}\nlocal-hostname: {}\npublic-keys:\n{keys}",
            self.instance, self.hostname,
        )
    }

    /// What cloud-init is told of networks; nothing of a first card alone, which it sets up by itself. The way out stays that
    /// of the first card, and no boot waits for the others.
    fn network_config(&self) -> Option<String> {
        if self.networks.is_empty() {
            return None;
        }
        let mut text = format!(
            "version: 2\nethernets:\n  default:\n    match:\n      macaddress: \"{}\"\n    dhcp4: true\n",
            self.first_mac
        );
        let auto = self
            .networks
            .iter()
            .filter(|card| card.mode == NetworkMode::Auto);
        for (number, card) in auto.enumerate() {
            text.push_str(&format!(
                "  extra{number}:\n    match:\n      macaddress: \"{}\"\n    dhcp4: true\n    dhcp4-overrides:\n      route-metric: 200\n    optional: true\n",
                card.mac
            ));
        }
        Some(text)
    }

    fn vendor_data(&self) -> String {
        let pem = self
            .host_key
            .to_openssh(Default::default())
            .expect("an ed25519 key has an OpenSSH form");
        let private = pem
            .lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>();
        let public = public_line(self.host_key.public_key());
        let user = self.user;
        let key = public_line(self.client_key);
        let forget = match self.disk {
            Disk::New => "",
            Disk::Copied => FORGET,
        };
        format!(
            "\
Content-Type: multipart/mixed; boundary=\"batwa\"
MIME-Version: 1.0

--batwa
Content-Type: text/cloud-config; charset=\"us-ascii\"

#cloud-config
{forget}ssh_keys:
  ed25519_private: |
{private}  ed25519_public: {public}

--batwa
Content-Type: text/x-shellscript; charset=\"us-ascii\"

#!/bin/sh
# The account that Batwa signs in to, whatever the user-data made of the accounts.
id {user} >/dev/null 2>&1 || useradd -m -s /bin/bash {user}
home=$(getent passwd {user} | cut -d: -f6)
if ! grep -qsF '{key}' \"$home/.ssh/authorized_keys\"; then
  mkdir -p -m 700 \"$home/.ssh\"
  echo '{key}' >> \"$home/.ssh/authorized_keys\"
  chmod 600 \"$home/.ssh/authorized_keys\"
  chown -R {user}: \"$home/.ssh\"
fi
[ {user} = root ] || echo '{user} ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/90-batwa

--batwa--
"
        )
    }
}

/// A public key on one line, without a comment.
fn public_line(key: &PublicKey) -> String {
    let mut key = key.clone();
    key.set_comment("");
    key.to_openssh()
        .expect("an ed25519 key has an OpenSSH form")
        .trim_end()
        .to_owned()
}

/// A person's key as it can stand in YAML and in tiny's own reading of it without quotes: its comment goes where it
/// has more than usual characters.
fn plain_line(line: &str) -> Option<String> {
    let mut key = ssh_key::PublicKey::parse(line).ok()?;
    let is_plain = key
        .comment
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '@' | '.' | '_' | '-'));
    if !is_plain {
        key.comment.clear();
    }
    Some(key.line())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::driver::qemu::ssh::new_key;

    #[test]
    fn the_volume_holds_the_three_files_under_the_label_that_cloud_init_looks_for() {
        let (client, host) = (new_key("client"), new_key("host"));
        let user_data = UserData::Script(format!("#!/bin/sh\n{}\n", "x".repeat(60 << 10)));
        let ann = public_line(new_key("ann").public_key());
        let authorized = [format!("{ann} ann@home"), format!("{ann} it's: #1")];
        let card = |text: &str| KeptCard::new(&text.parse().unwrap());
        let cards = [
            card("br0,mac=52:54:00:00:00:02"),
            card("br0,mode=manual,mac=52:54:00:00:00:03"),
        ];
        let seed = Seed {
            instance: uuid::Uuid::now_v7(),
            hostname: "web-1",
            user: "debian",
            client_key: client.public_key(),
            authorized: &authorized,
            host_key: &host,
            user_data: &user_data,
            disk: Disk::Copied,
            first_mac: MacAddress::local([0, 0, 1]),
            networks: &cards,
        };
        let volume = seed.volume().unwrap();
        assert_eq!(volume.len(), SIZE);
        let fs = fatfs::FileSystem::new(Cursor::new(volume), fatfs::FsOptions::new()).unwrap();
        assert_eq!(fs.volume_label(), "CIDATA");
        let read = |name: &str| {
            let mut text = String::new();
            let mut file = fs.root_dir().open_file(name).unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(read("user-data"), user_data.text());
        let meta = read("meta-data");
        assert!(meta.contains("\nlocal-hostname: web-1\n"), "{meta}");
        assert!(meta.contains(&public_line(client.public_key())), "{meta}");
        #[derive(serde::Deserialize)]
        struct Meta {
            #[serde(rename = "public-keys")]
            keys: Vec<String>,
        }
        let read_meta: Meta = serde_saphyr::from_str(&meta).unwrap();
        assert_eq!(
            read_meta.keys,
            [public_line(client.public_key()), authorized[0].clone(), ann]
        );
        let network: serde_json::Value = serde_saphyr::from_str(&read("network-config")).unwrap();
        let extra = &network["ethernets"]["extra0"];
        assert_eq!(extra["match"]["macaddress"], "52:54:00:00:00:02");
        assert_eq!(extra["optional"], true);
        assert_eq!(network["ethernets"]["extra1"], serde_json::Value::Null);
        let vendor = read("vendor-data");
        let config = vendor
            .split("#cloud-config\n")
            .nth(1)
            .unwrap()
            .split("\n--batwa")
            .next()
            .unwrap();
        #[derive(serde::Deserialize)]
        struct Vendor {
            ssh_keys: std::collections::BTreeMap<String, String>,
            bootcmd: Vec<Vec<String>>,
        }
        let config: Vendor = serde_saphyr::from_str(config).unwrap();
        assert!(config.bootcmd[0].last().unwrap().contains("machine-id"));
        let private = PrivateKey::from_openssh(&config.ssh_keys["ed25519_private"]).unwrap();
        assert_eq!(
            private.public_key().key_data(),
            host.public_key().key_data()
        );
        assert_eq!(
            config.ssh_keys["ed25519_public"],
            public_line(host.public_key())
        );
    }
}
