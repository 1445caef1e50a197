//! A ClientHello.

/// A ClientHello for this host name.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    hello_with(name, &[])
}

/// The same with further extensions.
pub(crate) fn hello_with(name: &str, others: &[u8]) -> Vec<u8> {
    let name = name.as_bytes();
    let len = |len: usize| u16::try_from(len).expect("short").to_be_bytes();
    let entry = [&[0], &len(name.len())[..], name].concat();
    let data = [&len(entry.len())[..], &entry].concat();
    let extension = [&[0, 0], &len(data.len())[..], &data, others].concat();
    let body =
        [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1, 1, 0], &len(extension.len()), &extension].concat();
    let message = [&[1, 0], &len(body.len())[..], &body].concat();
    [&[22, 3, 1], &len(message.len())[..], &message].concat()
}
