//! Networks of this machine that VMs may be put on.

use super::{
    PolicyFile, Refusal,
    check::{quoted, refusal},
};

impl PolicyFile {
    /// Refuses a network that VMs may not be put on.
    pub(crate) fn check_network(&self, name: &str) -> Result<(), Refusal> {
        let policy = self.current();
        if policy.bridges.iter().any(|allowed| allowed == name) {
            return Ok(());
        }
        let message = format!("this machine's policy does not let VMs on its network `{name}`");
        let name = name.to_owned();
        let line = format!(
            "bridges = [{}]",
            quoted(policy.bridges.iter().chain([&name]))
        );
        Err(refusal(&policy, "networks", message, "networks", &line))
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::policy::Policy;

    use super::*;

    #[test]
    fn only_what_is_named_may_be_used() {
        let policy = PolicyFile::fixed(Policy {
            bridges: vec!["br0".to_owned()],
            ..Policy::default()
        });
        assert_eq!(policy.check_network("br0"), Ok(()));
        let refused = policy.check_network("br1").unwrap_err();
        assert_eq!(refused.field, "networks");
        let line = r#"`bridges = ["br0", "br1"]` under `[networks]`"#;
        assert!(refused.remedy.contains(line), "{refused:?}");
        PolicyFile::default().check_network("br0").unwrap_err();
    }
}
