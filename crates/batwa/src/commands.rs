//! What each command does; one file a family.

mod admin;
pub(crate) mod completions;
mod doctor;
mod health;
mod images;
mod inside;
mod join_tokens;
pub(crate) mod live;
mod login;
mod machines;
mod membership;
mod mounts;
mod networks;
mod operations;
mod recordings;
mod roles;
mod sending;
mod set;
mod simulate;
mod snapshots;
mod ssh_keys;
mod stop;
mod templates;
mod terminals;
mod vms;
mod wait;

pub(crate) use self::roles::own_address;
use crate::{
    cli::{AgentTask, Task},
    failure::Failure,
};

/// Runs a command to its end; the code to exit with.
pub(crate) async fn run(task: Task) -> Result<u8, Failure> {
    let done = match task {
        // These end as what they ran did.
        Task::Exec(args) => return inside::exec(args).await,
        Task::Shell(args) => return inside::shell(args).await,
        Task::Console(args) => return inside::console(args).await,
        Task::Attach(args) => return inside::attach(args).await,
        Task::Up(flags) => roles::up(flags.0).await,
        Task::Master(flags) => roles::master(flags.0).await,
        Task::Agent(args) => match args.task {
            None => roles::agent(args.flags.0).await,
            Some(AgentTask::Join(args)) => membership::join(args).await,
            Some(AgentTask::RotateKey(flags)) => membership::rotate_key(flags.0).await,
        },
        Task::Admin(task) => admin::run(task).await,
        Task::Doctor(args) => doctor::run(args).await,
        Task::Simulate(args) => simulate::run(args).await,
        Task::Health(args) => health::run(args).await,
        Task::Completions { shell } => completions::run(shell),
        Task::Login(args) => login::login(args).await,
        Task::Logout(args) => login::logout(args).await,
        Task::Masters(args) => login::masters(args),
        Task::Ls(args) => vms::ls(args).await,
        Task::Info(args) => vms::info(args).await,
        Task::Launch(args) => vms::launch(args).await,
        Task::Start(args) => vms::act(args, "start").await,
        Task::Stop(args) => stop::stop(args).await,
        Task::Restart(args) => vms::act(args, "restart").await,
        Task::Suspend(args) => vms::act(args, "suspend").await,
        Task::Resume(args) => vms::act(args, "resume").await,
        Task::Delete(args) => vms::delete(args).await,
        Task::Recover(args) => vms::act(args, "recover").await,
        Task::Purge(args) => vms::purge(args).await,
        Task::Snapshot(args) => snapshots::snapshot(args).await,
        Task::Snapshots(args) => snapshots::snapshots(args).await,
        Task::Restore(args) => snapshots::restore(args).await,
        Task::DeleteSnapshot(args) => snapshots::delete(args).await,
        Task::Clone(args) => snapshots::clone(args).await,
        Task::Mount(args) => mounts::mount(args).await,
        Task::Umount(args) => mounts::umount(args).await,
        Task::Set(args) => set::set(args).await,
        Task::Dismiss(args) => vms::dismiss(args).await,
        Task::Recordings(args) => recordings::run(args).await,
        Task::Terminals(args) => terminals::run(args).await,
        Task::Agents(args) => machines::agents(args).await,
        Task::Networks(args) => networks::networks(args).await,
        Task::JoinToken(task) => join_tokens::run(task).await,
        Task::Operations(args) => operations::run(args).await,
        Task::Images(args) => images::run(args).await,
        Task::Templates(args) => templates::run(args).await,
        Task::SshKeys(args) => ssh_keys::run(args).await,
        Task::Transfer(args) => inside::transfer(args).await,
        Task::Forward(args) => inside::forward(args).await,
        Task::Display(args) => inside::display(args).await,
        Task::Proxy(args) => inside::proxy(args).await,
        Task::SshConfig(args) => inside::ssh_config(args).await,
    };
    done.map(|()| 0)
}
