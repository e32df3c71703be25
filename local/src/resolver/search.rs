//! Which search domains are believed. Pure.
//!
//! A search domain becomes one of the laptop's domains, whose names the codespace sends nowhere else. resolv.conf has
//! search domains from whatever network the laptop is in, and one that hands out `com` would get all of `*.com`. So a
//! domain under which the public registers names is refused: a delegated top-level domain, or one in the ICANN section of
//! the public suffix list. Others are the name of somebody, or of nobody in public (`corp`, `lan`, `internal`).

/// In the list, but for use in a home (RFC 8375).
const HOME: &str = "home.arpa";

/// Whether a search domain (in lower case, without a trailing dot) may be one of a single network.
pub fn is_plausible(domain: &str) -> bool {
    let Some(suffix) = psl::suffix(domain.as_bytes()) else { return false };
    let is_public = suffix.typ() == Some(psl::Type::Icann) && suffix.as_bytes() == domain.as_bytes();
    !is_public || domain == HOME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_of_the_public_are_refused() {
        for domain in
            ["com", "org", "de", "dev", "co.uk", "com.au", "arpa", "in-addr.arpa", "xn--p1ai", "anything.ck"]
        {
            assert!(!is_plausible(domain), "{domain}");
        }
    }

    #[test]
    fn domains_of_somebody_and_of_nobody_are_plausible() {
        for domain in [
            "corp",
            "lan",
            "local",
            "internal",
            "home",
            "localdomain",
            "home.arpa",
            "corp.internal",
            "example.com",
            "eng.example.co.uk",
            "fritz.box",
            "ec2.internal",
            "github.io",
        ] {
            assert!(is_plausible(domain), "{domain}");
        }
    }
}
