//! Certificate chains in PEM (RFC 8555 §7.4.2, RFC 7468).

use alloc::string::String;

use data_encoding::BASE64;

/// The most certificates of a chain.
pub const CHAIN_MAX: usize = 10;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Reads a chain, and writes it again: only certificates, 64 characters in a line, `\n` at the end of each. Text
/// between certificates is left out. `None` if there is no certificate, if there are more than [`CHAIN_MAX`], or if one is not
/// complete, no base64 or no DER sequence. A private key, or anything else in PEM, is refused as well.
#[must_use]
pub fn parse_chain(body: &[u8]) -> Option<String> {
    let mut chain = String::new();
    let mut count = 0;
    // The base64 of the certificate that is being read.
    let mut open: Option<String> = None;
    for line in core::str::from_utf8(body).ok()?.lines() {
        let line = line.trim();
        match &mut open {
            None if line == BEGIN => {
                count += 1;
                open = Some(String::new());
            }
            None if line.starts_with("-----") => return None,
            None => {}
            Some(text) if line == END => {
                let der = BASE64.decode(text.as_bytes()).ok()?;
                write(&der, &mut chain)?;
                open = None;
            }
            Some(text) => text.push_str(line),
        }
    }
    (open.is_none() && (1..=CHAIN_MAX).contains(&count)).then_some(chain)
}

fn write(der: &[u8], chain: &mut String) -> Option<()> {
    if der.len() < 2 || der[0] != 0x30 {
        return None;
    }
    chain.push_str(BEGIN);
    chain.push('\n');
    for (at, it) in BASE64.encode(der).chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            chain.push('\n');
        }
        chain.push(it);
    }
    chain.push('\n');
    chain.push_str(END);
    chain.push('\n');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_chain_is_read_however_its_lines_end_and_nothing_else_is() {
        let one = format!("{BEGIN}\n{}\n{END}\n", BASE64.encode(&[0x30; 48]));
        let chain =
            parse_chain(format!("leaf\r\n{one}\r\n\r\n# text\n{one}").replace('\n', "\r\n").as_bytes());
        assert_eq!(chain, Some(format!("{one}{one}")));
        let wrong = [
            String::new(),
            "text".into(),
            BEGIN.into(),
            format!("{BEGIN}\nAAAA\n{END}"),
            format!("{BEGIN}\nM!==\n{END}"),
            format!("{one}{BEGIN}\n"),
            format!("{one}-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----"),
            format!("{BEGIN}\n{one}"),
            one.repeat(CHAIN_MAX + 1),
        ];
        for wrong in wrong {
            assert_eq!(parse_chain(wrong.as_bytes()), None, "{wrong}");
        }
        assert!(parse_chain(one.repeat(CHAIN_MAX).as_bytes()).is_some());
    }
}
