//! User-data as Multipass takes it: it reads YAML only, and merges its own into it.
//!
//! A `#!` script, which cloud-init itself would run, is therefore carried inside a document that puts the same
//! script where cloud-init runs scripts once per instance.

use batwa_cloud_init::{UserData, with_ssh_keys};

use crate::driver::DriverError;

/// Where cloud-init looks for scripts to run once in the life of a VM, after its modules.
const SCRIPT_PATH: &str = "/var/lib/cloud/scripts/per-instance/user-data";

/// The document to give to Multipass, with `keys` among those that may sign in; `None` when nothing is asked for.
///
/// # Errors
/// [`DriverError::Invalid`] when the user-data cannot work.
pub(super) fn document(
    user_data: Option<&str>,
    keys: &[String],
) -> Result<Option<String>, DriverError> {
    let user_data = with_ssh_keys(user_data.unwrap_or_default(), keys).map_err(|finding| {
        DriverError::Invalid {
            field: "cloud_init",
            message: finding.to_string(),
        }
    })?;
    Ok(match user_data {
        UserData::Empty => None,
        UserData::CloudConfig(text) => Some(text),
        UserData::Script(script) => Some(carried(&script, keys)),
    })
}

/// A script inside a document. JSON is YAML, and quotes every script safely.
fn carried(script: &str, keys: &[String]) -> String {
    let mut document = serde_json::json!({
        "write_files": [{ "path": SCRIPT_PATH, "permissions": "0755", "content": script }],
    });
    if !keys.is_empty() {
        document["ssh_authorized_keys"] = serde_json::json!(keys);
    }
    format!("#cloud-config\n{document}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3Nz ann@home";

    #[test]
    fn keys_stand_in_the_document_and_alone_make_one() {
        let keys = [KEY.to_owned()];
        for text in [
            None,
            Some(""),
            Some("packages: [nginx]\n"),
            Some("#cloud-config\npackages: [nginx]\n"),
        ] {
            let document = document(text, &keys).unwrap().unwrap();
            assert!(document.starts_with("#cloud-config\n"), "{document}");
            let read: serde_json::Value = serde_saphyr::from_str(&document).unwrap();
            assert_eq!(read["ssh_authorized_keys"], serde_json::json!([KEY]));
        }
        assert_eq!(document(None, &[]).unwrap(), None);
        assert_eq!(document(Some(" \n"), &[]).unwrap(), None);
    }

    #[test]
    fn a_cloud_config_goes_through_unchanged() {
        for text in [
            "#cloud-config\npackages: [nginx]\nruncmd:\n  - [touch, /x]\n",
            "#cloud-config\n",
            "#cloud-config\n# nothing yet\n",
        ] {
            assert_eq!(document(Some(text), &[]).unwrap().as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_mapping_is_refused_and_the_field_named() {
        for text in [
            "#cloud-config\npackages: [nginx\n",
            "#cloud-config\n- a\n- b\n",
            "#cloud-config\njust words\n",
            "just words\n",
        ] {
            let error = document(Some(text), &[]).unwrap_err();
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
        let document = document(Some(script), &[KEY.to_owned()]).unwrap().unwrap();
        assert!(document.starts_with("#cloud-config\n"));
        let read: serde_json::Value = serde_saphyr::from_str(&document).unwrap();
        let file = &read["write_files"][0];
        assert_eq!(file["content"], script);
        assert_eq!(file["permissions"], "0755");
        assert_eq!(file["path"], SCRIPT_PATH);
        assert_eq!(read["ssh_authorized_keys"], serde_json::json!([KEY]));
    }
}
