//! How long ago something was, in one or two words.

use std::time::Duration;

use hostler_model::Timestamp;

/// `4s`, `12m`, `3h`, `9d`: the span since a moment in RFC 3339; a dash if it is none.
pub(crate) fn since(moment: &str, now: Timestamp) -> String {
    Timestamp::parse(moment).map_or_else(|| "-".to_owned(), |moment| rough(now.since(moment)))
}

/// The largest fitting unit.
pub(crate) fn rough(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_takes_its_largest_fitting_unit() {
        let words = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_200, "2h"),
            (172_800, "2d"),
        ];
        for (seconds, word) in words {
            assert_eq!(rough(Duration::from_secs(seconds)), word);
        }
        assert_eq!(since("never", Timestamp::default()), "-");
    }
}
