//! [`Keys`]: the names of a stream's keys in Redis, and the stream of a category.

/// The names of the keys of one stream. The part in braces puts them into one slot of a Redis Cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// A hash: the epoch, the newest sequence number, and so on.
    pub(super) state: String,
    /// The stream.
    pub(super) events: String,
    /// A hash: the node's newest batch.
    pub(super) node: String,
    /// A hash: the idempotency keys, each with the fingerprint and the last id of its events, and its time.
    pub(super) keys: String,
    /// A sorted set: the idempotency keys by their times.
    pub(super) key_times: String,
}

impl Keys {
    pub(super) fn new(prefix: &str, stream: usize, node: &str) -> Self {
        Keys {
            state: format!("{prefix}{{{stream}}}:state"),
            events: format!("{prefix}{{{stream}}}:events"),
            node: format!("{prefix}{{{stream}}}:node:{node}"),
            keys: format!("{prefix}{{{stream}}}:keys"),
            key_times: format!("{prefix}{{{stream}}}:keys:times"),
        }
    }
}

/// Returns the stream of a category.
pub(super) fn stream_of(category: &str, streams: usize) -> usize {
    if streams == 1 {
        return 0;
    }
    usize::from(crc16(hash_tag(category).as_bytes())) % streams
}

/// Returns what decides the slot of a key in a Redis Cluster: the part in the first braces, if it is not empty, or else the
/// whole key.
fn hash_tag(key: &str) -> &str {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    match tag {
        Some((tag, _)) if !tag.is_empty() => tag,
        _ => key,
    }
}

/// The CRC-16 of Redis Cluster (XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Redis' own example, in the specification of Redis Cluster.
    #[test]
    fn the_checksum_is_that_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn the_part_in_the_first_braces_decides() {
        for (key, tag) in [
            ("a", "a"),
            ("{room 7}:chat", "room 7"),
            ("x{a}{b}", "a"),
            ("x{}y", "x{}y"),
            ("x{y", "x{y"),
            ("}{a}", "a"),
            ("{a{b}", "a{b"),
        ] {
            assert_eq!(hash_tag(key), tag, "{key}");
        }
        assert_eq!(
            stream_of("{room 7}:chat", 8),
            stream_of("{room 7}:typing", 8)
        );
        let streams: std::collections::HashSet<usize> =
            (0..100).map(|n| stream_of(&n.to_string(), 8)).collect();
        assert_eq!(streams.len(), 8);
        assert_eq!(stream_of("a", 1), 0);
    }
}
