//! What a guest prints on its console.

const BEGIN: &str = "-----BEGIN SSH HOST KEY KEYS-----";
const END: &str = "-----END SSH HOST KEY KEYS-----";
/// Algorithms of host keys that are used.
const ALGORITHMS: [&str; 3] = ["ssh-ed25519", "ecdsa-sha2-", "ssh-rsa"];

/// The public SSH host keys that a guest printed on its console, as cloud-init does: those of its newest boot.
pub fn host_keys_from_console(console: &str) -> Vec<String> {
    let Some((_, block)) = console.rsplit_once(BEGIN) else { return vec![] };
    let Some((block, _)) = block.split_once(END) else { return vec![] };
    let key = |line: &str| {
        let start = ALGORITHMS.iter().filter_map(|a| line.find(a)).min()?;
        let mut words = line[start..].split_whitespace();
        Some(format!("{} {}", words.next()?, words.next()?))
    };
    block.lines().filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_newest_boot_are_found() {
        let one =
            |key: &str| format!("[  1.0] x\r\n{BEGIN}\r\nssh-ed25519 {key} root@web\r\n{END}\r\nlogin:");
        assert_eq!(host_keys_from_console(&one("AAAA1")), ["ssh-ed25519 AAAA1"]);
        let twice = format!("{}{}", one("AAAA1"), one("AAAA2"));
        assert_eq!(host_keys_from_console(&twice), ["ssh-ed25519 AAAA2"]);
        assert!(host_keys_from_console("ssh-ed25519 AAAA from somebody").is_empty());
        assert!(host_keys_from_console(&format!("{BEGIN}\nssh-rsa AAAA")).is_empty());
    }
}
