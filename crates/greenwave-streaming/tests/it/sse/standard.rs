//! A model that parses a whole event stream as the HTML standard describes (9.2.6).

/// Returns the type, last event id and data of each event.
pub(crate) fn events(stream: &[u8]) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    // "Streams must be decoded using the UTF-8 decode algorithm", which strips one byte order mark.
    let stream = stream.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(stream);
    let (mut data, mut name, mut id, mut last_id) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut has_data = false;
    let mut found = Vec::new();
    for line in lines(stream) {
        if line.is_empty() {
            last_id.clone_from(&id);
            if has_data {
                // "If the data buffer's last character is a U+000A LINE FEED (LF) character, then
                // remove the last character."
                data.pop();
                let name = if name.is_empty() { b"message".to_vec() } else { name.clone() };
                found.push((name, last_id.clone(), data.clone()));
            }
            (data, name, has_data) = (Vec::new(), Vec::new(), false);
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = colon.map_or((line, &[][..]), |colon| (&line[..colon], &line[colon + 1..]));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value.to_vec(),
            b"data" => {
                data.extend_from_slice(value);
                data.push(b'\n');
                has_data = true;
            }
            b"id" if !value.contains(&0) => id = value.to_vec(),
            _ => {}
        }
    }
    found
}

/// Returns the lines that end with LF, CRLF or CR. The rest after the last line ending is not part
/// of an event.
fn lines(stream: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    while at < stream.len() {
        let end = at;
        at += match &stream[at..] {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            _ => {
                at += 1;
                continue;
            }
        };
        found.push(&stream[start..end]);
        start = at;
    }
    found
}
