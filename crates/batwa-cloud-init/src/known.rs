//! What cloud-init knows: the keys of a cloud-config, and what the most used of them hold.
//!
//! cloud-init skips what it does not understand and goes on, so these are warnings. Keys that are known, but not what
//! they hold, are left alone. See <https://cloudinit.readthedocs.io/en/latest/reference/modules.html>.

use batwa_api::cloud_init::Finding;
use granit_parser::ScalarStyle;

use crate::tree::{Kind, Node};

/// What a key holds.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Anything: it is not looked at.
    Any,
    /// `true` or `false`, in any of the words that YAML 1.1 has for them.
    Truth,
    /// A whole number.
    Number,
    /// Text.
    Text,
    /// A list of the same.
    List(&'static Shape),
    /// A mapping with these keys and no others.
    Map(&'static [(&'static str, Shape)]),
    /// A mapping with any keys.
    Names(&'static Shape),
    /// One of several.
    OneOf(&'static [Shape]),
}

use Shape::{Any, List, Map, Names, Number, OneOf, Text, Truth};

/// A command: words for a shell, or an argument vector.
const COMMAND: Shape = OneOf(&[Text, List(&OneOf(&[Text, Number]))]);
const TEXTS: Shape = List(&Text);
const TEXT_OR_TEXTS: Shape = OneOf(&[Text, TEXTS]);
const TRUTH_OR_TEXT: Shape = OneOf(&[Truth, Text]);
const NUMBER_OR_TEXT: Shape = OneOf(&[Number, Text]);

const USER: Shape = OneOf(&[
    Text,
    Map(&[
        ("name", Text),
        ("create_groups", Truth),
        ("doas", TEXTS),
        ("expiredate", Text),
        ("gecos", Text),
        ("groups", OneOf(&[Text, TEXTS, Names(&Any)])),
        ("hashed_passwd", Text),
        ("homedir", Text),
        ("inactive", NUMBER_OR_TEXT),
        ("lock_passwd", Truth),
        ("lock-passwd", Truth),
        ("no_create_home", Truth),
        ("no_log_init", Truth),
        ("no_user_group", Truth),
        ("passwd", Text),
        ("plain_text_passwd", Text),
        ("primary_group", Text),
        ("selinux_user", Text),
        ("shell", Text),
        ("snapuser", Text),
        ("ssh_authorized_keys", TEXTS),
        ("ssh-authorized-keys", TEXTS),
        ("ssh_import_id", TEXTS),
        ("ssh_redirect_user", Truth),
        ("sudo", OneOf(&[Truth, Text, TEXTS])),
        ("system", Truth),
        ("uid", NUMBER_OR_TEXT),
    ]),
]);

const FILE: Shape = Map(&[
    ("path", Text),
    ("content", Text),
    ("source", Map(&[("uri", Text), ("headers", Names(&Text))])),
    ("owner", Text),
    ("permissions", NUMBER_OR_TEXT),
    ("encoding", Text),
    ("append", Truth),
    ("defer", Truth),
]);

/// Every key at the top, sorted.
const TOP: &[(&str, Shape)] = &[
    ("allow_public_ssh_keys", Truth),
    ("ansible", Any),
    ("apk_repos", Any),
    ("apt", Names(&Any)),
    ("apt_pipelining", Any),
    ("apt_reboot_if_required", Truth),
    ("apt_update", Truth),
    ("apt_upgrade", Truth),
    ("authkey_hash", Text),
    ("autoinstall", Any),
    ("bootcmd", List(&COMMAND)),
    ("byobu_by_default", Text),
    ("ca-certs", Any),
    (
        "ca_certs",
        Map(&[
            ("remove_defaults", Truth),
            ("remove-defaults", Truth),
            ("trusted", TEXTS),
        ]),
    ),
    ("chef", Any),
    (
        "chpasswd",
        Map(&[
            ("expire", Truth),
            (
                "users",
                List(&Map(&[("name", Text), ("password", Text), ("type", Text)])),
            ),
            ("list", TEXT_OR_TEXTS),
        ]),
    ),
    ("cloud_config_modules", Any),
    ("cloud_final_modules", Any),
    ("cloud_init_modules", Any),
    ("create_hostname_file", Truth),
    ("datasource", Any),
    ("datasource_list", Any),
    ("debug", Any),
    ("def_log_file", Text),
    ("device_aliases", Names(&Text)),
    ("disable_ec2_metadata", Truth),
    ("disable_root", Truth),
    ("disable_root_opts", Text),
    ("disk_setup", Names(&Any)),
    ("drivers", Any),
    ("fan", Any),
    ("final_message", Text),
    ("fqdn", Text),
    ("fs_setup", List(&Names(&Any))),
    ("groups", OneOf(&[Text, Names(&Any), List(&Any)])),
    (
        "growpart",
        Map(&[
            ("mode", TRUTH_OR_TEXT),
            ("devices", TEXTS),
            ("ignore_growroot_disabled", Truth),
        ]),
    ),
    ("grub-dpkg", Any),
    ("grub_dpkg", Any),
    ("hostname", Text),
    ("install_hotplug", Any),
    (
        "keyboard",
        Map(&[
            ("layout", Text),
            ("model", Text),
            ("variant", Text),
            ("options", Text),
        ]),
    ),
    ("landscape", Any),
    ("launch-index", Number),
    ("locale", TRUTH_OR_TEXT),
    ("locale_configfile", Text),
    ("log_cfgs", Any),
    ("lxd", Any),
    ("manage_etc_hosts", TRUTH_OR_TEXT),
    ("manage_resolv_conf", Truth),
    ("mcollective", Any),
    ("merge_how", Any),
    ("merge_type", Any),
    ("migrate", Any),
    ("mount_default_fields", List(&Any)),
    ("mounts", List(&List(&Any))),
    ("no_ssh_fingerprints", Truth),
    (
        "ntp",
        Map(&[
            ("enabled", Truth),
            ("servers", TEXTS),
            ("pools", TEXTS),
            ("peers", TEXTS),
            ("allow", TEXTS),
            ("ntp_client", Text),
            ("config", Names(&Any)),
        ]),
    ),
    ("output", Any),
    ("package_reboot_if_required", Truth),
    ("package_update", Truth),
    ("package_upgrade", Truth),
    ("packages", List(&OneOf(&[Text, TEXTS, Names(&Any)]))),
    ("password", Text),
    (
        "phone_home",
        Map(&[("url", Text), ("post", TEXT_OR_TEXTS), ("tries", Number)]),
    ),
    (
        "power_state",
        Map(&[
            ("delay", NUMBER_OR_TEXT),
            ("mode", Text),
            ("message", Text),
            ("timeout", Number),
            ("condition", OneOf(&[Truth, Text, TEXTS])),
        ]),
    ),
    ("prefer_fqdn_over_hostname", Truth),
    ("preserve_hostname", Truth),
    ("puppet", Any),
    ("random_seed", Any),
    ("raspi_config", Any),
    ("reporting", Any),
    ("resize_rootfs", TRUTH_OR_TEXT),
    (
        "resolv_conf",
        Map(&[
            ("nameservers", TEXTS),
            ("searchdomains", TEXTS),
            ("domain", Text),
            ("sortlist", TEXTS),
            ("options", Names(&Any)),
        ]),
    ),
    ("rh_subscription", Any),
    ("rpi", Any),
    ("rsyslog", Any),
    ("runcmd", List(&COMMAND)),
    ("salt_minion", Any),
    ("snap", Map(&[("commands", Any), ("assertions", Any)])),
    ("spacewalk", Any),
    ("ssh", Any),
    ("ssh_authorized_keys", TEXTS),
    ("ssh_deletekeys", Truth),
    ("ssh_fp_console_blacklist", TEXTS),
    ("ssh_genkeytypes", TEXTS),
    ("ssh_import_id", TEXTS),
    ("ssh_key_console_blacklist", TEXTS),
    ("ssh_keys", Names(&Text)),
    ("ssh_publish_hostkeys", Any),
    ("ssh_pwauth", TRUTH_OR_TEXT),
    ("ssh_quiet_keygen", Truth),
    (
        "swap",
        Map(&[
            ("filename", Text),
            ("size", NUMBER_OR_TEXT),
            ("maxsize", NUMBER_OR_TEXT),
        ]),
    ),
    ("syslog_fix_perms", Any),
    ("system_info", Any),
    ("timezone", Text),
    ("ubuntu_advantage", Any),
    ("ubuntu_autoinstall", Any),
    ("ubuntu_pro", Any),
    ("unverified_modules", Any),
    ("updates", Any),
    ("user", USER),
    ("users", OneOf(&[Text, List(&USER), Names(&Any)])),
    (
        "vendor_data",
        Map(&[("enabled", TRUTH_OR_TEXT), ("prefix", TEXT_OR_TEXTS)]),
    ),
    ("version", Any),
    ("wireguard", Any),
    ("write_files", List(&FILE)),
    ("yum_repo_dir", Text),
    ("yum_repos", Names(&Any)),
    ("zypper", Any),
];

/// What cloud-init will not understand, in the order of the lines.
pub(crate) fn check(root: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_map(root, TOP, "", &mut findings);
    findings
}

fn check_map(
    node: &Node,
    known: &[(&'static str, Shape)],
    path: &str,
    findings: &mut Vec<Finding>,
) {
    let Kind::Map { entries, .. } = &node.kind else {
        return;
    };
    for (key, value) in entries {
        let Some(name) = key.text() else {
            continue;
        };
        // YAML's own way to take over another mapping's keys.
        if name == "<<" {
            continue;
        }
        match known.iter().find(|(key, _)| *key == name) {
            Some((_, shape)) => {
                let path = match path {
                    "" => name.to_owned(),
                    path => format!("{path}.{name}"),
                };
                check_value(value, *shape, &path, findings);
            }
            None => findings.push(unknown(key, name, known, path)),
        }
    }
}

fn unknown(key: &Node, name: &str, known: &[(&'static str, Shape)], path: &str) -> Finding {
    let shown: String = name.chars().take(40).collect();
    let near = known
        .iter()
        .map(|(key, _)| (strsim::osa_distance(key, &name.replace('-', "_")), key))
        .min()
        .filter(|(distance, key)| *distance <= 2.min(key.len() / 2));
    let place = match path {
        "" => String::new(),
        path => format!(" in `{path}`"),
    };
    let hint = near
        .map(|(_, key)| format!(": did you mean `{key}`?"))
        .unwrap_or_default();
    Finding::warning(
        key.line,
        format!("cloud-init knows no `{shown}`{place}{hint}"),
    )
}

fn check_value(node: &Node, shape: Shape, path: &str, findings: &mut Vec<Finding>) {
    // Nothing at all is the default; what an alias stands for is looked at where it is written.
    if is_nothing(node) || node.kind == Kind::Alias {
        return;
    }
    if !fits(node, shape) {
        let hint = if matches!(shape, Text) && node.text().is_some() {
            ": put it into quotes"
        } else {
            ""
        };
        findings.push(Finding::warning(
            node.line,
            format!("`{path}` is {}{hint}", words(shape)),
        ));
        return;
    }
    match shape {
        Map(known) => check_map(node, known, path, findings),
        List(of) => {
            if let Kind::List { items, .. } = &node.kind {
                for (index, item) in items.iter().enumerate() {
                    check_value(item, *of, &format!("{path}[{index}]"), findings);
                }
            }
        }
        Names(of) => {
            if let Kind::Map { entries, .. } = &node.kind {
                for (key, value) in entries {
                    let name = key.text().unwrap_or("?");
                    check_value(value, *of, &format!("{path}.{name}"), findings);
                }
            }
        }
        OneOf(shapes) => {
            if let Some(shape) = shapes.iter().find(|shape| fits(node, **shape)) {
                check_value(node, *shape, path, findings);
            }
        }
        Any | Truth | Number | Text => {}
    }
}

/// Whether the value is of that kind, without a look at what is in it.
fn fits(node: &Node, shape: Shape) -> bool {
    let scalar = match &node.kind {
        Kind::Scalar { value, style } => Some((value.as_str(), *style == ScalarStyle::Plain)),
        _ => None,
    };
    match shape {
        Any => true,
        Truth => scalar.is_some_and(|(text, plain)| plain && is_truth(text)),
        Number => scalar.is_some_and(|(text, plain)| plain && is_number(text)),
        Text => scalar.is_some_and(|(text, plain)| !plain || !(is_truth(text) || is_number(text))),
        List(_) => matches!(node.kind, Kind::List { .. }),
        Map(_) | Names(_) => matches!(node.kind, Kind::Map { .. }),
        OneOf(shapes) => shapes.iter().any(|shape| fits(node, *shape)),
    }
}

fn is_nothing(node: &Node) -> bool {
    matches!(&node.kind, Kind::Scalar { value, style: ScalarStyle::Plain } if matches!(value.as_str(), "" | "~" | "null" | "Null" | "NULL"))
}

fn is_truth(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off"
    )
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_')
        && digits.starts_with(|c: char| c.is_ascii_digit())
}

fn words(shape: Shape) -> String {
    match shape {
        Any => "anything".to_owned(),
        Truth => "`true` or `false`".to_owned(),
        Number => "a whole number".to_owned(),
        Text => "text".to_owned(),
        List(_) => "a list".to_owned(),
        Map(_) | Names(_) => "a mapping".to_owned(),
        OneOf(shapes) => shapes
            .iter()
            .map(|shape| words(*shape))
            .collect::<Vec<_>>()
            .join(", or "),
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::cloud_init::Severity;

    use super::*;

    fn findings(text: &str) -> Vec<(u32, String)> {
        crate::check(&format!("#cloud-config\n{text}"))
            .into_iter()
            .map(|finding| {
                assert_eq!(finding.severity, Severity::Warning);
                (finding.line.unwrap(), finding.message)
            })
            .collect()
    }

    #[test]
    fn the_keys_are_sorted_and_there_once() {
        assert!(TOP.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn what_people_write_is_understood() {
        let text = "\
package_update: yes
packages: [vim, [nginx, 1.18], {snap: [hello]}]
hostname: web
ssh_pwauth: false
users:
  - default
  - name: ann
    groups: [sudo]
    sudo: ALL=(ALL) NOPASSWD:ALL
    ssh_authorized_keys:
      - ssh-ed25519 AAAA
    uid: 1001
write_files:
  - path: /etc/x
    permissions: 0644
    content: |
      1
runcmd:
  - echo hello
  - [sh, -c, true and so on, 5]
bootcmd:
timezone: Europe/Berlin
swap: {filename: /swap, size: auto}
mounts:
  - [sdb, /data]
";
        assert_eq!(findings(text), []);
    }

    #[test]
    fn what_is_like_nothing_known_is_only_named() {
        assert_eq!(
            findings("frobnicate: 1\n"),
            [(2, "cloud-init knows no `frobnicate`".to_owned())]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_what_would_be_right() {
        for (text, line, message) in [
            ("package: [vim]\n", 2, "did you mean `packages`?"),
            ("write-files: []\n", 2, "did you mean `write_files`?"),
            ("a: 1\nrun_cmd: [x]\n", 3, "did you mean `runcmd`?"),
            ("packages: vim\n", 2, "`packages` is a list"),
            ("runcmd:\n  - a: b\n", 3, "`runcmd[0]` is text, or a list"),
            (
                "hostname: 12\n",
                2,
                "`hostname` is text: put it into quotes",
            ),
            (
                "package_update: maybe\n",
                2,
                "`package_update` is `true` or `false`",
            ),
            (
                "users:\n  - nme: ann\n",
                3,
                "in `users[0]`: did you mean `name`?",
            ),
            (
                "write_files:\n  - path: /x\n    content: [a]\n",
                4,
                "`write_files[0].content` is text",
            ),
            (
                "power_state: {timeout: soon}\n",
                2,
                "`power_state.timeout` is a whole number",
            ),
        ] {
            let found = findings(text);
            assert!(
                found
                    .iter()
                    .any(|(at, said)| *at == line && said.contains(message)),
                "{text}: {found:?}"
            );
        }
    }
}
