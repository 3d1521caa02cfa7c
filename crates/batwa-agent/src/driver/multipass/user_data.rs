//! User-data as Multipass takes it: it reads YAML only, and merges its own into it.
//!
//! A `#!` script, which cloud-init itself would run, is therefore carried inside a document that puts the same
//! script where cloud-init runs scripts once per instance.

use serde::de::IgnoredAny;
use std::collections::BTreeMap;

use crate::driver::DriverError;

/// Where cloud-init looks for scripts to run once in the life of a VM, after its modules.
const SCRIPT_PATH: &str = "/var/lib/cloud/scripts/per-instance/user-data";

/// The document to give to Multipass.
///
/// # Errors
/// [`DriverError::Invalid`] when it is neither a script nor a YAML mapping.
pub(super) fn document(user_data: &str) -> Result<String, DriverError> {
    if user_data.starts_with("#!") {
        // JSON is YAML, and quotes every script safely.
        let document = serde_json::json!({
            "write_files": [{ "path": SCRIPT_PATH, "permissions": "0755", "content": user_data }],
        });
        return Ok(format!("#cloud-config\n{document}\n"));
    }
    if !user_data.starts_with("#cloud-config") {
        return Err(DriverError::Invalid {
            field: "cloud_init",
            message: "user-data begins with `#cloud-config` or, as a script, with `#!`".to_owned(),
        });
    }
    if user_data.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#')
    }) {
        return Ok(user_data.to_owned());
    }
    match serde_saphyr::from_str::<BTreeMap<String, IgnoredAny>>(user_data) {
        Ok(_) => Ok(user_data.to_owned()),
        Err(error) => Err(DriverError::Invalid {
            field: "cloud_init",
            message: format!("the user-data is no valid `#cloud-config`: {error}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_config_goes_through_unchanged() {
        for text in [
            "#cloud-config\npackages: [nginx]\nruncmd:\n  - [touch, /x]\n",
            "#cloud-config\n",
            "#cloud-config\n# nothing yet\n",
        ] {
            assert_eq!(document(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_mapping_is_refused_and_the_field_named() {
        for text in [
            "#cloud-config\npackages: [nginx\n",
            "#cloud-config\n- a\n- b\n",
            "#cloud-config\njust words\n",
            "packages: [nginx]\n",
            "",
        ] {
            let error = document(text).unwrap_err();
            assert!(
                matches!(
                    error,
                    DriverError::Invalid {
                        field: "cloud_init",
                        ..
                    }
                ),
                "{text:?}: {error:?}"
            );
        }
    }

    #[test]
    fn a_script_arrives_byte_for_byte_inside_a_document() {
        let script = "#!/bin/sh\necho \"quotes 'and' $HOME: #x\"\n\tprintf '%s\\n' \u{e9}\n";
        let document = document(script).unwrap();
        assert!(document.starts_with("#cloud-config\n"));
        let read: serde_json::Value = serde_saphyr::from_str(&document).unwrap();
        let file = &read["write_files"][0];
        assert_eq!(file["content"], script);
        assert_eq!(file["permissions"], "0755");
        assert_eq!(file["path"], SCRIPT_PATH);
    }
}
