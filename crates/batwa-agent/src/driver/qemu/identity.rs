//! By what a VM is known: its keys, and the seed that tells it who it is.

use russh::keys::ssh_key::LineEnding;

use super::{
    files,
    record::file,
    seed::{Disk, Seed},
    ssh,
    user_data::UserData,
    vms::Vm,
};
use crate::driver::DriverError;

impl Vm {
    /// Gives it new keys, and a seed that says so. `authorized` may sign in to its account besides us.
    pub(super) fn give_identity(
        &self,
        user_data: &UserData,
        authorized: &[String],
        disk: Disk,
    ) -> Result<(), DriverError> {
        let record = self.record();
        let client_key = ssh::new_key("batwa");
        let host_key = ssh::new_key("batwa");
        let private = client_key
            .to_openssh(LineEnding::LF)
            .expect("an ed25519 key has an OpenSSH form");
        files::write(&self.dir.file(file::CLIENT_KEY), private.as_bytes())?;
        let known = match user_data {
            UserData::CloudConfig {
                host_key: Some(own),
                ..
            } => own.clone(),
            _ => host_key.public_key().clone(),
        };
        let known = known
            .to_openssh()
            .expect("a public key has an OpenSSH form");
        files::write(&self.dir.file(file::HOST_KEY), known.as_bytes())?;
        let seed = Seed {
            instance: record.instance,
            hostname: record.name.as_str(),
            user: &record.manifest.user,
            client_key: client_key.public_key(),
            authorized,
            host_key: &host_key,
            user_data,
            disk,
            first_mac: record.first_mac(),
            networks: &record.networks,
        };
        seed.write(&self.dir.file(file::SEED))
    }
}
