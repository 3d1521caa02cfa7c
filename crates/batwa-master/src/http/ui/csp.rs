//! The page's Content-Security-Policy: its own files, and of inline scripts exactly those that were built into it.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

/// The policy for a page with this HTML.
///
/// Inline styles stay allowed: terminal emulators write them, and they can do little without scripts.
pub(super) fn policy(html: &str) -> String {
    let mut scripts = "'self'".to_owned();
    for script in inline_scripts(html) {
        let hash = STANDARD.encode(Sha256::digest(script.as_bytes()));
        scripts.push_str(&format!(" 'sha256-{hash}'"));
    }
    format!(
        "default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
         font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; manifest-src 'self'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    )
}

/// The texts of the script elements without `src`.
fn inline_scripts(html: &str) -> Vec<&str> {
    let lower = html.to_ascii_lowercase();
    let mut scripts = Vec::new();
    let mut at = 0;
    while let Some(start) = lower[at..].find("<script").map(|found| at + found) {
        let Some(open) = lower[start..].find('>').map(|found| start + found + 1) else {
            break;
        };
        let Some(end) = lower[open..].find("</script").map(|found| open + found) else {
            break;
        };
        let attributes = &lower[start..open];
        let has_source = attributes
            .split_ascii_whitespace()
            .any(|attribute| attribute.starts_with("src="));
        if !has_source {
            scripts.push(&html[open..end]);
        }
        at = end;
    }
    scripts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_scripts_are_found_and_others_left() {
        let html = "<head><script src=\"/a.js\"></script><SCRIPT type=module>let a = '<b>';\n</SCRIPT>\
                    <script>\n  boot()\n</script></head>";
        assert_eq!(inline_scripts(html), ["let a = '<b>';\n", "\n  boot()\n"]);
        assert!(inline_scripts("<p>no script</p>").is_empty());
        assert!(inline_scripts("<script>cut").is_empty());
    }

    #[test]
    fn a_script_is_allowed_by_its_hash_alone() {
        // The example of the CSP specification.
        let policy = policy("<script>alert('Hello, world.');</script>");
        assert!(
            policy.contains(
                "script-src 'self' 'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng=';"
            ),
            "{policy}"
        );
    }
}
